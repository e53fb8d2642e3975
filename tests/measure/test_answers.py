"""Questions with candidates: which can be ranked, what is trained on, the mean over questions."""

from __future__ import annotations

import numpy as np
import pytest

from teloi.measure.answers import Question, labelled, mean_average_precision, pairs, rankable

JUDGED = [
    ("who", "he", True),
    ("where", "here", False),
    ("who", "it", False),
    ("when", "now", True),
    ("who", "she", True),
    ("where", "there", False),
    ("why", "so", False),
    ("why", "so", True),
    ("why", "no", False),
]


def test_questions_with_one_kind_of_candidate_are_left_out() -> None:
    who, why = rankable(JUDGED)
    assert who == Question("who", ["he", "it", "she"], [True, False, True])
    assert why == Question("why", ["so", "no"], [True, False])
    assert pairs([who, why]) == (["who", "who", "who", "why", "why"], ["he", "it", "she", "so", "no"])


def test_all_right_candidates_are_trained_on_and_some_wrong_ones() -> None:
    question = Question("q", [f"a{i}" for i in range(20)], [i in (3, 7) for i in range(20)])
    rows = labelled(question, 5, np.random.default_rng(0))
    assert [row["text_pair"] for row in rows if row["label"]] == ["a3", "a7"]
    wrong = [row["text_pair"] for row in rows if not row["label"]]
    assert len(set(wrong)) == 5
    assert not {"a3", "a7"} & set(wrong)
    assert wrong != [row["text_pair"] for row in labelled(question, 5, np.random.default_rng(1))][2:]
    assert len(labelled(question, 50, np.random.default_rng(0))) == 20


def test_questions_count_alike_however_many_candidates_they_have() -> None:
    short, long = Question("q", ["a", "b"], [True, False]), Question("r", list("abcd"), [False, False, False, True])
    # The right one is first of two, and third of four.
    assert mean_average_precision([2, 1, 9, 8, 6, 7], [short, long]) == pytest.approx((1 + 1 / 3) / 2)
