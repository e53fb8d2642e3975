"""Labelled texts and documents: what is read, what is refused, what is cast to them."""

from __future__ import annotations

from typing import Any

import pytest

from teloi.data.casts import as_format, cast
from teloi.data.formats import Document, LabelledText, LanguageModeling, Preference, UnpairedPreference, detect
from teloi.data.read import Rows
from teloi.errors import RowError


@pytest.mark.parametrize(
    ("label", "read"), [("pos", "pos"), (" pos ", "pos"), (1, "1"), (1.0, "1"), (True, "true"), (False, "false")]
)
def test_labels(label: Any, read: str) -> None:
    row = LabelledText.parse({"text": "a", "text_pair": None, "label": label, "id": 7})
    assert (row.text, row.text_pair, row.label, row.columns) == ("a", None, read, {"id": 7})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a"}, "column 'label' is missing; this method reads labelled-text rows (text, label and"),
        ({"text": "a", "label": ""}, "column 'label' is empty"),
        ({"text": "a", "label": 0.5}, "column 'label' is a number (0.5), neither text nor a whole number"),
        ({"text": "a", "label": ["x"]}, "column 'label' is a list"),
        ({"text": "a", "label": "x", "text_pair": ""}, "column 'text_pair' is empty"),
        ({"text": [{"role": "user", "content": "a"}], "label": "x"}, "column 'text' is a list of messages, not text"),
    ],
)
def test_bad_labelled_texts(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError) as caught:
        LabelledText.parse(row)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("paragraphs", "said"),
    [
        (None, "column 'paragraphs' is empty"),
        ("one", "column 'paragraphs' is text ('one'), not a list of texts"),
        (["one", 2], "column 'paragraphs', entry 2 is a number (2), not text"),
        (["\ud800"], "entry 1 holds half of a surrogate pair"),
    ],
)
def test_bad_documents(paragraphs: Any, said: str) -> None:
    with pytest.raises(RowError) as caught:
        Document.parse({"paragraphs": paragraphs})
    assert said in str(caught.value)


def test_what_a_row_is() -> None:
    assert Document.parse({"paragraphs": []}).paragraphs == ()
    assert detect({"text": "a", "label": 1}) is LabelledText
    assert detect({"title": "t", "paragraphs": ["a"]}) is Document
    # A label beside a text does not keep the text from being read as such.
    assert isinstance(as_format(Rows([{"text": "a", "label": 1}], "rows"), LanguageModeling)[0], LanguageModeling)


def test_a_document_is_its_paragraphs_between_blank_lines() -> None:
    document = Document(("One.\nStill one.", "Two."))
    (text,) = cast([document], Document, LanguageModeling)
    assert text == LanguageModeling("One.\nStill one.\n\nTwo.")
    assert cast([text], LanguageModeling, Document) == [document]
    assert cast([LanguageModeling("One. \n \n\nTwo.")], LanguageModeling, Document) == [Document(("One. ", "Two."))]


def test_judged_answers_are_labelled_pairs() -> None:
    found = cast([Preference("q", "good", "bad")], Preference, LabelledText)
    assert found == [LabelledText("q", "true", "good"), LabelledText("q", "false", "bad")]
    said = [[{"role": role, "content": text}] for role, text in (("user", "q"), ("assistant", "good"))]
    (row,) = cast([UnpairedPreference(said[0], said[1], True)], UnpairedPreference, LabelledText)
    assert row == LabelledText("q", "true", "good")
