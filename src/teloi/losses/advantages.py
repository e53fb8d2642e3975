"""From the rewards of responses to the advantages of their tokens.

Responses are padded on the right, [b t] with lengths [b]: masks come from lengths, never from a padding id that may be
the end token too. `values[:, i]` is the value of the state before token i. What is padded in is 0 in rewards and
values, so that no advantage sees it."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Slot = Literal["last", "next"]
Divisor = Literal["std", "sqrt_std"]


def real(lengths: Int[Tensor, " b"], size: int) -> Bool[Tensor, "b t"]:
    """Which of `size` positions hold a token of responses of these lengths."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def before_first(ids: Int[Tensor, "b t"], token: int) -> Int[Tensor, " b"]:
    """How many tokens stand before the first `token` of each row; t where there is none."""
    return ((ids == token).cumsum(1) == 0).sum(1)


def scores_at_ends(
    scores: Float[Tensor, " b"], lengths: Int[Tensor, " b"], size: int, slot: Slot = "last"
) -> Float[Tensor, "b t"]:
    """One score a response as rewards of tokens: on its last token, or in the slot behind it where there is one
    ("next", the state after the end: Stiennon et al., 2020, as both re-implementations have it)."""
    places = lengths - 1 if slot == "last" else lengths.clamp(max=size - 1)
    return scores.new_zeros(len(scores), size).scatter(1, places[:, None], scores[:, None])


def scores_at_segments(
    rows: Int[Tensor, " s"], ends: Int[Tensor, " s"], scores: Float[Tensor, " s"], lengths: Int[Tensor, " b"], size: int
) -> Float[Tensor, "b t"]:
    """Scores of segments, any number a response, as rewards of the tokens that end them; those of one token add up.

    An end beyond the last token is that token. Source: Wu et al. 2023 (fine-grained RLHF), section 2.
    """
    places = torch.minimum(ends, lengths[rows] - 1)
    return scores.new_zeros(len(lengths), size).index_put((rows, places), scores, accumulate=True)


def unfinished(
    scores: Float[Tensor, " b"], finished: Bool[Tensor, " b"], penalty: float, *, replace: bool = True
) -> Float[Tensor, " b"]:
    """Scores in which a response without an end token has `penalty` in place of its score, or added to it."""
    return torch.where(finished, scores, penalty if replace else scores + penalty)


def whiten(
    values: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    keep_mean: bool = False,
    bessel: bool = True,
    eps: float = 1e-8,
    divisor: Divisor = "std",
    everywhere: bool = False,
    among: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "b t"]:
    """Values where `mask`, of mean 0 and variance 1; 0 elsewhere.

    Args:
        keep_mean: change the variance only, as rewards want it: their sign means something.
        bessel: divide the sum of squares by the count less 1.
        eps: added under the root.
        divisor: "sqrt_std" divides by the root of the standard deviation, as the code of fine-grained RLHF does.
        everywhere: what is padded in is shifted and scaled like the rest, as in that code; its rewards then reach the
            advantages of real tokens.
        among: what mean and variance are taken of, where that is more than the values at hand (several processes).

    Errors: ValueError with `bessel` where fewer than two values are real.
    """
    chosen = values[mask] if among is None else among
    if len(chosen) < 1 + bessel:
        raise ValueError(f"{len(chosen)} real tokens have no variance to whiten by")
    variance = chosen.var(correction=0)
    if bessel:
        # As a quotient of counts, in float32, like TRL and open-instruct: float64 vectors show the difference.
        count = torch.tensor(len(chosen))
        variance = variance * (count / (count - 1))
    scale = torch.rsqrt((variance if divisor == "std" else variance.sqrt()) + eps)
    centred = (values - chosen.mean()) * scale
    found = centred + chosen.mean() if keep_mean else centred
    return found if everywhere else torch.where(mask, found, 0.0)


def gae(
    rewards: Float[Tensor, "b t"], values: Float[Tensor, "b t"], gamma: float = 1.0, lam: float = 0.95
) -> Float[Tensor, "b t"]:
    """Generalised advantage estimation (Schulman et al., 2016, eq. 16); t counts tokens, or macro actions.

        delta_i = r_i + gamma V_{i+1} - V_i,  A_i = delta_i + gamma lam A_{i+1},  nothing behind the last

    Returns are A + V. No gradient flows: both are what the rollout found."""
    advantages = torch.zeros_like(rewards)
    after, value = rewards.new_zeros(len(rewards)), rewards.new_zeros(len(rewards))
    for i in reversed(range(rewards.shape[1])):
        after = rewards[:, i] + gamma * value - values[:, i] + gamma * lam * after
        advantages[:, i], value = after, values[:, i]
    return advantages


def clipped_value_loss(
    values: Float[Tensor, " n"], old: Float[Tensor, " n"], returns: Float[Tensor, " n"], clip: float = 0.2
) -> Float[Tensor, " n"]:
    """Half the larger of the squared errors of the value and of the value held within `clip` of the old one.

    Source: Schulman et al.'s PPO code; Stiennon et al. 2020 and all that follow it.
    """
    held = torch.clamp(values, old - clip, old + clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square())
