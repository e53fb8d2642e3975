"""The formats of answers in which people marked what is wrong, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, Self

from teloi.data.formats.base import Format, Text, kind, plain, string_in, text_in, value_in
from teloi.errors import RowError

Error = tuple[int, int, str]
"""Characters [start, end) of an answer, and the type of what is wrong with them."""


@dataclass(frozen=True)
class ErrorSpans(Format):
    """An answer with its errors: a list of {"start", "end", "type"}, counted in characters, empty where nothing is
    wrong."""

    name: ClassVar[str] = "error-spans"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion", "errors")

    prompt: Text
    completion: Text
    errors: tuple[Error, ...]

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        texts = {name: text_in(row, name, cls) for name in ("prompt", "completion")}
        length = len(plain(texts["completion"]))
        errors = _errors(value_in(row, "errors", cls), length, "type", "column 'errors'")
        columns = {k: v for k, v in row.items() if k not in cls.needs}
        return cls(**texts, errors=errors, columns=columns, where=where)


@dataclass(frozen=True)
class AnswerFeedback(Format):
    """A question with passages and several answers, in the columns of QA-Feedback (Wu et al., 2023): `question`,
    `passages` (lists of sentences, the title first), `gold`, `prediction 1` to `prediction 4`, `feedback` to the first
    with its `errors` (`start`, `end`, `error type`), and `preference`, one number for each pair of answers: 0, or which
    of both is better.

    A model is asked in one message: the passages, then the question.
    """

    name: ClassVar[str] = "answer-feedback"
    needs: ClassVar[tuple[str, ...]] = ("question", "passages", "prediction 1", "feedback")

    prompt: Text
    gold: str
    answers: tuple[str, ...]
    errors: tuple[Error, ...]
    preferences: tuple[int, ...]

    @property
    def conversational(self) -> bool:
        return True

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        answers = [string_in(row, f"prediction {i}", cls) for i in range(1, 5) if f"prediction {i}" in row]
        feedback = value_in(row, "feedback", cls)
        if not isinstance(feedback, Mapping):
            raise RowError(f"column 'feedback' is {kind(feedback)}, not an object")
        errors = _errors(feedback.get("errors") or [], len(answers[0]), "error type", "the feedback's errors")
        preferences = row.get("preference") or []
        pairs = len(answers) * (len(answers) - 1) // 2
        if not isinstance(preferences, Sequence) or (preferences and len(preferences) != pairs):
            raise RowError(f"column 'preference' does not have {pairs} numbers, one for each pair of answers")
        passages = value_in(row, "passages", cls)
        if not isinstance(passages, list | tuple) or not all(isinstance(one, list | tuple) and one for one in passages):
            raise RowError(f"column 'passages' is {kind(passages)}, not a list of lists: a title, then sentences")
        read = [f"{title}: {' '.join(sentences)}" for title, *sentences in passages]
        asked = "\n\n".join([*read, string_in(row, "question", cls)])
        return cls(
            [{"role": "user", "content": asked}],
            string_in(row, "gold", cls),
            tuple(answers),
            errors,
            tuple(preferences),
            columns=row,
            where=where,
        )

    def _check(self) -> None:
        """Its columns are read one by one, in `_parse`."""

    def better(self) -> list[tuple[str, str]]:
        """Pairs of answers of which people prefer the first."""
        found = []
        for (one, other), preferred in zip(combinations(self.answers, 2), self.preferences, strict=False):
            if preferred in (1, 2) and one != other:
                found.append((one, other) if preferred == 1 else (other, one))
        return found


def _errors(value: Any, length: int, type_name: str, here: str) -> tuple[Error, ...]:
    if not isinstance(value, list | tuple):
        raise RowError(f"{here} is {kind(value)}, not a list")
    found = []
    for number, error in enumerate(value, 1):
        if not isinstance(error, Mapping) or not {"start", "end", type_name} <= set(error):
            raise RowError(f"{here}, entry {number} is no error with 'start', 'end' and '{type_name}'")
        start, end = error["start"], error["end"]
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= length):
            raise RowError(f"{here}, entry {number}: {start} to {end} are no characters of an answer of {length}")
        found.append((start, end, str(error[type_name])))
    return tuple(found)
