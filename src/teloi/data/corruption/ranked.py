"""Masks by rank: spans get scores, and of each sequence those with the lowest are masked (GPT-BERT).

Tokens that were masked seldom get lower scores, so that over a training all of them are masked about equally often.
Arrays lie along all tokens of `Ragged` sequences end to end; what is drawn at random is apart from what is made of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from teloi.data.corruption.ragged import Array, Bools, Ints, Ragged
from teloi.errors import UsageError

LONGEST = 3
"""Tokens of the longest span."""


def span_tiles(lengths: Ints, sizes: Ints) -> Ints:
    """Sequences of `lengths` [b] tiled with spans, each from its begin, the last one cut off.

    Args:
        sizes: lengths of spans [b, m], drawn uniformly from 1 to `LONGEST`; those of a sequence must cover it.

    Returns:
        The number of each token's span [total], counted through all sequences.
    """
    begins = np.cumsum(sizes, axis=1) - sizes
    starts = np.cumsum(lengths) - lengths
    opens = np.zeros(int(lengths.sum()), np.int64)
    opens[(starts[:, None] + begins)[begins < lengths[:, None]]] = 1
    return np.cumsum(opens) - 1


def span_scores(spans: Ints, uniform: Array, counts: Ragged, eligible: Bools | None = None) -> Array:
    """The score of each token [total]: its span's number times the softmax over its sequence of how often each token
    has been masked. The lowest are to be masked, so tokens that were masked seldom come first.

    Args:
        spans: the span of each token, as `span_tiles` gives it.
        uniform: one number from [0, 1) for each span.
        counts: how often each token has been masked. Only differences within a sequence matter.
        eligible: False for special tokens; they take no part in the softmax and their score is infinite.

    Source: Charpentier & Samuel 2024 (GPT-BERT), the released code.
    """
    values = counts.values.astype(np.float64)
    if eligible is not None:
        values = np.where(eligible, values, -np.inf)
    owners, size = counts.owners, len(counts)
    top = np.full(size, -np.inf)
    np.maximum.at(top, owners, values)
    weights = np.exp(values - np.where(np.isfinite(top), top, 0.0)[owners])
    totals = np.bincount(owners, weights, minlength=size)
    scores = uniform[spans] * weights / np.where(totals > 0, totals, 1.0)[owners]
    return scores if eligible is None else np.where(eligible, scores, np.inf)


def lowest(scores: Ragged, rate: float, uniform: Array) -> Bools:
    """Which tokens are masked [total]: of a sequence of T tokens those with one of the n lowest scores, n being
    max(1, floor(rate T + u)) with the sequence's own number u from [0, 1) in `uniform` [b], so that n is right on
    average.

    Equal scores go together: a span is masked whole, and more than n tokens may be. An infinite score is never masked.
    UsageError for a rate out of range.
    """
    if not 0 < rate < 1:
        raise UsageError(f"a masking rate must be above 0 and below 1, not {rate}")
    wanted = np.maximum(1, np.floor(scores.lengths * rate + uniform).astype(np.int64))
    order = np.lexsort((scores.values, scores.owners))
    present = scores.lengths > 0
    limits = np.full(len(scores), -np.inf)
    limits[present] = scores.values[order][(scores.starts + wanted - 1)[present]]
    return (scores.values <= limits[scores.owners]) & np.isfinite(scores.values)


def span_replacements(
    ids: Array,
    spans: Ints,
    uniform: Array,
    mask_id: int,
    draw: Callable[[int], Array],
    mix: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Array:
    """What would stand at each token if it were masked [total]: the tokens of a span all become the mask, or random
    tokens, or stay.

    Args:
        uniform: one number from [0, 1) for each span, which decides what becomes of it.
        draw: gives so many random tokens; each token of a span gets its own.
        mix: chances of mask, random and kept.
    """
    number = uniform[spans]
    random = number < mix[1]
    made = np.where(number >= mix[1] + mix[2], mask_id, ids)
    made[random] = draw(int(random.sum()))
    return made.astype(ids.dtype)
