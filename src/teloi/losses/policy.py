"""Policy-gradient losses on sampled completions, and the advantages they weigh tokens with."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def group_advantages(rewards: Float[Tensor, "g k"], *, scale: bool = True, eps: float = 1e-4) -> Float[Tensor, "g k"]:
    """Rewards of k completions of each of g prompts, centred on their group's mean and divided by its deviation.

    GRPO (Shao et al., 2024, section 4.1.2): (r - mean) / (std + eps), std with Bessel's correction. `scale=False`
    leaves the division out (Dr. GRPO, Liu et al., 2025). A group whose rewards are equal gives zeros. ValueError when k
    is 1."""
    if rewards.shape[1] < 2:
        raise ValueError("a group needs at least two completions to be compared")
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + eps) if scale else centred


def leave_one_out_advantages(rewards: Float[Tensor, "g k"]) -> Float[Tensor, "g k"]:
    """Each reward minus the mean of the other k - 1 of its group (RLOO, Ahmadian et al., 2024, eq. 8). ValueError when
    k is 1."""
    k = rewards.shape[1]
    if k < 2:
        raise ValueError("a group needs at least two completions to leave one out")
    return (rewards - rewards.mean(1, keepdim=True)) * (k / (k - 1))


def clipped_surrogate(
    logps: Float[Tensor, " n"],
    old_logps: Float[Tensor, " n"],
    advantages: Float[Tensor, " n"],
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Float[Tensor, " n"]:
    """PPO's pessimistic surrogate (Schulman et al., 2017, eq. 7), as a loss: max(-A rho, -A clip(rho, 1 - low, 1 +
    high)).

    rho = exp(logps - old_logps); no gradient flows through `old_logps`.
    """
    ratio = torch.exp(logps - old_logps.detach())
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high))


def reinforce(logps: Float[Tensor, " n"], advantages: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """-A log p (Williams, 1992): the gradient of the clipped surrogate where the policy has not moved yet."""
    return -advantages * logps


def kl_estimate(
    logps: Float[Tensor, "*s"], reference_logps: Float[Tensor, "*s"], estimator: Estimator = "k3"
) -> Float[Tensor, "*s"]:
    """Estimates of KL(policy || reference) from tokens that the policy sampled (Schulman, 2020, "Approximating KL
    divergence").

    With d = log p - log ref: k1 = d (unbiased), k2 = d^2 / 2, k3 = exp(-d) - 1 + d (unbiased, never negative).
    Differentiable in `logps`."""
    difference = logps - reference_logps.detach()
    match estimator:
        case "k1":
            return difference
        case "k2":
            return difference.square() / 2
        case "k3":
            return torch.expm1(-difference) + difference
