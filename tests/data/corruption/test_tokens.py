"""Corruption in place: who is chosen, what is drawn instead, which labels follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teloi.data.corruption.clusters import Clusters, cluster_probabilities, count_update, substitute_by_cluster
from teloi.data.corruption.tokens import (
    IGNORED,
    detection_labels,
    draw_positions,
    mask_tokens,
    recovery_labels,
    replaceable,
    substitute,
)
from teloi.errors import UsageError

quick = settings(max_examples=60)
seeds = st.integers(0, 10_000)
SPECIAL = (0, 1, 2)
V, MASK = 20, 2


def batch(seed: int, rows: int = 3, columns: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, some of them special, and which are not."""
    ids = np.random.default_rng(seed).integers(0, V, (rows, columns)).astype(np.int32)
    return ids, ~np.isin(ids, SPECIAL)


@quick
@given(seeds, st.floats(0, 1), st.booleans(), st.booleans())
def test_no_special_token_is_chosen_drawn_or_changed(seed: int, p: float, distinct: bool, cluster: bool) -> None:
    ids, eligible = batch(seed)
    rng = np.random.default_rng(seed)
    chosen = draw_positions(eligible, p, rng)
    assert not (chosen & ~eligible).any()
    if cluster:
        clusters = Clusters.without(np.arange(V) % 4, SPECIAL)
        corrupted = substitute_by_cluster(ids, chosen, clusters, cluster_probabilities(np.ones((4, 4)), 2.0), rng)
    else:
        corrupted = substitute(ids, chosen, replaceable(V, SPECIAL), rng, distinct=distinct)
        assert not distinct or ((corrupted != ids) == chosen).all()
    np.testing.assert_array_equal(corrupted[~chosen], ids[~chosen])
    assert not np.isin(corrupted[chosen], SPECIAL).any()
    assert corrupted.dtype == ids.dtype


@quick
@given(seeds, st.sampled_from(["paper", "official"]))
def test_what_is_not_chosen_stays_and_labels_say_what_was_there(seed: int, variant: Any) -> None:
    ids, eligible = batch(seed)
    rng = np.random.default_rng(seed)
    chosen = draw_positions(eligible, 0.4, rng, variant=variant)
    corrupted = mask_tokens(ids, chosen, MASK, V, rng, variant=variant)
    np.testing.assert_array_equal(corrupted[~chosen], ids[~chosen])
    labels = recovery_labels(ids, chosen)
    np.testing.assert_array_equal(np.where(labels == IGNORED, corrupted, labels), ids)
    assert ((labels != IGNORED) == chosen).all()


def test_share_of_chosen_positions() -> None:
    drawn = draw_positions(np.ones((100, 200), bool), 0.15, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(0.15, abs=5 * np.sqrt(0.15 * 0.85 / 20_000))
    for p, share in ((0.0, 0.0), (1.0, 1.0)):
        assert draw_positions(np.ones(1000, bool), p, np.random.default_rng(0)).mean() == share


@quick
@given(seeds)
def test_drawn_as_numpys_binomial_draws(seed: int) -> None:
    eligible = np.random.default_rng(seed).random(50) < 0.8
    expected = np.random.default_rng(seed).binomial(1, np.where(eligible, 0.3, 0.0)).astype(bool)
    np.testing.assert_array_equal(draw_positions(eligible, 0.3, np.random.default_rng(seed)), expected)


WORDS = np.array([[-100, 0, 0, 0, 1, 2, 2, -100], [-100, 3, 4, 4, 4, 4, 5, -100]])


@quick
@given(seeds)
def test_whole_words_are_drawn_or_not_at_all(seed: int) -> None:
    chosen = draw_positions(WORDS >= 0, 0.5, np.random.default_rng(seed), WORDS)
    assert not chosen[WORDS < 0].any()
    for word in range(6):
        assert len(set(chosen[word == WORDS].tolist())) == 1


def test_whole_words_of_one_row_do_not_reach_into_the_next() -> None:
    words = np.array([[7, 8], [8, 9]])
    seen = {
        tuple(draw_positions(words >= 0, 0.5, np.random.default_rng(seed), words)[:, ::-1].ravel()[1:3].tolist())
        for seed in range(100)
    }
    assert len(seen) == 4


def test_officially_a_word_is_its_first_two_tokens() -> None:
    chosen = draw_positions(WORDS >= 0, 1.0, np.random.default_rng(0), WORDS, "official")
    assert chosen.astype(int).tolist() == [[0, 1, 1, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0, 1, 0]]


def test_replacements_are_uniform() -> None:
    ids = np.full(20_000, 5)
    for distinct, others in ((False, 4), (True, 3)):
        drawn = substitute(ids, ids > 0, np.array([3, 5, 6, 9]), np.random.default_rng(0), distinct=distinct)
        counts = np.bincount(drawn, minlength=10)[[3, 6, 9] + ([] if distinct else [5])]
        assert counts.sum() == 20_000
        assert np.abs(counts - 20_000 / others).max() < 5 * np.sqrt(20_000 / others)


def test_mix_of_masked_random_and_kept() -> None:
    ids = np.full(20_000, 5)
    for variant in ("paper", "official"):
        drawn = mask_tokens(ids, ids > 0, MASK, np.array([7]), np.random.default_rng(0), variant=variant)
        shares = np.bincount(drawn, minlength=8)[[MASK, 7, 5]] / 20_000
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.015)
    slm = mask_tokens(ids, ids > 0, MASK, np.array([7]), np.random.default_rng(0), mix=(0.0, 1.0, 0.0))
    assert (slm == 7).all()


def test_detection_labels() -> None:
    ids, corrupted = np.array([5, 6, 7, 0]), np.array([5, 9, 7, 0])
    chosen, padding = np.array([True, True, False, False]), np.array([False, False, False, True])
    assert detection_labels(chosen).tolist() == [1, 1, 0, 0]
    assert detection_labels(chosen, padding).tolist() == [1, 1, 0, IGNORED]
    assert detection_labels(chosen, padding, ids=ids, corrupted=corrupted).tolist() == [0, 1, 0, IGNORED]


@quick
@given(st.integers(1, 6), st.floats(0, 5), seeds)
def test_cluster_probabilities(c: int, beta: float, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(-30, 60, (c, c))
    counts[0] = 7
    ours = cluster_probabilities(counts, beta)
    np.testing.assert_allclose(ours.sum(1), 1)
    np.testing.assert_allclose(ours[0], 1 / c)
    np.testing.assert_allclose(cluster_probabilities(counts * 3 + 11, beta), ours)  # range and offset do not matter
    np.testing.assert_allclose(ours.max(1) / ours.min(1), np.where(np.ptp(counts, axis=1) > 0, np.exp(beta), 1))
    alike = np.stack([np.roll(counts[-1], shift) for shift in range(c)])  # all rows of one minimum and range
    np.testing.assert_allclose(cluster_probabilities(alike, beta, "official"), cluster_probabilities(alike, beta))


def test_clusters_are_drawn_as_often_as_stated_and_empty_ones_never() -> None:
    clusters = Clusters.without(np.array([0, 3, 0, 1, 1, 1, 2, 0, 3, 4]), special=[1, 8, 9])  # 3 and 4 are emptied
    assert clusters.members.tolist() == [0, 2, 7, 3, 4, 5, 6]
    chances = np.array([[0.5, 0.2, 0.1, 0.1, 0.1]] * 5)
    ids = np.full(20_000, 4)
    drawn = substitute_by_cluster(ids, ids > 0, clusters, chances, np.random.default_rng(0))
    expected = np.array([5, 0, 5, 2, 2, 2, 3, 5, 0, 0]) / 24
    assert np.bincount(drawn, minlength=10) / 20_000 == pytest.approx(expected * 1.0, abs=0.02)


@quick
@given(seeds, st.booleans())
def test_counts_rise_where_the_detector_was_fooled(seed: int, only_changed: bool) -> None:
    rng = np.random.default_rng(seed)
    ids, corrupted = rng.integers(0, 6, (2, 4, 9))
    labels, predictions, included = rng.integers(0, 2, (3, 4, 9))
    clusters = Clusters(np.array([0, 1, 2, 0, 1, -1]), 3)
    expected, last = np.zeros((3, 3), int), np.zeros((3, 3), int)
    for x, y, label, guess, seen in zip(
        *(a.ravel().tolist() for a in (ids, corrupted, labels, predictions, included)), strict=True
    ):
        pair = clusters.of[x], clusters.of[y]
        if seen and min(pair) >= 0 and not (only_changed and x == y):
            expected[pair] += 1 if guess != label else -1
            last[pair] = 1 if guess != label else -1
    given_ = (ids, corrupted, labels, predictions, clusters)
    how: dict[str, Any] = {"included": included.astype(bool), "only_changed": only_changed}
    np.testing.assert_array_equal(count_update(*given_, **how), expected)
    np.testing.assert_array_equal(count_update(*given_, **how, variant="official"), last)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: draw_positions(np.ones(3, bool), 1.5, rng), "from 0 to 1, got 1.5"),
        (lambda rng: draw_positions(np.ones(3, bool), float("nan"), rng), "from 0 to 1"),
        (lambda rng: substitute(np.ones(3, int), np.ones(3, bool), np.array([], int), rng), "0 tokens"),
        (lambda rng: substitute(np.ones(3, int), np.ones(3, bool), 1, rng, distinct=True), "1 tokens"),
        (lambda rng: mask_tokens(np.ones(3, int), np.ones(3, bool), 0, 9, rng, mix=(0.8, 0.1, 0.2)), "must sum to 1"),
        (
            lambda rng: substitute_by_cluster(
                np.ones(3, int), np.ones(3, bool), Clusters(np.array([0, -1]), 1), np.ones((1, 1)), rng
            ),
            "without a cluster",
        ),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(np.random.default_rng(0))
