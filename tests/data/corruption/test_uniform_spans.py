"""Spans of words with lengths of equal chances: how much is masked, and that no two touch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.corruption.spans import uniform_spans
from teloi.errors import UsageError


@given(st.integers(1, 300), st.floats(0.01, 0.99), st.integers(1, 8), st.integers(0, 99), st.none() | st.integers(1, 5))
def test_spans_lie_apart_and_mask_what_was_asked_for(length, density, longest, seed, most) -> None:
    starts, widths = uniform_spans(length, density, longest, np.random.default_rng(seed), most)
    noise = min(max(round(length * density), 1), length - 1)
    assert len(starts) == len(widths)
    assert most is None or len(starts) <= most
    assert ((widths >= 1) & (widths <= longest)).all()
    assert (starts[1:] > starts[:-1] + widths[:-1]).all(), "a word is kept between two"
    assert not len(starts) or (starts[0] >= 0 and starts[-1] + widths[-1] <= length)
    assert widths.sum() <= noise
    if most is None and noise <= length // 2:  # then there is always room between them
        assert widths.sum() == noise


def test_lengths_have_equal_chances_and_places_too() -> None:
    rng = np.random.default_rng(0)
    drawn = [uniform_spans(2000, 0.15, 5, rng) for _ in range(40)]
    lengths = np.bincount(np.concatenate([widths for _, widths in drawn]), minlength=6)[1:]
    assert lengths / lengths.sum() == pytest.approx(np.full(5, 0.2), abs=0.03)
    # One span of one word among ten: any place.
    places = np.bincount([int(uniform_spans(10, 0.1, 5, rng)[0][0]) for _ in range(3000)], minlength=10)
    assert places / 3000 == pytest.approx(np.full(10, 0.1), abs=0.03)


@pytest.mark.parametrize(("density", "longest"), [(0.0, 3), (1.0, 3), (0.2, 0)])
def test_values_out_of_range(density, longest) -> None:
    with pytest.raises(UsageError):
        uniform_spans(10, density, longest, np.random.default_rng(0))
