"""KTO against its paper's value function worked out in plain Python."""

from __future__ import annotations

from math import exp

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from teloi import losses


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


rows = st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=8)


@given(rows, st.floats(0, 5), st.floats(0.01, 2), st.floats(0.1, 3), st.floats(0.1, 3))
def test_values_are_the_papers(rows: list[tuple[float, bool]], z0: float, beta: float, d: float, u: float) -> None:
    """lambda - v: v = lambda sigmoid(beta (h - z0)) or lambda sigmoid(beta (z0 - h)); one label alone is fine."""
    ratio = torch.tensor([h for h, _ in rows], dtype=torch.float64)
    labels = torch.tensor([label for _, label in rows])
    expected = [d - d * sigmoid(beta * (h - z0)) if good else u - u * sigmoid(beta * (z0 - h)) for h, good in rows]
    ours = losses.kto(ratio, labels, torch.tensor(z0, dtype=torch.float64), beta, d, u)
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


def test_baseline_is_the_mean_clamped_at_zero() -> None:
    assert losses.kl_baseline(torch.tensor([3.0, -1.0, 4.0])).item() == 2.0
    assert losses.kl_baseline(torch.tensor([-3.0, 1.0])).item() == 0.0
    with pytest.raises(ValueError, match="at least one mismatched pair"):
        losses.kl_baseline(torch.empty(0))


def test_no_gradient_flows_through_the_baseline() -> None:
    def slope(baseline: Tensor) -> Tensor:
        ratio = torch.tensor([0.5, -0.5], requires_grad=True)
        losses.kto(ratio, torch.tensor([True, False]), baseline, 0.5).sum().backward()
        assert ratio.grad is not None
        return ratio.grad

    policy = torch.tensor([1.0, 2.0], requires_grad=True)
    baseline = losses.kl_baseline(policy)
    assert not baseline.requires_grad
    torch.testing.assert_close(slope((policy * 0.75).sum() - 0.75), slope(baseline))
    assert policy.grad is None


def test_good_answers_rise_and_bad_ones_fall() -> None:
    ratio = torch.zeros(2, requires_grad=True)
    losses.kto(ratio, torch.tensor([True, False]), torch.tensor(0.0), 0.1).sum().backward()
    assert ratio.grad is not None
    torch.testing.assert_close(ratio.grad, torch.tensor([-0.025, 0.025]))  # beta / 4 at the baseline
