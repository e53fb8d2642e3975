"""Ranks by counting one candidate after the other, recall by sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from teloi.measure.retrieval import average_precision, cosines, mean_reciprocal_rank, ranks, recall_at, reranked


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 10_000))
def test_ranks_count_the_strictly_better(q: int, c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, present = rng.integers(0, 4, (q, c)), rng.random(c) < 0.7
    gold, several = rng.integers(0, c, q), rng.random((q, c)) < 0.4
    assert ranks(scores, gold).tolist() == [
        1 + sum(other > row[right] for other in row) for row, right in zip(scores.tolist(), gold, strict=True)
    ]
    present[gold] = True
    several[np.arange(q), gold] = True
    assert ranks(scores, several, present).tolist() == [
        1 + sum(row[j] > max(row[k] for k in range(c) if right[k] and present[k]) for j in range(c) if present[j])
        for row, right in zip(scores.tolist(), several, strict=True)
    ]


def test_recall_is_the_share_of_queries_that_find_the_right_one_among_k() -> None:
    rng = np.random.default_rng(0)
    queries, candidates, gold = rng.normal(size=(40, 5)), rng.normal(size=(7, 5)), rng.integers(0, 7, 40)
    scores = cosines(queries, candidates)
    np.testing.assert_allclose(scores, 1 - cdist(queries, candidates, "cosine"))
    found = np.argsort(-scores, axis=1)
    expected = [np.mean([right in row[:k] for row, right in zip(found, gold, strict=True)]) for k in (1, 3, 6)]
    assert recall_at(ranks(scores, gold), [1, 3, 6]) == pytest.approx(expected)


def test_ties_count_for_the_query() -> None:
    assert ranks([[1.0, 1.0, 1.0]], [2]).tolist() == [1]
    assert cosines([[0.0, 0.0]], [[1.0, 2.0]]).tolist() == [[0.0]]


def test_errors() -> None:
    with pytest.raises(ValueError, match="no rank"):
        ranks([[float("nan"), 1.0]], [1])
    with pytest.raises(ValueError, match="query 1 has no right candidate"):
        ranks([[0.0, 1.0], [0.0, 1.0]], [0, 1], [True, False])
    with pytest.raises(ValueError, match="recall of no query"):
        recall_at([], [1])


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8))
def test_average_precision_counts_down_the_list(candidates: list[tuple[int, bool]]) -> None:
    if not any(right for _, right in candidates):
        with pytest.raises(ValueError, match="without a relevant"):
            average_precision(*zip(*candidates, strict=True))
        return
    precisions = []
    for score, right in candidates:
        if right:  # before it stand all that are better, and the wrong ones that are as good
            better = [other for value, other in candidates if value > score or (value == score and not other)]
            equals = sum(value == score and other for value, other in candidates)
            precisions.append((sum(better), len(better), equals, score))
    expected = 0.0
    for score in {entry[3] for entry in precisions}:
        found_right, before, equals, _ = next(entry for entry in precisions if entry[3] == score)
        expected += sum((found_right + i) / (before + i) for i in range(1, equals + 1))
    found = average_precision(*zip(*candidates, strict=True))
    assert found == pytest.approx(expected / len(precisions))


def test_average_precision_of_known_lists() -> None:
    assert average_precision([3, 2, 1], [True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0, 0], [True, False]) == 0.5
    with pytest.raises(ValueError, match="not a number"):
        average_precision([float("nan"), 1], [True, False])


def test_mean_reciprocal_rank() -> None:
    assert mean_reciprocal_rank([1, 2, 4]) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    with pytest.raises(ValueError, match="of no query"):
        mean_reciprocal_rank([])


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 4), st.integers(0, 10_000))
def test_a_second_order_of_the_best_stays_before_all_others(q: int, c: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, again = rng.normal(size=(q, c)), rng.normal(size=(q, min(k, c)))
    best = np.argsort(-scores, axis=1)[:, :k]
    before = scores.copy()
    for row, chosen, second, found in zip(scores, best, again, reranked(scores, best, again), strict=True):
        expected = [chosen[i] for i in np.argsort(-second)]
        expected += [i for i in np.argsort(-row) if i not in chosen]
        assert np.argsort(-found).tolist() == expected
    assert (scores == before).all(), "the scores that were given stay"
