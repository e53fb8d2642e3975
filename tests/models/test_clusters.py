"""Static vectors of tokens: like company, like vectors."""

from __future__ import annotations

import numpy as np
import torch

from teloi.models.clusters import assign, cooccurrence_vectors

SIZE = 12


def texts(seed: int) -> list[np.ndarray]:
    """Tokens 0 to 4 keep company with each other, 5 to 9 likewise; 10 stands with all, 11 never occurs."""
    draw = np.random.default_rng(seed)
    return [
        np.where(draw.random(30) < 0.1, 10, draw.integers(5, size=30) + 5 * int(draw.integers(2))) for _ in range(200)
    ]


def test_tokens_of_like_company_are_close() -> None:
    vectors = cooccurrence_vectors(texts(0), SIZE, width=4)
    assert vectors.shape == (SIZE, 4)
    assert (vectors[11] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[:11], axis=1), 1)
    cosines = vectors @ vectors.T
    same = [cosines[a, b] for a in range(10) for b in range(a) if a // 5 == b // 5]
    other = [cosines[a, b] for a in range(10) for b in range(a) if a // 5 != b // 5]
    assert min(same) > max(other) + 0.2
    clusters = assign(torch.as_tensor(vectors), np.arange(10), 2)
    assert len(set(clusters[:5])) == len(set(clusters[5:10])) == 1
    assert clusters[0] != clusters[5]


def test_the_same_texts_give_the_same_vectors() -> None:
    one, again = (cooccurrence_vectors(texts(1), SIZE, width=4) for _ in range(2))
    assert (one == again).all()


def test_only_what_is_near_counts() -> None:
    """At a distance beyond the window tokens are no company."""
    apart = [np.asarray([0, 1, 2, 2, 2, 2, 3, 4])] * 3
    vectors = cooccurrence_vectors(apart, 5, width=3, window=1)
    wide = cooccurrence_vectors(apart, 5, width=3, window=7)
    assert not np.allclose(abs(vectors @ vectors.T), abs(wide @ wide.T))
