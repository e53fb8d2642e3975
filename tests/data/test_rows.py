"""Rows of segments: nothing is lost, nothing exceeds a row, and targets are the tokens that come next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teloi.data.rows import Window, fill, fill_row, next_token_row, pieces


@pytest.mark.parametrize(
    ("document", "expected"),
    [(0, []), (1, []), (2, [(0, 2)]), (10, [(0, 10)]), (11, [(0, 10)]), (12, [(0, 10), (10, 2)])],
)
def test_documents_are_cut_and_single_tokens_dropped(document, expected) -> None:
    assert pieces(document, 12) == expected


@settings(max_examples=60)
@given(st.lists(st.integers(2, 10), min_size=1, max_size=12), st.integers(0, 1000))
def test_each_segment_is_whole_once_and_rows_are_full(lengths, seed) -> None:
    rows = fill(lengths, 12, np.random.default_rng(seed))
    windows = [window for row in rows for window in row]
    whole = [w for w in windows if w.length == lengths[w.segment]]
    assert {w.segment for w in whole} == set(range(len(lengths)))
    assert [row[0].segment for row in rows] == list(dict.fromkeys(row[0].segment for row in rows))
    for row in rows:
        assert all(w.start >= 0 and w.start + w.length <= lengths[w.segment] and w.length > 0 for w in row)
        assert all(w.length == lengths[w.segment] for w in row[:-1]), "only the last may be cut"
        assert 11 <= sum(w.length + 1 for w in row) <= 13
    assert rows == fill(lengths, 12, np.random.default_rng(seed))


def test_the_least_used_window_fills_the_rest() -> None:
    used = [np.zeros(3, int), np.array([2, 2, 0, 1, 0, 2])]
    row = fill_row(0, iter([1]), used, 7)
    assert row == [Window(0, 0, 3), Window(1, 2, 3)]
    assert used[1].tolist() == [2, 2, 1, 2, 1, 2]


def test_every_position_has_the_token_after_it() -> None:
    parts = [np.array([10, 11, 12]), np.array([20, 21])]
    row = next_token_row(parts, 1, 7)
    assert row.inputs.tolist() == [1, 10, 11, 12, 1, 20, 21]
    assert row.targets.tolist() == [10, 11, 12, -100, 20, 21, -100]
    assert row.lengths.tolist() == [4, 3]
    full = next_token_row(parts, 1, 6)
    assert (full.inputs.tolist(), full.targets.tolist()) == ([1, 10, 11, 12, 1, 20], [10, 11, 12, -100, 20, 21])
    assert full.lengths.tolist() == [4, 2]


def test_of_masked_tokens_only_those_are_said_that_were_chosen() -> None:
    parts, chosen = [np.array([10, 11, 12])], [np.array([True, False, True])]
    row = next_token_row(parts, 1, 7, [np.array([4, 11, 4])], chosen)
    assert row.inputs.tolist() == [1, 4, 11, 4]
    assert row.targets.tolist() == [10, -100, 12, -100]
