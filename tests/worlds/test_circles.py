from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from teloi.worlds import circles


def test_preferences_go_round_and_add_up() -> None:
    found = circles.table()
    np.testing.assert_allclose(found + found.T, 1)
    place = {answer: i for i, answer in enumerate(circles.ANSWERS)}
    assert len(place) == 216
    pure = [place[" ".join([word] * 3)] for word in ("stone", "paper", "shears")]
    beaten = found[np.ix_(pure, pure)]
    strong = 1 / (1 + np.exp(-circles.SHARPNESS))
    np.testing.assert_allclose(
        beaten, [[0.5, 1 - strong, strong], [strong, 0.5, 1 - strong], [1 - strong, strong, 0.5]]
    )


def test_the_judge_says_what_the_table_says() -> None:
    table = circles.table()
    pairs = [(3, 77), (200, 5), (40, 40)]
    found = circles.judge(["choose"] * 3, [[circles.ANSWERS[i], circles.ANSWERS[j]] for i, j in pairs])
    assert found == pytest.approx([table[i, j] for i, j in pairs])
    assert circles.judge(["choose"], [["", "rock rock rock"]]) == [0.5]
    assert circles.shares("paper cat stone").tolist() == [0.5, 0.5, 0]


def test_answers_are_drawn_by_class() -> None:
    found = circles.drawn(4000, (0.5, 0.3, 0.2), np.random.default_rng(0))
    assert set(found) <= set(circles.ANSWERS)
    counts = Counter(word for answer in found for word in answer.split())
    expected = [0.25, 0.15, 0.1, 0.25, 0.15, 0.1]
    assert [counts[word] / 12_000 for word in circles.WORDS] == pytest.approx(expected, abs=0.02)
