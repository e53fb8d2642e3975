"""Rows parted by length, against all ways to part them."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from teloi.batch.sequence import like_lengths, neighbours


def cost(sizes: np.ndarray, groups: list[np.ndarray], call: int) -> int:
    return sum(len(rows) * int(sizes[rows].max()) + call for rows in groups)


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=7), call=st.integers(0, 40))
def test_rows_are_parted_at_the_least_cost(lengths: list[int], call: int) -> None:
    sizes = np.array(lengths)
    groups = like_lengths(sizes, call)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(sizes)))
    order = np.argsort(sizes)
    every = [
        np.split(order, cuts)
        for number in range(len(sizes))
        for cuts in itertools.combinations(range(1, len(sizes)), number)
    ]
    assert cost(sizes, groups, call) == min(cost(sizes, parted, call) for parted in every)


def test_a_few_rows_are_read_at_once() -> None:
    assert len(like_lengths([3, 9, 4, 30])) == 1
    assert [rows.tolist() for rows in like_lengths([100] * 8 + [4] * 8)] == [[*range(8, 16)], [*range(8)]]


@given(sizes=st.lists(st.integers(1, 30), max_size=12), positions=st.integers(1, 80))
def test_batches_of_neighbours_hold_every_row_once_and_fit(sizes: list[int], positions: int) -> None:
    parts = list(neighbours(sizes, positions))
    assert sorted(row for part in parts for row in part) == list(range(len(sizes)))
    assert all(len(part) == 1 or len(part) * max(sizes[row] for row in part) <= positions for part in parts)
    assert [sizes[row] for part in parts for row in part] == sorted(sizes, reverse=True)
