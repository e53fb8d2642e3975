"""Infilling and the noise on top of it: how much is drawn, where, and that drawing and rendering agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.corruption.infilling import (
    draw_share,
    infilling_spans,
    noise_labels,
    render_infilling,
    shuffled_order,
    spans_of_tokens,
)
from teloi.errors import UsageError

MASK = -1
SEEDS = st.integers(0, 2**20)


@given(st.integers(2, 80), st.floats(0.01, 0.99), st.floats(0.1, 10.0), SEEDS)
def test_a_fixed_number_of_words_is_masked_and_the_others_stay_in_order(length, rate, mean, seed) -> None:
    starts, widths = infilling_spans(length, rate, mean, np.random.default_rng(seed))
    noise = min(math.ceil(rate * length), length - 1)
    assert widths.sum() == noise
    assert len(widths) <= noise
    assert (starts[1:] >= starts[:-1] + widths[:-1]).all(), "spans overlap"
    assert starts[0] >= 0
    assert starts[-1] + widths[-1] <= length
    # Span by span, the definition.
    expected, at = [], 0
    for start, width in zip(starts, widths, strict=True):
        expected += [*range(at, start), MASK]
        at = start + width
    expected += range(at, length)
    assert render_infilling(np.arange(length), starts, widths, MASK).tolist() == expected


def test_the_example_of_the_paper() -> None:
    text = np.array(list("abcdefgh"))
    assert "".join(render_infilling(text, np.array([2]), np.array([2]), "_")) == "ab_efgh"  # type: ignore[arg-type]
    both = render_infilling(text, np.array([0, 8]), np.array([1, 0]), "_")  # type: ignore[arg-type]
    assert "".join(both) == "_bcdefgh_", "a span of no word is a mask of its own"


def test_span_lengths_are_poisson_and_every_place_is_met() -> None:
    rng = np.random.default_rng(0)
    drawn = [infilling_spans(1000, 0.3, 3.0, rng) for _ in range(60)]
    widths = np.concatenate([widths for _, widths in drawn])
    for k in range(6):
        assert (widths == k).mean() == pytest.approx(math.exp(-3) * 3**k / math.factorial(k), abs=0.015)
    covered = np.zeros(6)
    for _ in range(3000):
        starts, widths = infilling_spans(6, 0.3, 1.0, rng)
        for start, width in zip(starts, widths, strict=True):
            covered[start : start + width] += 1
    assert covered / 3000 == pytest.approx(np.full(6, 2 / 6), abs=0.06)


def test_words_are_masked_whole() -> None:
    begins = np.array([False, False, True, True, False, True])  # a text may begin inside a word
    starts, widths = spans_of_tokens(np.array([0, 2, 4]), np.array([1, 1, 0]), begins)
    assert starts.tolist() == [0, 3, 6]
    assert widths.tolist() == [2, 2, 0]


@given(st.integers(3, 120), st.floats(0.01, 0.3), SEEDS)
def test_shuffling_permutes_trigrams_of_eligible_tokens(length, share, seed) -> None:
    rng = np.random.default_rng(seed)
    begins, eligible = rng.random(length) < 0.8, rng.random(length) < 0.9
    order = shuffled_order(begins, eligible, share, rng)
    assert sorted(order) == list(range(length))
    moved = np.flatnonzero(order != np.arange(length))
    assert eligible[moved].all()
    assert len(moved) <= 3 * min(26, max(1, round(share * length)))


def test_a_trigram_stands_around_a_word_of_one_token_in_each_window() -> None:
    begins = np.ones(36, bool)
    begins[19:] = False  # the second window is one word of many tokens: no centre
    rng = np.random.default_rng(0)
    orders = [shuffled_order(begins, np.ones(36, bool), 0.5, rng) for _ in range(200)]
    moved = [np.flatnonzero(order != np.arange(36)) for order in orders]
    assert max(np.ptp(places) for places in moved if len(places)) == 2
    assert {int(i) for places in moved for i in places} == set(range(19)), "17 is the last word of one token"
    assert np.mean([(order == np.arange(36)).all() for order in orders]) < 0.2


def test_a_fixed_number_is_drawn_for_replacement() -> None:
    eligible = np.arange(40) % 2 == 0
    drawn = draw_share(eligible, 0.15, np.random.default_rng(0))
    assert drawn.sum() == 6
    assert not (drawn & ~eligible).any()
    assert draw_share(eligible & False, 0.15, np.random.default_rng(0)).sum() == 0


def test_labels_say_shuffled_before_replaced() -> None:
    source, shuffled = np.array([5, 6, 7, 8]), np.array([6, 5, 7, 8])
    drawn = np.array([True, False, True, False])
    assert noise_labels(source, shuffled, drawn).tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize(("rate", "mean"), [(0.0, 3.0), (1.0, 3.0), (0.15, 0.0)])
def test_rates_out_of_range_are_refused(rate, mean) -> None:
    with pytest.raises(UsageError):
        infilling_spans(10, rate, mean, np.random.default_rng(0))
