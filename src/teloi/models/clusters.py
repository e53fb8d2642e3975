"""Clusters of a vocabulary, of like tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
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


def cooccurrence_vectors(texts: Sequence[Array], size: int, width: int = 64, window: int = 4) -> NDArray[np.float64]:
    """Static vectors [size, width] of a vocabulary's tokens from the company that they keep: what clusters are made of
    where a model's own embeddings are still random.

    The positive pointwise mutual information of tokens at most `window` apart in one text, and of its singular value
    decomposition the left vectors, scaled by the roots of the values (Levy et al., 2015, section 3.1); the length is
    taken out, so that frequent tokens are not far from all others. Tokens that never occur are zero.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import svds

    pairs = [(text[:-step], text[step:]) for text in texts for step in range(1, window + 1)]
    left, right = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    counts = coo_matrix((np.ones(len(left)), (left, right)), shape=(size, size)).tocsr()
    counts = (counts + counts.T).tocoo()
    total, often = counts.sum(), np.asarray(counts.sum(1)).ravel()
    information = np.log(counts.data * total / (often[counts.row] * often[counts.col]))
    kept = information > 0
    matrix = coo_matrix((information[kept], (counts.row[kept], counts.col[kept])), shape=(size, size)).tocsr()
    vectors, values, _ = svds(matrix, width, v0=np.ones(size))
    vectors = vectors * np.sqrt(values)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.where(lengths > 1e-9, vectors / np.where(lengths > 1e-9, lengths, 1), 0.0))


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
