"""Cluster-based random token substitution (C-RTS): replacements come from the clusters that fool the detector.

The state is a matrix of counts [C, C], original's cluster by replacement's, that starts with ones and rises where the
detector was wrong. The functions here are pure; whoever trains keeps the matrix.

Source: Di Liello et al. 2022 (C-RTS). Official code: lucadiliello/transformers-framework.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from teloi.data.corruption.ragged import Array, Bools, Ints
from teloi.data.corruption.tokens import Variant
from teloi.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Clusters:
    """Tokens by cluster: `of` [V] holds each token's cluster, -1 for one that is never drawn; there are `count`."""

    of: Ints
    count: int

    @classmethod
    def without(cls, assignment: Array, special: Iterable[int]) -> Clusters:
        """From the clusters of all tokens [V], leaving out the special ones."""
        of = np.array(assignment, np.int64)
        count = int(of.max()) + 1
        of[list(special)] = -1
        return cls(of, count)

    @cached_property
    def members(self) -> Ints:
        """All tokens that can be drawn, cluster after cluster."""
        order = np.argsort(self.of, kind="stable")
        return order[np.count_nonzero(self.of < 0) :]

    @cached_property
    def sizes(self) -> Ints:
        """Tokens of each cluster that can be drawn [C]."""
        return np.bincount(self.of[self.of >= 0], minlength=self.count)


def cluster_probabilities(counts: Array, beta: float, variant: Variant = "paper") -> Floats:
    """softmax(beta * minmax(counts)) of each row: the chances of a replacement's cluster, given the original's: [C, C].

    A constant row becomes uniform. "official" subtracts the minimum of row j, and divides by its range, in *column* j
    of every row; that is the same only where all rows have one minimum and one range.

    Args:
        counts: [C, C].
        beta: 0 is uniform, larger follows the counts more closely; 2 in the paper's runs.
    """
    counts = np.asarray(counts, np.float64)
    lowest = counts.min(axis=1, keepdims=True)
    spread = counts.max(axis=1, keepdims=True) - lowest
    spread[spread == 0] = 1
    if variant == "official":
        lowest, spread = lowest.T, spread.T
    logits = beta * (counts - lowest) / spread
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def substitute_by_cluster(
    ids: Array, chosen: Bools, clusters: Clusters, probabilities: Floats, rng: np.random.Generator
) -> Array:
    """`ids` with the `chosen` tokens replaced: first a cluster is drawn, then one of its tokens, uniformly.

    Args:
        ids, chosen: of any shape.
        probabilities: [C, C], of `cluster_probabilities`; a cluster without tokens is never drawn.

    Errors: UsageError where a chosen token has no cluster.
    """
    origin = clusters.of[ids[chosen]]
    if origin.min(initial=0) < 0:
        raise UsageError("a token without a cluster (a special one?) was chosen for substitution")
    chances = probabilities * (clusters.sizes > 0)
    upto = np.cumsum(chances, axis=1)
    upto /= upto[:, -1:]
    # Row c of the distribution covers [c, c + 1), so that one search serves all rows.
    steps = (upto + np.arange(clusters.count)[:, None]).ravel()
    found = np.searchsorted(steps, origin + rng.random(len(origin)), side="right") - origin * clusters.count
    found = np.minimum(found, np.flatnonzero(clusters.sizes)[-1])  # a draw that rounds up to c + 1 stays in its row
    firsts = np.cumsum(clusters.sizes) - clusters.sizes
    corrupted = ids.copy()
    corrupted[chosen] = clusters.members[firsts[found] + rng.integers(clusters.sizes[found])]
    return corrupted


def count_update(
    ids: Array,
    corrupted: Array,
    labels: Array,
    predictions: Array,
    clusters: Clusters,
    *,
    included: Bools,
    only_changed: bool = False,
    variant: Variant = "paper",
) -> Ints:
    """What one batch adds to the counts [C, C]: +1 where the detector was wrong, -1 where it was right.

    Args:
        ids, corrupted: tokens before and after substitution.
        labels, predictions: of the detector, 0 or 1; all four of one shape.
        included: the positions that count, without padding; tokens without a cluster are left out anyhow.
        only_changed: only positions whose token changed (the official `update_only_on_predictions`).
        variant: "paper" adds up the positions of a pair of clusters; in "official" the last of them wins.
    """
    used = included & (clusters.of[ids] >= 0) & (clusters.of[corrupted] >= 0)
    if only_changed:
        used = used & (ids != corrupted)
    pairs = (clusters.of[ids[used]], clusters.of[corrupted[used]])
    gains = np.where(predictions[used] != labels[used], 1, -1)
    update = np.zeros((clusters.count, clusters.count), np.int64)
    if variant == "official":
        update[pairs] = gains
    else:
        np.add.at(update, pairs, gains)
    return update
