"""KTO: learning from completions that are labelled one by one, desirable or not."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def kl_baseline(mismatched: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """z0 = max(0, mean of log pi - log ref) over *mismatched* pairs of prompt and completion.

    The argument holds their summed log-ratios. A scalar without gradient: an estimate of KL(pi || ref) that ignores
    whether completions are good. By custom pair i is prompt i with completion i - 1 of the same batch.

    Source: Ethayarajh et al. 2024 (KTO), section 4.1.
    Errors: ValueError for an empty batch.
    """
    if not len(mismatched):
        raise ValueError("the KTO baseline needs at least one mismatched pair")
    return mismatched.detach().mean().clamp(min=0)


def kto(
    logratio: Float[Tensor, " b"],
    desirable: Bool[Tensor, " b"],
    baseline: Float[Tensor, ""],
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " b"]:
    """Kahneman-Tversky value loss of each labelled completion; the training loss is the mean over all of them.

        desirable:    weight_D (1 - sigmoid(beta (h - z0)))
        undesirable:  weight_U (1 - sigmoid(beta (z0 - h)))

    Args:
        logratio: h = log pi - log ref, summed over the completion.
        desirable: the labels; a batch with one label only is fine.
        baseline: z0, from `kl_baseline`; no gradient flows into it.

    Source: Ethayarajh et al. 2024 (KTO), eq. 8.
    """
    gain = beta * (logratio - baseline.detach())
    return torch.where(desirable, desirable_weight * (-gain).sigmoid(), undesirable_weight * gain.sigmoid())
