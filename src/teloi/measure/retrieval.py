"""Ranks, recall, reciprocal ranks and average precision of a search among candidates, and a second ranking of the best.

Of ranks and recall, ties count for the query: only candidates that are strictly more similar stand before the right
one. Of average precision they count against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cosines(queries: ArrayLike, candidates: ArrayLike) -> NDArray[np.float64]:
    """Cosine of each of `queries` [q, d] with each of `candidates` [c, d]: [q, c]; 0 with a zero vector."""
    q, c = (np.asarray(side, np.float64) for side in (queries, candidates))
    lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in (q, c)]
    q, c = (side / np.where(length > 0, length, 1) for side, length in zip((q, c), lengths, strict=True))
    return np.asarray(q @ c.T)


def ranks(scores: ArrayLike, gold: ArrayLike, candidates: ArrayLike | None = None) -> NDArray[np.int64]:
    """1 + the number of candidates with a score strictly above the right one's, for each query: [q].

    Args:
        scores: [q, c], larger is better.
        gold: the right candidate by number, integers [q], or several by mask, booleans [q, c]; then the best of
            them counts.
        candidates: booleans, [c] or [q, c]: who takes part; everyone by default.

    Errors: ValueError for scores that are NaN and for a query without a right candidate that takes part.
    """
    s = np.asarray(scores, np.float64)
    right = np.asarray(gold)
    if np.isnan(s).any():
        raise ValueError("scores that are not a number have no rank")
    if right.dtype != bool:
        right = right[:, None] == np.arange(s.shape[1])
    if candidates is not None:
        s = np.where(candidates, s, -np.inf)
        right = right & np.asarray(candidates, bool)
    if not right.any(axis=1).all():
        raise ValueError(f"query {int(np.argmin(right.any(axis=1)))} has no right candidate")
    best = np.where(right, s, -np.inf).max(axis=1, keepdims=True)
    return np.asarray(1 + (s > best).sum(axis=1), np.int64)


def recall_at(ranks: ArrayLike, ks: Sequence[int]) -> list[float]:
    """Recall@k for each k: the share of queries whose rank is at most k. ValueError without a query."""
    r = np.asarray(ranks)
    if not r.size:
        raise ValueError("recall of no query")
    return [float((r <= k).mean()) for k in ks]


def mean_reciprocal_rank(ranks: ArrayLike) -> float:
    """Mean of 1 / rank over the queries. ValueError without a query."""
    r = np.asarray(ranks, np.float64)
    if not r.size:
        raise ValueError("reciprocal rank of no query")
    return float((1 / r).mean())


def reranked(scores: ArrayLike, best: ArrayLike, again: ArrayLike) -> NDArray[np.float64]:
    """Scores [q, c] with the best candidates of each query in a second order, and still before all others.

    Args:
        scores: [q, c], larger is better.
        best: the candidates that were scored again, by number [q, k]: the k of the largest scores.
        again: their second scores [q, k].
    """
    s, chosen, second = np.array(scores, np.float64), np.asarray(best), np.asarray(again, np.float64)
    above = s.max(axis=1, keepdims=True) + 1 + second - second.min(axis=1, keepdims=True)
    np.put_along_axis(s, chosen, above, axis=1)
    return s


def average_precision(scores: ArrayLike, relevant: ArrayLike) -> float:
    """Mean over the relevant candidates of one query of the precision at their rank, by `scores` [c], larger first.

    Of equal scores the irrelevant come first: scores that tell nothing apart find nothing. ValueError for scores that
    are NaN, and without a relevant candidate.
    """
    s, right = np.asarray(scores, np.float64), np.asarray(relevant, bool)
    if np.isnan(s).any():
        raise ValueError("scores that are not a number have no rank")
    if not right.any():
        raise ValueError("average precision without a relevant candidate")
    found = right[np.lexsort((right, -s))]
    return float((found.cumsum() / np.arange(1, len(found) + 1))[found].mean())
