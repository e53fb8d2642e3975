"""Adversarial and self-calibrated losses: limits, which side gets gradients, and the direction of the ascent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from teloi import losses
from teloi.models.roles import slopes


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_where_both_agree_the_cross_entropy_is_twice_the_entropy_and_the_kl_is_0() -> None:
    logits = normal(5, 4)
    p = logits.softmax(-1)
    entropy = -(p * p.log()).sum(-1)
    torch.testing.assert_close(losses.symmetric_cross_entropy(logits, logits), 2 * entropy)
    torch.testing.assert_close(losses.symmetric_kl(logits, logits), torch.zeros(5, dtype=torch.float64))


def test_both_differ_by_entropies_and_do_not_care_which_is_first() -> None:
    one, other = normal(6, 3), normal(6, 3, seed=1)
    for loss in (losses.symmetric_cross_entropy, losses.symmetric_kl):
        torch.testing.assert_close(loss(one, other), loss(other, one))
    p, q = one.softmax(-1), other.softmax(-1)
    entropies = -(p * p.log()).sum(-1) - (q * q.log()).sum(-1)
    expected = losses.symmetric_kl(one, other) + entropies
    torch.testing.assert_close(losses.symmetric_cross_entropy(one, other), expected)


def test_an_ascent_raises_the_divergence_and_leaves_parameters_alone() -> None:
    matrix = normal(6, 3).requires_grad_()
    states, start = normal(4, 5, 6, seed=1), 0.01 * normal(4, 5, 6, seed=2)

    def network(delta: Tensor) -> Tensor:
        return torch.tanh(states + delta).mean(1) @ matrix

    clean = network(torch.zeros_like(start)).detach()
    start.requires_grad_()
    moved = losses.ascend(start, slopes(losses.symmetric_cross_entropy(network(start), clean), start), 0.1)
    assert matrix.grad is None
    assert not moved.requires_grad
    longest = (moved - start).abs().amax(-1)
    torch.testing.assert_close(longest, torch.full_like(longest, 0.1), atol=1e-2, rtol=0)
    before, after = (losses.symmetric_cross_entropy(network(delta), clean) for delta in (start, moved))
    assert (after > before).all()


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    start = torch.zeros(2, 3)
    for value in (torch.inf, torch.nan):
        assert (losses.ascend(start, torch.full((2, 3), value), 0.1) == start).all()


def test_calibration_goes_from_the_label_to_the_earlier_prediction() -> None:
    logits, before = normal(4, 3), normal(4, 3, seed=1).softmax(-1)
    labels = torch.tensor([0, 2, 1, 1])

    def value(share: float) -> Tensor:
        return losses.calibrated_cross_entropy(logits, labels, before, torch.full((4,), share, dtype=torch.float64))

    torch.testing.assert_close(value(0.0), losses.token_cross_entropy(logits, labels))
    torch.testing.assert_close(value(1.0), -(before * logits.log_softmax(-1)).sum(-1))
    torch.testing.assert_close(value(0.3), 0.7 * value(0.0) + 0.3 * value(1.0))


@pytest.mark.parametrize("seed", [0, 1])
def test_tokens_are_sampled_by_their_probabilities(seed: int) -> None:
    logits = normal(5, seed=seed)[None].expand(20000, -1)
    drawn = losses.sample_tokens(logits, torch.rand(20000, generator=torch.Generator().manual_seed(seed)))
    shares = torch.bincount(drawn, minlength=5) / 20000
    torch.testing.assert_close(shares.double(), logits[0].softmax(-1), atol=0.015, rtol=0)
    ends = losses.sample_tokens(
        torch.tensor([[0.0, 0.0, -torch.inf], [-torch.inf, 0.0, 0.0]]), torch.tensor([0.9999999, 0.0])
    )
    assert ends.tolist() == [1, 1], "what has no probability is never drawn"
