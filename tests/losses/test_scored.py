"""Losses on scored tokens: limits, clamps, gradients. The golden vectors hold their values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teloi import losses

token = st.tuples(st.floats(-8, -1e-3), st.floats(0, 1), st.floats(-1, 0))


@given(st.lists(token, min_size=1, max_size=8), st.floats(0, 2), st.floats(0.05, 10))
def test_values_are_those_of_the_definitions(tokens, alpha, beta) -> None:
    logps, scores, values = (torch.tensor(column, dtype=torch.float64) for column in zip(*tokens, strict=True))
    unlikely = losses.unlikelihood(logps, 1 - scores, alpha)
    weighted = losses.reward_weighted(logps, scores, beta, values)
    for place, (logp, score, value) in enumerate(tokens):
        against = math.log(1 - math.exp(logp))
        assert unlikely[place].item() == pytest.approx(-(1 - score) * logp - alpha * score * against, abs=1e-9)
        weight = min(math.exp((-score - value) / beta), 1000)
        assert weighted[place].item() == pytest.approx(-weight * logp, rel=1e-9)


def test_where_all_is_aligned_unlikelihood_is_likelihood() -> None:
    logps = torch.tensor([-0.1, -3.0])
    assert torch.equal(losses.unlikelihood(logps, torch.tensor([True, True]), 1.0), -logps)


def test_a_certain_misaligned_token_is_finite_and_falls() -> None:
    logits = torch.tensor([[30.0, 0.0], [2.0, 0.0]], requires_grad=True)
    logps = losses.logps_from_logits(logits, torch.tensor([0, 0]))
    value = losses.unlikelihood(logps, torch.tensor([False, False]), 1.0)
    assert value.isfinite().all()
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()
    assert gradient[1, 0] > 0 > gradient[1, 1], "descent lowers the token and raises the other"


def test_weights_are_clamped_before_they_overflow() -> None:
    scores = torch.tensor([0.0, -1.0, -500.0])
    weights = losses.reward_weights(scores, 0.01)
    assert weights[0] == 1
    torch.testing.assert_close(weights[1:], torch.tensor([1000.0, 1000.0]))


def test_a_constant_baseline_only_scales_and_constant_scores_weigh_alike() -> None:
    logps, scores = torch.tensor([-1.0, -2.0]), torch.tensor([0.2, 0.9])
    plain, shifted = losses.reward_weighted(logps, scores, 2.0), losses.reward_weighted(logps, scores, 2.0, -0.5)
    torch.testing.assert_close(shifted, plain * math.exp(0.25))
    assert len(set(losses.reward_weights(torch.full((3,), 0.3), 0.1).tolist())) == 1


def test_the_weight_does_not_train_the_value() -> None:
    values = torch.tensor([-0.5], requires_grad=True)
    logps, scores = torch.tensor([-1.0], requires_grad=True), torch.tensor([0.2])
    losses.reward_weighted(logps, scores, 1.0, values).sum().backward()
    untouched: object = values.grad
    assert untouched is None
    losses.value_error(scores, values).sum().backward()
    assert values.grad is not None
    assert values.grad.item() == pytest.approx(-2 * (-0.2 + 0.5))
