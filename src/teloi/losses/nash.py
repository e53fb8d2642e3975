"""Learning from pairwise preferences as a game: the equilibrium policy, not the maximum of a reward.

Source: Munos et al. 2024 (Nash learning from human feedback)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Credit = Literal["token", "to_go", "sequence"]


def mixture_logps(
    logits: Float[Tensor, "*s v"], reference_logits: Float[Tensor, "*s v"], share: float
) -> Float[Tensor, "*s v"]:
    """Log-probabilities of the geometric mixture of policy and reference, token by token: what the opponent is sampled
    from. `share` is the reference's: 0 is self-play, 1 the reference (the paper's beta)."""
    return torch.log_softmax((1 - share) * logits + share * reference_logits, -1)


def nash_md(
    logps: Float[Tensor, "b t"],
    reference_logps: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    preference: Float[Tensor, " b"],
    tau: float,
    credit: Credit = "to_go",
) -> Float[Tensor, " b"]:
    """The policy-gradient loss of a response y against an opponent's y', one number a response (section 7).

        -sum_t lp_t (P(y > y') - 1/2 - tau k_t),  k_t without gradient

    Args:
        preference: P(y > y').
        tau: weight of the KL to the reference.
        credit: k_t is the log-ratio of token t ("token": TRL; biased for responses of several tokens), of t and all
            behind it ("to_go": the paper), or of the whole response ("sequence").
    """
    kept = mask.to(logps)
    ratios = (logps.detach() - reference_logps.detach()) * kept
    match credit:
        case "token":
            kl = ratios
        case "to_go":
            kl = ratios.flip(1).cumsum(1).flip(1)
        case "sequence":
            kl = ratios.sum(1, keepdim=True)
    return -(logps * kept * (preference.detach()[:, None] - 0.5 - tau * kl)).sum(1)


def regularised_step(
    policy: Float[Tensor, " n"],
    reference: Float[Tensor, " n"],
    preferences: Float[Tensor, "n n"],
    tau: float,
    eta: float,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """One step of tabular Nash-MD (eq. 4 and 5): the next policy, and the opponent it was a best reply to.

    The opponent is the geometric mixture pi^(1 - eta tau) mu^(eta tau), the next policy in proportion to opponent *
    exp(eta P(y > opponent)). `preferences[i, j]` is P(i > j). ValueError where eta tau exceeds 1."""
    if eta * tau > 1 + 1e-12:
        raise ValueError(f"eta tau must be at most 1, got {eta * tau}")
    opponent = torch.softmax((1 - eta * tau) * policy.log() + eta * tau * reference.log(), 0)
    return torch.softmax(opponent.log() + eta * preferences @ opponent, 0), opponent


def decreasing_step(step: int, tau: float) -> float:
    """The step sizes eta = 2 / (tau (step + 2)) of the paper's guarantee (theorem 1), from step 0."""
    return 2 / (tau * (step + 2))


def equilibrium(
    reference: Float[Tensor, " n"], preferences: Float[Tensor, "n n"], tau: float, steps: int = 20_000
) -> Float[Tensor, " n"]:
    """The regularised Nash equilibrium, the fixed point pi = softmax(log mu + P pi / tau), by damped iteration."""
    policy = reference
    damping = min(0.5, tau)
    for _ in range(steps):
        following = torch.softmax(reference.log() + preferences @ policy / tau, 0)
        if torch.allclose(following, policy, rtol=0, atol=1e-15):
            break
        policy = (1 - damping) * policy + damping * following
    return policy
