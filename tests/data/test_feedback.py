"""Answers with marked errors: what is read, what is refused, what is cast to what."""

from __future__ import annotations

from typing import Any

import pytest

from teloi.data.casts import as_format
from teloi.data.formats import AnswerFeedback, ErrorSpans, Preference, PromptCompletion, PromptOnly, detect
from teloi.data.read import Rows
from teloi.errors import RowError

ROW: dict[str, Any] = {
    "question": "What flew?",
    "passages": [["Animals", "The cat ran.", "The bird flew."], ["Stones", "They lie."]],
    "gold": "The bird.",
    "prediction 1": "The cat flew. ",
    "prediction 2": "The bird flew.",
    "prediction 3": "The bird flew.",
    "feedback": {"errors": [{"start": 4, "end": 7, "error type": "Wrong-Grounding"}], "missing-info": []},
    "preference": [2, 0, 1],
}
ASKED = [{"role": "user", "content": "Animals: The cat ran. The bird flew.\n\nStones: They lie.\n\nWhat flew?"}]


def reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_published_feedback_is_read_as_it_is() -> None:
    assert detect(ROW) is AnswerFeedback
    rows = Rows([ROW], "qa")
    (marked,) = as_format(rows, ErrorSpans)
    assert isinstance(marked, ErrorSpans)
    assert (marked.prompt, marked.completion) == (ASKED, reply("The cat flew. "))
    assert marked.errors == ((4, 7, "Wrong-Grounding"),)
    (gold,) = as_format(rows, PromptCompletion)
    assert gold == PromptCompletion(ASKED, reply("The bird."), columns=ROW)
    (prompt,) = as_format(rows, PromptOnly)
    assert prompt == PromptOnly(ASKED, columns=ROW)  # a reward may read the gold answer
    # Ties, and answers that say the same, are no preferences.
    assert as_format(rows, Preference) == [
        Preference(ASKED, reply("The bird flew."), reply("The cat flew. "), columns=ROW),
    ]


def test_spans_of_ones_own() -> None:
    row = {"prompt": "?", "completion": "It flew.", "errors": [{"start": 3, "end": 8, "type": "Irrelevant"}], "id": 1}
    assert detect(row) is ErrorSpans
    found = ErrorSpans.parse(row)
    assert (found.errors, found.columns) == (((3, 8, "Irrelevant"),), {"id": 1})
    assert ErrorSpans.parse({**row, "errors": []}).errors == ()


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (None, "column 'errors' is empty"),
        ("none", "column 'errors' is text ('none'), not a list"),
        ([{"start": 0}], "entry 1 is no error with 'start', 'end' and 'type'"),
        ([{"start": 0, "end": 9, "type": "x"}], "entry 1: 0 to 9 are no characters of an answer of 8"),
        ([{"start": 2, "end": 2, "type": "x"}], "entry 1: 2 to 2 are no characters"),
    ],
)
def test_bad_spans(errors: Any, said: str) -> None:
    with pytest.raises(RowError) as caught:
        ErrorSpans.parse({"prompt": "?", "completion": "It flew.", "errors": errors})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"feedback": "good"}, "column 'feedback' is text ('good'), not an object"),
        ({"passages": ["one"]}, "column 'passages' is a list, not a list of lists: a title, then sentences"),
        ({"preference": [1]}, "column 'preference' does not have 3 numbers"),
        ({"gold": None}, "column 'gold' is empty"),
    ],
)
def test_bad_feedback(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError) as caught:
        AnswerFeedback.parse({**ROW, **change})
    assert said in str(caught.value)
