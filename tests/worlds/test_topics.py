from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.worlds.topics import (
    LONGEST,
    TOPICS,
    WORDS,
    Response,
    compared,
    reference,
    topics,
    utilities,
    vocabulary,
    worth,
)
from teloi.worlds.topics import win_rate as wins

WORLD = utilities(np.random.default_rng(0))

responses = st.builds(
    Response, st.lists(st.sampled_from([*WORDS[:4], "topic1", "<|pad|>"]), max_size=6).map(tuple), st.booleans()
)


@given(st.sampled_from(TOPICS), responses)
def test_worth_by_counting(topic: str, response: Response) -> None:
    counts = Counter(response.words)
    expected = -1.0 * (not response.finished)
    for word, count in counts.items():
        if word.startswith("w"):
            utility = WORLD[int(topic.removeprefix("topic")), int(word.removeprefix("w"))]
            expected += utility - 0.3 - 0.8 * (count - 1)
        else:
            expected -= count
    assert worth(WORLD, topic, response) == pytest.approx(expected)


@given(st.sampled_from(TOPICS), responses)
def test_the_order_of_words_does_not_matter(topic: str, response: Response) -> None:
    turned = Response(response.words[::-1], response.finished)
    assert worth(WORLD, topic, turned) == pytest.approx(worth(WORLD, topic, response))


def test_words_and_worlds() -> None:
    assert len(vocabulary()) == len(set(vocabulary())) == 32
    assert WORLD.shape == (8, 24)
    assert np.array_equal(WORLD, utilities(np.random.default_rng(0)))
    counts = Counter(topics(4000, np.random.default_rng(1)))
    assert set(counts) == set(TOPICS)
    assert max(counts.values()) < 1.3 * min(counts.values())


def test_references_draw_words_by_their_odds() -> None:
    """Against every order in which two of a few words can be drawn."""
    world = WORLD.copy()
    world[:, 4:] = -100  # nobody says these
    rng = np.random.default_rng(2)
    made = [reference(world, "topic3", rng) for _ in range(6000)]
    assert {len(one.words) for one in made} == set(range(2, LONGEST + 1))
    assert all(one.finished and len(set(one.words)) == len(one.words) for one in made)
    odds = np.exp(0.7 * world[3, :4])
    expected = {
        tuple(WORDS[i] for i in order): odds[order[0]] / odds.sum() * odds[order[1]] / (odds.sum() - odds[order[0]])
        for order in permutations(range(4), 2)
    }
    assert sum(expected.values()) == pytest.approx(1)
    found = Counter(one.words[:2] for one in made)
    assert found.keys() == expected.keys()
    for words, share in expected.items():
        assert found[words] / len(made) == pytest.approx(share, abs=0.02)


def test_comparisons_follow_the_difference_and_labels_are_flipped_apart_from_it() -> None:
    better, worse = Response(("w0",)), Response(("w0", "w0"))  # 0.8 apart
    asked, pairs = ["topic0"] * 20000, [(better, worse), (worse, better)] * 10000
    clean = compared(WORLD, asked, pairs, np.random.default_rng(3))
    flipped = compared(WORLD, asked, pairs, np.random.default_rng(3), flipped=0.3)
    right = np.asarray([row["chosen"] == " w0" for row in clean])
    assert {row["chosen"] for row in clean} == {" w0", " w0 w0"}
    assert all({row["chosen"], row["rejected"]} == {" w0", " w0 w0"} and row["prompt"] == "topic0" for row in clean)
    assert right.mean() == pytest.approx(1 / (1 + np.exp(-1.6)), abs=0.01)
    for side in (0, 1):  # whichever of the two stood first
        assert right[side::2].mean() == pytest.approx(right.mean(), abs=0.02)
    turned = np.asarray([a != b for a, b in zip(clean, flipped, strict=True)])
    assert turned.mean() == pytest.approx(0.3, abs=0.01)
    assert turned[right].mean() == pytest.approx(turned[~right].mean(), abs=0.03)
    assert compared(WORLD, asked, pairs, np.random.default_rng(3), flipped=0.0) == clean


def test_equals_win_half() -> None:
    assert wins([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 4.0, -1.0]) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
