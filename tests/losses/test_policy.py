"""Policy-gradient losses against loops from their definitions, gradients and known limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teloi import losses

rewards = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.lists(st.floats(-5, 5), min_size=k, max_size=k), min_size=1, max_size=4)
)


@given(rewards)
def test_group_advantages_are_centred_and_scaled(values) -> None:
    found = losses.group_advantages(torch.tensor(values, dtype=torch.float64))
    for row, group in zip(found.tolist(), values, strict=True):
        mean = sum(group) / len(group)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in group) / (len(group) - 1))
        assert row == pytest.approx([(r - mean) / (deviation + 1e-4) for r in group], abs=1e-9)


@given(rewards)
def test_leave_one_out_is_the_mean_of_the_others(values) -> None:
    found = losses.leave_one_out_advantages(torch.tensor(values, dtype=torch.float64))
    for row, group in zip(found.tolist(), values, strict=True):
        others = [(sum(group) - r) / (len(group) - 1) for r in group]
        assert row == pytest.approx([r - o for r, o in zip(group, others, strict=True)], abs=1e-9)


def test_equal_rewards_teach_nothing() -> None:
    assert not losses.group_advantages(torch.ones(2, 3)).any()
    assert not losses.leave_one_out_advantages(torch.ones(2, 3)).any()


@pytest.mark.parametrize("advantages", [losses.group_advantages, losses.leave_one_out_advantages])
def test_a_group_of_one_is_refused(advantages) -> None:
    with pytest.raises(ValueError, match="at least two"):
        advantages(torch.ones(3, 1))


token = st.tuples(st.floats(-5, 0), st.floats(-5, 0), st.floats(-3, 3))


@given(st.lists(token, min_size=1, max_size=8), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_the_surrogate_is_the_pessimistic_one(tokens, low, high) -> None:
    new, old, advantage = (torch.tensor(column, dtype=torch.float64) for column in zip(*tokens, strict=True))
    found = losses.clipped_surrogate(new, old, advantage, low, high)
    for value, (n, o, a) in zip(found.tolist(), tokens, strict=True):
        ratio = math.exp(n - o)
        clipped = min(max(ratio, 1 - low), 1 + high)
        assert value == pytest.approx(-min(ratio * a, clipped * a), abs=1e-9)


def test_where_the_policy_has_not_moved_the_surrogate_has_the_gradient_of_reinforce() -> None:
    logps = torch.randn(6, dtype=torch.float64, requires_grad=True)
    advantages = torch.randn(6, dtype=torch.float64)
    (one,) = torch.autograd.grad(losses.clipped_surrogate(logps, logps.detach(), advantages).sum(), logps)
    (other,) = torch.autograd.grad(losses.reinforce(logps, advantages).sum(), logps)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("estimator", "unbiased"), [("k1", True), ("k3", True), ("k2", False)])
def test_estimates_average_to_the_divergence_under_the_policy(estimator, unbiased) -> None:
    """The exact expectation over a small vocabulary."""
    torch.manual_seed(0)
    policy, reference = (torch.log_softmax(torch.randn(7, dtype=torch.float64), 0) for _ in range(2))
    exact = (policy.exp() * (policy - reference)).sum()
    values = losses.kl_estimate(policy, reference, estimator)
    assert torch.isclose((policy.exp() * values).sum(), exact) == unbiased
    if estimator != "k1":
        assert (values >= 0).all()
