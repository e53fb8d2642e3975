"""Rewards, advantages and whitening against their definitions, written out response by response."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from teloi import losses


def drawn(seed: int, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards and values, zero behind the end, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = losses.real(torch.tensor(lengths), max(lengths))
    rewards, values = (torch.randn(mask.shape, generator=generator, dtype=torch.float64) * mask for _ in range(2))
    return rewards, values, mask


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    gamma=st.floats(0.5, 1),
    lam=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_advantages_are_the_sum_of_later_errors(lengths, gamma, lam, seed) -> None:
    rewards, values, _ = drawn(seed, lengths)
    found = losses.gae(rewards, values, gamma, lam)
    for row, length in enumerate(lengths):
        after = [*values[row, 1:length].tolist(), 0.0]
        errors = [float(rewards[row, i]) + gamma * after[i] - float(values[row, i]) for i in range(length)]
        wanted = [sum((gamma * lam) ** (j - i) * errors[j] for j in range(i, length)) for i in range(length)]
        np.testing.assert_allclose(found[row, :length], wanted, atol=1e-12)
        assert not found[row, length:].any()


@given(lengths=st.lists(st.integers(2, 7), min_size=1, max_size=4), seed=st.integers(0, 9), keep=st.booleans())
def test_whitened_values_have_variance_one_whatever_is_padded_in(lengths, seed, keep) -> None:
    values, other, mask = drawn(seed, lengths)
    found = losses.whiten(values, mask, keep_mean=keep)
    assert float(found[mask].var()) == pytest.approx(1, abs=1e-5)
    assert float(found[mask].mean()) == pytest.approx(float(values[mask].mean()) if keep else 0, abs=1e-7)
    torch.testing.assert_close(found, losses.whiten(torch.where(mask, values, 7.0 + other), mask, keep_mean=keep))


def test_one_value_has_no_variance() -> None:
    with pytest.raises(ValueError, match="1 real tokens have no variance"):
        losses.whiten(torch.ones(1, 3), losses.real(torch.tensor([1]), 3))
    assert losses.whiten(torch.ones(1, 3), losses.real(torch.tensor([1]), 3), bessel=False).sum() == 0


def test_a_score_stands_on_the_last_token_or_behind_it() -> None:
    scores, lengths = torch.tensor([2.0, -1.0, 3.0]), torch.tensor([1, 3, 2])
    assert losses.scores_at_ends(scores, lengths, 3).tolist() == [[2, 0, 0], [0, 0, -1], [0, 3, 0]]
    assert losses.scores_at_ends(scores, lengths, 3, "next").tolist() == [[0, 2, 0], [0, 0, -1], [0, 0, 3]]


def test_scores_of_segments_that_end_together_add_up() -> None:
    found = losses.scores_at_segments(
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([1, 1, 0, 9]),
        torch.tensor([1.0, 2.0, 4.0, 8.0]),
        torch.tensor([3, 2]),
        3,
    )
    assert found.tolist() == [[0, 3, 0], [4, 8, 0]]


def test_an_unfinished_response_is_penalised() -> None:
    scores, finished = torch.tensor([5.0, 5.0]), torch.tensor([True, False])
    assert losses.unfinished(scores, finished, -1.0).tolist() == [5, -1]
    assert losses.unfinished(scores, finished, -1.0, replace=False).tolist() == [5, 4]


def test_lengths_do_not_confuse_padding_with_the_end() -> None:
    """Padding and end token are one id: the end still counts as a token."""
    ids = torch.tensor([[4, 9, 9, 9], [4, 4, 4, 4], [9, 9, 9, 9]])
    lengths = (losses.before_first(ids, 9) + 1).clamp(max=4)
    assert lengths.tolist() == [2, 4, 1]


def test_a_value_is_held_near_the_old_one_only_where_that_costs_more() -> None:
    values = torch.tensor([1.0, 0.1, -1.0], requires_grad=True)
    found = losses.clipped_value_loss(values, torch.zeros(3), torch.tensor([1.0, 1.0, 1.0]), 0.2)
    torch.testing.assert_close(found.detach(), 0.5 * torch.tensor([0.8**2, 0.9**2, 2.0**2]))
    assert torch.autograd.grad(found.sum(), values)[0][0] == 0
