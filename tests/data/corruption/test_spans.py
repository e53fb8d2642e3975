"""Span corruption: counts, what every mask has in common, uniformity, and that nothing is lost on the way."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teloi.data.corruption.ragged import Ragged
from teloi.data.corruption.spans import (
    prefix_lengths,
    render_prefix,
    render_spans,
    segment_lengths,
    sentinels,
    span_counts,
    span_mask,
)
from teloi.errors import UsageError

quick = settings(max_examples=100)
lengths = st.lists(st.integers(1, 60), min_size=1, max_size=8)
densities = st.floats(0.01, 0.99)
means = st.floats(1, 70)
seeds = st.integers(0, 10_000)

V, EOS = 1000, 1


def sequences(sizes: list[int], seed: int = 0) -> Ragged:
    return Ragged(np.random.default_rng(seed).integers(2, 500, sum(sizes)).astype(np.int32), np.array(sizes))


def runs(mask: np.ndarray) -> list[tuple[bool, int]]:
    return [(bool(noise), len(list(run))) for noise, run in groupby(mask)]


@quick
@given(lengths, densities, means, seeds)
def test_number_of_noise_tokens_and_spans_is_the_rule_and_only_places_are_random(
    sizes: list[int], density: float, mean: float, seed: int
) -> None:
    mask = span_mask(sizes, density, mean, np.random.default_rng(seed))
    noise, spans = span_counts(sizes, density, mean)
    for row, n, k in zip(Ragged(mask, np.array(sizes)).rows(), noise, spans, strict=True):
        size = len(row)
        if size == 1:
            assert (row.sum(), n, k) == (0, 0, 0)
            continue
        assert n == row.sum() == min(max(round(size * density), 1), size - 1)
        assert k == min(max(round(n / mean), 1), n, size - n)
        assert [kind for kind, _ in runs(row)] == [False, True] * k


@quick
@given(lengths, densities, means, seeds, st.booleans())
def test_input_and_target_together_are_the_tokens(
    sizes: list[int], density: float, mean: float, seed: int, roll: bool
) -> None:
    tokens = sequences(sizes, seed)
    mask = span_mask(sizes, density, mean, np.random.default_rng(seed), roll=roll)
    inputs, targets = render_spans(tokens, mask, sentinels(V), EOS)
    names = sentinels(V).tolist()
    for text, noise, given_, wanted in zip(
        tokens.rows(), Ragged(mask, tokens.lengths).rows(), inputs.rows(), targets.rows(), strict=True
    ):
        assert given_[-1] == wanted[-1] == EOS
        spans: dict[int, list[int]] = {}
        for token in wanted[:-1].tolist():
            if token in names:
                spans[token] = []
            else:
                spans[next(reversed(spans))].append(token)
        assert list(spans) == names[: len(spans)]  # each sentinel once, in order
        assert all(spans.values())
        restored = [back for token in given_[:-1].tolist() for back in spans.get(token, [token])]
        assert restored == text.tolist()
        assert [t for span in spans.values() for t in span] == text[noise].tolist()
        assert given_.dtype == wanted.dtype == text.dtype


def test_worked_example() -> None:
    tokens = Ragged.of([np.arange(10, 20)])
    mask = np.array([0, 0, 0, 1, 1, 0, 0, 0, 0, 1], bool)
    inputs, targets = render_spans(tokens, mask, sentinels(100), 1)
    assert inputs.prepend(90).values.tolist() == [90, 10, 11, 12, 99, 15, 16, 17, 18, 98, 1]
    assert targets.values.tolist() == [99, 13, 14, 98, 19, 1]
    inputs, targets = render_prefix(tokens, np.array([6]), 1)
    assert inputs.prepend(91).values.tolist() == [91, 10, 11, 12, 13, 14, 15, 1]
    assert targets.values.tolist() == [16, 17, 18, 19, 1]


def test_every_mask_is_equally_likely() -> None:
    """7 tokens, 3 noise in 2 spans: 2 ways to split the noise, 3 to split the rest."""
    masks = span_mask(np.full(6000, 7), 0.43, 1.5, np.random.default_rng(0)).reshape(-1, 7)
    seen = Counter(tuple(row.tolist()) for row in masks)
    assert len(seen) == 6
    assert max(abs(count - 1000) for count in seen.values()) < 5 * 29  # deviation of a count: 29


def test_one_long_span_is_the_tail_unless_masks_roll() -> None:
    sizes = np.full(200, 20)
    tail = span_mask(sizes, 0.15, 64, np.random.default_rng(0)).reshape(-1, 20)
    assert tail[:, 17:].all()
    rolled = span_mask(sizes, 0.15, 64, np.random.default_rng(0), roll=True).reshape(-1, 20)
    assert (rolled.sum(1) == 3).all()
    assert rolled.any(0).all()


def test_density_and_mean_may_differ_by_sequence() -> None:
    mask = Ragged(span_mask([10, 40], [0.5, 0.15], [5, 3], np.random.default_rng(0)), np.array([10, 40]))
    assert [[kind for kind, _ in runs(row)].count(True) for row in mask.rows()] == [1, 2]
    assert [int(row.sum()) for row in mask.rows()] == [5, 6]


def test_the_same_generator_gives_the_same_mask() -> None:
    one, two = (span_mask([30, 50], 0.3, 3, np.random.default_rng(3), roll=True) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@quick
@given(st.integers(20, 600), st.sampled_from([0.15, 0.3, 0.5]), st.sampled_from([3.0, 8.0, 32.0]), seeds)
def test_segments_of_the_stated_length_fill_the_input(size: int, density: float, mean: float, seed: int) -> None:
    raw, target = segment_lengths(size, density, mean)
    noise = round(raw * density)
    if round(noise / mean) == 0:
        return  # T5's arithmetic counts no span there, but one is drawn
    mask = span_mask([raw], density, mean, np.random.default_rng(seed))
    inputs, targets = render_spans(sequences([raw]), mask, sentinels(V, 300), EOS)
    assert targets.lengths[0] == target
    assert inputs.lengths[0] <= size
    if density != 0.5:
        longer = span_mask([raw + 1], density, mean, np.random.default_rng(seed))
        assert render_spans(sequences([raw + 1]), longer, sentinels(V, 300), EOS)[0].lengths[0] > size


@quick
@given(st.lists(st.integers(2, 60), min_size=1, max_size=8), st.sampled_from([0.25, 0.01, 0.99, "uniform"]), seeds)
def test_prefix_and_suffix_are_the_tokens(sizes: list[int], suffix: Any, seed: int) -> None:
    tokens = sequences(sizes, seed)
    prefixes = prefix_lengths(sizes, suffix, np.random.default_rng(seed))
    inputs, targets = render_prefix(tokens, prefixes, None)
    for text, before, after in zip(tokens.rows(), inputs.rows(), targets.rows(), strict=True):
        assert len(before) >= 1
        assert len(after) >= 1
        assert [*before, *after] == text.tolist()
        if suffix != "uniform":
            assert len(after) == min(max(round(len(text) * suffix), 1), len(text) - 1)


def test_uniform_prefixes_are_uniform() -> None:
    prefixes = prefix_lengths(np.full(4000, 5), "uniform", np.random.default_rng(0))
    counts = np.bincount(prefixes, minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 5 * 28


def test_ragged() -> None:
    rows = Ragged.of([np.array([1, 2]), np.array([3]), np.array([], int)])
    assert [row.tolist() for row in rows.rows()] == [[1, 2], [3], []]
    assert [row.tolist() for row in rows.append(9).rows()] == [[1, 2, 9], [3, 9], [9]]
    assert [row.tolist() for row in rows.prepend(np.array([7, 8, 9])).rows()] == [[7, 1, 2], [8, 3], [9]]
    assert Ragged.cut(np.arange(7), 3).lengths.tolist() == [3, 3, 1]
    assert Ragged.cut(np.arange(6), 3).lengths.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: span_counts([4, 0], 0.5, 3), "without tokens"),
        (lambda: span_counts([4], 0.0, 3), "rate must be above 0 and below 1, got 0.0"),
        (lambda: span_counts([4, 4], [0.5, 1.0], 3), "rate must be above 0 and below 1, got 1.0"),
        (lambda: span_counts([4], float("nan"), 3), "rate must be"),
        (lambda: span_counts([4], 0.5, 0.5), "mean span length must be at least 1, got 0.5"),
        (lambda: segment_lengths(0, 0.5, 3), "at least one token"),
        (lambda: segment_lengths(64, 1.0, 3), "rate must be"),
        (lambda: prefix_lengths([1], 0.25, np.random.default_rng(0)), "fewer than two tokens"),
        (lambda: prefix_lengths([4], 1.0, np.random.default_rng(0)), "share must be above 0 and below 1"),
        (
            lambda: render_spans(sequences([6]), np.array([0, 1, 0, 1, 0, 1], bool), sentinels(V, 2), EOS),
            "a sequence of 6 tokens has 3 noise spans, but the vocabulary has 2 sentinels",
        ),
        (lambda: render_spans(sequences([2]), np.array([0, 1], bool), [], EOS), "has 0 sentinels"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
