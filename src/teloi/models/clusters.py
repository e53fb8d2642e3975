"""Clusters of a vocabulary, of like tokens."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from torch import Tensor

from teloi.data.corruption.ragged import Array, Ints
from teloi.errors import DataError, UsageError


def assign(embeddings: Tensor, ids: Array, count: int, seed: int = 0) -> Ints:
    """The cluster of each token by k-means of its embedding: [V], 0 to `count` - 1, and -1 for tokens not in `ids`.

    `embeddings` is [V or more, d]; a cluster may remain empty. UsageError where there are fewer tokens than clusters.
    """
    from scipy.cluster.vq import kmeans2

    if count > len(ids):
        raise UsageError(f"{count} clusters of {len(ids)} tokens: choose fewer, with --clusters")
    vectors = embeddings.detach().float().cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about clusters that become empty
        _, found = kmeans2(vectors[ids], count, minit="points", seed=seed)
    clusters = np.full(len(vectors), -1, np.int64)
    clusters[ids] = found
    return clusters


def read(path: Path, size: int) -> Ints:
    """Clusters of a vocabulary of that size from a file: .npy, or text with a number a line.

    DataError if it is none.
    """
    try:
        packed = path.suffix == ".npy"
        found = np.load(path, allow_pickle=False) if packed else np.loadtxt(path, dtype=np.int64, ndmin=1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} is no list of clusters: {error}") from error
    if found.shape != (size,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise DataError(f"{path} must hold {size} cluster numbers from 0, one for each token of the vocabulary")
    return found.astype(np.int64)
