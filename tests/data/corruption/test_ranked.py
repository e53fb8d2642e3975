"""Masks by rank, against loops over spans and tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teloi.data.corruption.ragged import Ragged
from teloi.data.corruption.ranked import LONGEST, lowest, span_replacements, span_scores, span_tiles
from teloi.errors import UsageError

lengths_of = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def drawn(lengths: list[int], seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, LONGEST + 1, (len(lengths), max(lengths)))
    return span_tiles(np.array(lengths), sizes), sizes, rng


@settings(max_examples=50)
@given(lengths_of, st.integers(0, 1000))
def test_spans_tile_each_sequence_from_its_begin(lengths, seed) -> None:
    spans, sizes, _ = drawn(lengths, seed)
    expected: list[int] = []
    number = -1
    for length, row in zip(lengths, sizes.tolist(), strict=True):
        left = length
        for size in row:
            if left > 0:
                number += 1
                expected += [number] * min(size, left)
                left -= size
    assert spans.tolist() == expected


@settings(max_examples=50)
@given(lengths_of, st.integers(0, 1000))
def test_scores_and_the_lowest_of_them(lengths, seed) -> None:
    spans, _, rng = drawn(lengths, seed)
    total = sum(lengths)
    counts, eligible = rng.integers(0, 4, total), rng.random(total) < 0.8
    uniform, rounding, rate = rng.random(spans[-1] + 1), rng.random(len(lengths)), rng.uniform(0.05, 0.6)
    scores = span_scores(spans, uniform, Ragged(counts, np.array(lengths)), eligible)
    chosen = lowest(Ragged(scores, np.array(lengths)), rate, rounding)
    at = 0
    for length, u in zip(lengths, rounding, strict=True):
        here = range(at, at + length)
        mass = sum(np.exp(counts[t]) for t in here if eligible[t])
        own = [uniform[spans[t]] * np.exp(counts[t]) / mass if eligible[t] else np.inf for t in here]
        np.testing.assert_allclose(scores[at : at + length], own, rtol=1e-12)
        limit = sorted(own)[max(1, int(length * rate + u)) - 1]
        assert chosen[at : at + length].tolist() == [score <= limit and np.isfinite(score) for score in own]
        at += length


def test_what_was_masked_seldom_comes_first_and_equal_scores_go_together() -> None:
    lengths = np.array([6])
    spans = np.array([0, 0, 1, 1, 1, 2])
    even = span_scores(spans, np.array([0.5, 0.2, 0.9]), Ragged(np.zeros(6), lengths))
    assert lowest(Ragged(even, lengths), 0.1, np.array([0.0])).tolist() == [False, False, True, True, True, False]
    often = span_scores(spans, np.array([0.5, 0.2, 0.9]), Ragged(np.array([0, 0, 9, 9, 9, 0]), lengths))
    assert lowest(Ragged(often, lengths), 0.1, np.array([0.0])).tolist() == [True, True, False, False, False, False]


def test_the_number_masked_is_right_on_average() -> None:
    rng = np.random.default_rng(0)
    scores = Ragged(rng.random(20_000 * 7), np.full(20_000, 7))
    masked = lowest(scores, 0.3, rng.random(20_000)).mean()
    assert masked == pytest.approx(0.3, abs=0.005)
    with pytest.raises(UsageError, match="masking rate"):
        lowest(scores, 0.0, rng.random(20_000))


def test_a_span_has_one_fate() -> None:
    rng = np.random.default_rng(0)
    spans = np.repeat(np.arange(30_000), 3)
    ids = np.full(len(spans), 5)
    made = span_replacements(ids, spans, rng.random(30_000), 4, lambda count: rng.integers(10, 20, count)).reshape(
        -1, 3
    )
    fates = np.where(made == 4, 0, np.where(made == 5, 2, 1))
    assert (fates == fates[:, :1]).all()
    np.testing.assert_allclose(np.bincount(fates[:, 0]) / 30_000, [0.8, 0.1, 0.1], atol=0.01)
    random = made[fates[:, 0] == 1]
    assert set(random.ravel().tolist()) == set(range(10, 20))
    assert (random[:, 0] != random[:, 1]).mean() == pytest.approx(0.9, abs=0.03), "each token has its own"
