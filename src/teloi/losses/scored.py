"""Losses on text whose tokens carry the misalignment score of their segment: lower is better, the reward is -score.

All values are one for each predicted token, with that token's own score; the training loss is their mean.

Source: Korbak et al. 2023 (pretraining with human preferences), section 2.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MOST = 1000.0
"""The largest weight of a token."""


def unlikelihood(
    logps: Float[Tensor, " n"], aligned: Float[Tensor, " n"] | Bool[Tensor, " n"], alpha: float
) -> Float[Tensor, " n"]:
    """-a log p - alpha (1 - a) log(1 - p): likelihood of the aligned tokens, unlikelihood of the others.

    `aligned` is a, in [0, 1]: hard, whether the score is at most a threshold; soft, 1 - score. 1 - p is at least 1e-20,
    and has no gradient below.
    """
    a = aligned.to(logps.dtype)
    against = (-torch.expm1(logps)).clamp(min=1e-20).log()
    return -a * logps - alpha * (1 - a) * against


def reward_weights(
    scores: Float[Tensor, " n"], beta: float, baseline: Float[Tensor, " n"] | float = 0.0
) -> Float[Tensor, " n"]:
    """exp((-score - baseline) / beta), at most 1000 (the exponent is clamped, so that nothing overflows). No gradient
    flows through the baseline."""
    fixed = baseline.detach() if isinstance(baseline, Tensor) else baseline
    return ((-scores - fixed) / beta).clamp(max=math.log(MOST)).exp()


def reward_weighted(
    logps: Float[Tensor, " n"],
    scores: Float[Tensor, " n"],
    beta: float,
    baseline: Float[Tensor, " n"] | float = 0.0,
) -> Float[Tensor, " n"]:
    """-weight log p, the weight `reward_weights`: reward-weighted regression without a baseline, with the value of the
    predicting position as baseline the first term of advantage-weighted regression (Peng et al., 2019, eq. 10)."""
    return -reward_weights(scores, beta, baseline) * logps


def value_error(scores: Float[Tensor, " n"], values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """(-score - value)^2: what the value of the predicting position misses of the predicted token's reward."""
    return (-scores - values).square()
