"""Contrast with what a slowly following copy of the model says, and what comes of its similarities: hard negatives, to
be told from the right partners by a classifier.

The copy and its queue are state of training; here is the arithmetic.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from teloi.losses.contrastive import contrast, info_nce
from teloi.losses.tokens import token_cross_entropy


def momentum_info_nce(
    anchors: Float[Tensor, "n d"],
    followers: Float[Tensor, "n d"],
    positives: Float[Tensor, "n d"],
    queue: Float[Tensor, "q d"],
    scale: float | Float[Tensor, ""],
    *,
    alpha: float = 0.0,
    candidates: Bool[Tensor, "n m"] | None = None,
) -> Float[Tensor, " n"]:
    """-log p(positive i | anchor i), where positives and queue are what a slowly following copy of the model says.

    Args:
        anchors: embeddings by the model, with gradient.
        followers: embeddings of the same inputs by the copy; they serve only where alpha is above 0.
        positives: embeddings of their partners by the copy; no gradient flows into them, nor into the queue.
        queue: the copy's embeddings of earlier partners.
        scale: the inverse of the temperature.
        alpha: the share of the target that is not on the own partner but spread as the copy would spread it,
            softmax(scale * cos(follower, candidate)).
        candidates: the columns, positives and then queue (m = n + q), that each row chooses among.

    Source: He et al. 2020 (MoCo); with alpha, Li et al. 2021 (ALBEF), eq. 6, whose recipe CodeT5+ takes with alpha 0.
    """
    logits = contrast(anchors, positives.detach(), scale, queue=queue)
    if not alpha:
        return info_nce(logits, candidates=candidates)
    spread = contrast(followers.detach(), positives.detach(), scale, queue=queue).detach()
    if candidates is not None:
        spread = spread.masked_fill(~candidates, float("-inf"))
    own = torch.eye(*logits.shape, dtype=logits.dtype, device=logits.device)
    return info_nce(logits, alpha * spread.softmax(1) + (1 - alpha) * own, candidates=candidates)


def hard_negative_weights(
    logits: Float[Tensor, "n m"], candidates: Bool[Tensor, "n n"] | None = None
) -> Float[Tensor, "n n"]:
    """How likely each of a batch is to be drawn as the hard negative of each row: the softmax of the similarities to
    the n partners of the batch, 0 for the own one and for what is no candidate. Rows do not sum to 1. No gradient.

    Args:
        logits: scale times similarity; columns beyond the n-th (a queue) are left out.
        candidates: pairs that are surely wrong.

    Source: Li et al. 2021 (ALBEF), section 3.2, as in CodeT5+'s text-code matching.
    """
    weights = logits.detach()[:, : len(logits)].softmax(1)
    weights = weights.masked_fill(torch.eye(len(weights), dtype=torch.bool, device=weights.device), 0.0)
    return weights if candidates is None else weights.masked_fill(~candidates, 0.0)


def draw_weighted(weights: Float[Tensor, "n m"], uniform: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """One column a row, by a number in [0, 1) each: the first at which the cumulated weights exceed that share of their
    sum. A row without any weight draws its last column."""
    upto = weights.double().cumsum(1)
    drawn = torch.searchsorted(upto, (uniform.double() * upto[:, -1])[:, None], right=True).squeeze(1)
    return drawn.clamp(max=weights.shape[1] - 1)


def matching(logits: Float[Tensor, "m 2"]) -> Float[Tensor, " m"]:
    """Cross-entropy of a two-way classifier, which says of a pair whether it belongs together: of n pairs that do, then
    of n of a text with a hard wrong partner, and of n of a partner with a hard wrong text. The loss is the mean.

    Source: Wang et al. 2023 (CodeT5+), text-code matching, after Li et al. 2021 (ALBEF).
    """
    return token_cross_entropy(logits, matching_labels(len(logits) // 3).to(logits.device))


def matching_labels(count: int) -> Int[Tensor, " n"]:
    """The classes of `matching`, [3 * count]: 1 for the pairs that belong together, which come first, and 0."""
    return torch.cat([torch.ones(count, dtype=torch.int64), torch.zeros(2 * count, dtype=torch.int64)])
