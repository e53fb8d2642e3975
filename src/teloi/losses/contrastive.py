"""InfoNCE and what it is made of: similarities, in-batch and other negatives, masks, several positives, soft targets.

Everything goes through `info_nce`, which takes logits and says for each row how surprising its positive is among the
columns. Two-sided losses are two calls of it, hard negatives and queues are further columns, groups of equal meaning
are a mask of positives. The values of a batch depend on each other: such a loss couples its batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

Metric = Literal["cosine", "dot", "l2", "mse"]


def similarity(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], metric: Metric = "cosine"
) -> Float[Tensor, "n m"]:
    """How alike each row is to each column: larger is nearer.

    "cosine", "dot", "l2" (minus the squared distance) or "mse" (minus the mean squared difference). float64 for
    float64, else float32, whatever autocast says: logits of scale 20 and more do not bear bfloat16.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows, columns = _exact(rows), _exact(columns)
        match metric:
            case "cosine":
                return normalize(rows, dim=1) @ normalize(columns, dim=1).T
            case "dot":
                return rows @ columns.T
            case "l2" | "mse":
                squares = rows.square().sum(1)[:, None] + columns.square().sum(1) - 2 * rows @ columns.T
                return -squares if metric == "l2" else -squares / rows.shape[1]
    raise ValueError(f"metric must be cosine, dot, l2 or mse, got {metric}")


def contrast(
    anchors: Float[Tensor, "n d"],
    positives: Float[Tensor, "p d"],
    scale: float | Float[Tensor, ""],
    *,
    negatives: Float[Tensor, "h d"] | None = None,
    queue: Float[Tensor, "q d"] | None = None,
    metric: Metric = "cosine",
) -> Float[Tensor, "n m"]:
    """The logits of a contrastive loss: scale times the similarity of each anchor with each candidate.

    Args:
        anchors, positives: embeddings, not normalised. Where they are paired, p = n and row i belongs to anchor i.
        scale: the inverse of the temperature; 20 is customary for cosines.
        negatives: hard negatives, those of all anchors one after the other; each anchor meets all of them.
        queue: embeddings of earlier batches, for instance of a momentum encoder; no gradient flows into them.

    Returns:
        [n, m], columns in the order positives, negatives, queue: m = p + h + q.
    """
    queue = None if queue is None else queue.detach()
    columns = [positives, *(extra for extra in (negatives, queue) if extra is not None)]
    return scale * similarity(anchors, torch.cat(columns), metric)


def mean_pool(states: Float[Tensor, "b t d"], mask: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """The mean state of each row over the tokens where `mask` is 1, so that padding does not count; 0 for an empty row.

    float64 for float64, else float32.
    """
    states = _exact(states)
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def inverse_temperature(
    log_temperature: Float[Tensor, ""], lowest: float = 0.01, highest: float = 100.0
) -> Float[Tensor, ""]:
    """1 / clip(exp(log_temperature), lowest, highest): the scale that belongs to a learned temperature.

    Source: Myers et al. 2023 (GRIF), after Radford et al. 2021 (CLIP); both start at 0.07.
    """
    return 1 / log_temperature.exp().clamp(lowest, highest)


def same_group(rows: Int[Tensor, " n"], columns: Int[Tensor, " m"]) -> Bool[Tensor, "n m"]:
    """Which pairs have the same group; a negative number stands for no group and equals none.

    As targets, the pairs that are positive. Negated, as candidates, without the false negatives.
    """
    return (rows[:, None] == columns) & (rows[:, None] >= 0)


def info_nce(
    logits: Float[Tensor, "n m"],
    targets: Int[Tensor, " n"] | Bool[Tensor, "n m"] | Float[Tensor, "n m"] | None = None,
    *,
    rows: Bool[Tensor, " n"] | None = None,
    candidates: Bool[Tensor, "#n m"] | None = None,
) -> Float[Tensor, " n"]:
    """-log p(positive of row i), p the softmax of row i over its candidates; the training loss is the mean over rows.

    Args:
        logits: similarities times scale, see `contrast`.
        targets: what is positive in each row.
            None: column i for row i; further columns are negatives.
            Integers: the column by number (with columns gathered from several processes, i + n * rank).
            Booleans: any number of positives; their probabilities are summed, -log sum_j p_ij. Summing outside the
            logarithm is a soft target, 1 / count on each positive.
            Floats: soft targets q, cross-entropy -sum_j q_ij log p_ij. No gradient flows into them.
        rows: which rows have a loss at all; the others are only there for the other direction.
        candidates: which columns a row chooses among, one mask for all rows [1, m] or one for each. What is excluded
            counts neither as negative nor as positive.

    Returns:
        [n]. A row that is not scored, because `rows` excludes it or no candidate is positive, has the value 0 and no
        gradient, whatever its logits: where no row is scored, the loss is 0 and not 0 / 0.

    Source: van den Oord et al. 2018 (CPC), eq. 4; as multiple negatives ranking, Henderson et al. 2017, section 4.4.
    Several positives in the logarithm: Myers et al. 2023 (GRIF), its pre-alignment.
    Errors: ValueError without targets where there are fewer columns than rows.
    """
    n, m = logits.shape
    if targets is None:
        if m < n:
            raise ValueError(f"{n} rows but {m} columns: without targets, column i is the positive of row i")
        targets = torch.arange(n, device=logits.device)
    logits = _exact(logits)
    scored = _has_positive(targets, candidates)
    if rows is not None:
        scored = scored & rows
    if candidates is not None:
        logits = logits.masked_fill(~candidates, float("-inf"))
    # Before any softmax: log 0 in a row without a positive would make its gradient NaN, also after multiplying by 0.
    logits = logits.masked_fill(~scored[:, None], 0.0)
    total = logits.logsumexp(1)
    if targets.dtype == torch.bool:
        positive = logits.masked_fill(~targets & scored[:, None], float("-inf")).logsumexp(1)
        values = total - positive
    elif targets.is_floating_point():
        shares = targets.detach() if candidates is None else targets.detach().masked_fill(~candidates, 0.0)
        values = torch.where(shares > 0, shares * (total[:, None] - logits), 0.0).sum(1)
    else:
        values = total - logits.gather(1, targets[:, None]).squeeze(1)
    return values.masked_fill(~scored, 0.0)


def symmetric_info_nce(
    logits: Float[Tensor, "n m"],
    targets: Bool[Tensor, "n m"] | None = None,
    *,
    rows: Bool[Tensor, " n"] | None = None,
    columns: Bool[Tensor, " m"] | None = None,
    candidates: Bool[Tensor, "n m"] | None = None,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Float[Tensor, " n"]:
    """(w_0 [row i among columns] + w_1 [column i among rows]) / 2, both by `info_nce`; a mean over pairs i.

    Args:
        logits: column i < n is the partner of row i; further columns are negatives and choose nobody.
        targets: the positives, both ways; None is the partner alone.
        rows, columns: which rows and columns exist (a demonstration may lack its instruction). A pair is scored
            where both do; what exists without a partner is a negative for the others.
        candidates: pairs that may meet at all, both ways.
        weights: of the two directions.

    Returns:
        [n], 0 and without gradient for a pair that is not scored. The mean is over `rows & columns`; where that is
        empty the term is to be skipped, and its sum is 0.

    Source: Radford et al. 2021 (CLIP), figure 3; with masks, Myers et al. 2023 (GRIF), L_align. With the weights
    (1, 1), sentence-transformers' MultipleNegativesSymmetricRankingLoss.
    Errors: ValueError where there are fewer columns than rows.
    """
    n, m = logits.shape
    if m < n:
        raise ValueError(f"{n} rows but {m} columns: column i is the partner of row i")
    if candidates is None:
        candidates = torch.ones_like(logits, dtype=torch.bool)
    if targets is None:
        targets = torch.eye(n, m, dtype=torch.bool, device=logits.device)
    rows = candidates.new_ones(n) if rows is None else rows
    columns = candidates.new_ones(m) if columns is None else columns
    pairs = rows & columns[:n]
    by_row = info_nce(logits, targets, rows=pairs, candidates=candidates & columns)
    meeting = candidates & rows[:, None]
    by_column = info_nce(logits[:, :n].T, targets[:, :n].T, rows=pairs, candidates=meeting[:, :n].T)
    return (weights[0] * by_row + weights[1] * by_column) / 2


def simcse(
    first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], scale: float, texts: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Which second view is its own, asked of each first view of n texts; one direction only.

    Args:
        first, second: embeddings under different dropout, not normalised.
        scale: the inverse of the temperature (20).
        texts: a number for each text, not negative; one that comes twice is no negative of itself.

    Source: Gao et al. 2021 (SimCSE), eq. 4.
    """
    own = torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    return info_nce(contrast(first, second, scale), candidates=own | ~same_group(texts, texts))


def two_view_nce(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], scale: float = 1.0) -> Float[Tensor, " n"]:
    """NT-Xent: each view of text i is to be found among both views of all other texts, given the other view of i.

    The mean of the two directions. A batch of one text has nothing to be told from: 0.

    Args:
        first, second: embeddings of two views of n texts, not normalised.
        scale: the inverse of the temperature.

    Source: Chen et al. 2020 (SimCLR), eq. 1; Zhong et al. 2023 (E2S2), the global objective of the encoder.
    """
    others = ~torch.eye(len(first), dtype=torch.bool, device=first.device)
    candidates = torch.cat([torch.ones_like(others), others], dim=1)
    there, back = (
        info_nce(contrast(one, other, scale, negatives=one), candidates=candidates)
        for one, other in ((first, second), (second, first))
    )
    return (there + back) / 2


def cosine_pull(anchors: Float[Tensor, "n d"], positives: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """-cos(anchor, positive) of each pair: attraction without negatives, which alone lets embeddings collapse.

    Source: Myers et al. 2023 (GRIF), the ablation without negatives.
    """
    return -cosine_similarity(_exact(anchors), _exact(positives))


def _has_positive(targets: Tensor, candidates: Tensor | None) -> Tensor:
    """[n]: whether some candidate of the row is positive."""
    if targets.ndim == 2:
        positive = targets > 0
        return (positive if candidates is None else positive & candidates).any(1)
    if candidates is None:
        return torch.ones_like(targets, dtype=torch.bool)
    return candidates.expand(len(targets), -1).gather(1, targets[:, None]).squeeze(1)


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
