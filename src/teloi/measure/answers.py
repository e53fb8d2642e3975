"""Questions with candidate answers: what is trained on of them, and how well scores rank them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from teloi.measure.retrieval import average_precision


@dataclass(frozen=True)
class Question:
    """A question with its candidates, of which some are right."""

    text: str
    answers: Sequence[str]
    right: Sequence[bool]


def rankable(judged: Iterable[tuple[str, str, bool]]) -> list[Question]:
    """Judged answers (question, answer, right) by question, of those that have right candidates and wrong ones: others
    say nothing about a ranking. In the order in which they first come; of an answer judged twice the last word counts.
    """
    found: dict[str, dict[str, bool]] = {}
    for question, answer, right in judged:
        found.setdefault(question, {})[answer] = right
    both = {question: answers for question, answers in found.items() if len(set(answers.values())) == 2}
    return [Question(question, list(answers), list(answers.values())) for question, answers in both.items()]


def pairs(questions: Sequence[Question]) -> tuple[list[str], list[str]]:
    """Question and answer of each candidate, of all questions one after the other."""
    return [one.text for one in questions for _ in one.answers], [a for one in questions for a in one.answers]


def labelled(question: Question, wrong: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of labelled-text of a question's right candidates (label 1) and of at most so many `wrong` ones (0)."""
    right = np.asarray(question.right)
    drawn = rng.permutation(np.flatnonzero(~right))[:wrong]
    return [
        {"text": question.text, "text_pair": question.answers[i], "label": int(right[i])}
        for i in [*np.flatnonzero(right), *drawn]
    ]


def mean_average_precision(scores: ArrayLike, questions: Sequence[Question]) -> float:
    """Mean over questions of the average precision of `scores` [n], one a candidate in the order of `pairs`."""
    ends = np.cumsum([len(one.answers) for one in questions])
    each = zip(np.split(np.asarray(scores), ends[:-1]), questions, strict=True)
    return float(np.mean([average_precision(part, one.right) for part, one in each]))
