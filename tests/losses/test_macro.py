"""Macro actions: the rules on examples of the paper's sheet, and what holds for any cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teloi import losses


def test_the_worked_example() -> None:
    starts = losses.fixed_starts(7, 3)
    assert starts == [0, 3, 6]
    cut, values = torch.tensor(starts), torch.arange(1.0, 8.0)
    rewards = torch.tensor([0.0, 0, 0, 0, 0, 0, 2])
    assert losses.aggregate(values, cut).tolist() == [2, 5, 7]
    assert losses.aggregate(values, cut, "unit").tolist() == [3, 6, 7]
    assert losses.aggregate(rewards, cut, total=True).tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (losses.fixed_starts(1, 5), [0]),
        (losses.fixed_starts(3, 5), [0, 2]),
        (losses.fixed_starts(4, 1), [0, 1, 2, 3]),
        (losses.fixed_starts(4, 1, keep_empty=True), [0, 1, 2, 3, 3]),
        (losses.listed_starts(9, [2, 3, 10]), [0, 2, 5, 8]),
        (losses.listed_starts(9, [1]), [0, 1, 8]),
        (losses.perplexity_starts(torch.tensor([3.0, 2, 4, 4, 5, 1])), [0, 1, 3, 5]),
        (losses.perplexity_starts(torch.tensor([3.0, 2, 4, 4, 5, 1]), offset=1), [0, 2, 4, 5]),
        (losses.parsed_starts([["a", "b"], "c", [["d", "e", "f"], ["g", "h"]]], 4), [0, 3, 6, 8]),
    ],
)
def test_where_segments_begin(found: list[int], wanted: list[int]) -> None:
    assert found == wanted


@given(
    length=st.integers(2, 12),
    sizes=st.lists(st.integers(1, 4), max_size=6),
    weights=st.sampled_from(["equal", "unit", "position"]),
)
def test_any_cut_covers_every_token_once(length, sizes, weights) -> None:
    starts = torch.tensor(losses.listed_starts(length, sizes))
    assert starts[0] == 0
    assert starts[-1] == length - 1
    values = torch.arange(length, dtype=torch.float64) + 1
    assert losses.aggregate(values, starts, weights)[-1] == length
    torch.testing.assert_close(losses.aggregate(values, starts, total=True).sum(), values.sum())
    ones = losses.spread(losses.aggregate(torch.ones_like(values), starts, weights), starts, length)
    torch.testing.assert_close(ones, torch.ones_like(values))


def test_segments_of_one_token_are_plain_tokens() -> None:
    rewards, values = torch.randn(2, 6, dtype=torch.float64)
    starts = torch.tensor(losses.fixed_starts(6, 1))
    macro = losses.gae(losses.aggregate(rewards, starts, total=True)[None], losses.aggregate(values, starts)[None])
    torch.testing.assert_close(losses.spread(macro[0], starts, 6), losses.gae(rewards[None], values[None])[0])
