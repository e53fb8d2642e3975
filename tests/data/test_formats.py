from __future__ import annotations

from typing import Any

import pytest

from teloi.data.formats import (
    FORMATS,
    Conversations,
    ImplicitPreference,
    LanguageModeling,
    Preference,
    PromptCompletion,
    PromptOnly,
    UnpairedPreference,
    detect,
)
from teloi.errors import RowError, TeloiError

USER = [{"role": "user", "content": "What colour is the sky?"}]
BLUE = [{"role": "assistant", "content": "Blue."}]
GREEN = [{"role": "assistant", "content": "Green."}]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": "a", "rejected": "b"},
            "column 'chosen' is missing; this method reads preference rows (prompt, chosen, rejected)",
        ),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "column 'prompt' is empty"),
        ({"prompt": " \n", "chosen": "a", "rejected": "b"}, "column 'prompt' is empty"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "column 'prompt' is empty"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "column 'prompt' is empty"),
        (
            {"prompt": "a", "chosen": 3, "rejected": "b"},
            "'chosen' is a number (3), neither text nor a list of messages",
        ),
        ({"prompt": "a", "chosen": {"x": 1}, "rejected": "b"}, "column 'chosen' is an object"),
        ({"prompt": "a", "chosen": True, "rejected": "b"}, "column 'chosen' is true or false"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "a preference whose sides are equal"),
        ({"prompt": USER, "chosen": BLUE, "rejected": list(BLUE)}, "a preference whose sides are equal"),
        ({"prompt": "a", "chosen": BLUE, "rejected": GREEN}, "'prompt' is text, 'chosen' is messages"),
        ({"prompt": USER, "chosen": USER + BLUE, "rejected": GREEN}, "column 'chosen' repeats the prompt"),
        ({"prompt": USER, "chosen": ["x"], "rejected": GREEN}, "'chosen', message 1 is text ('x'), not a message"),
        ({"prompt": USER, "chosen": [{"role": "assistant"}], "rejected": GREEN}, "message 1 has no 'content'"),
        ({"prompt": USER, "chosen": [{"content": "x"}], "rejected": GREEN}, "message 1 has no 'role'"),
        (
            {"prompt": USER, "chosen": [{"role": "assistant", "content": [{"type": "image"}]}], "rejected": GREEN},
            "'content' is a list, not text",
        ),
        ({"prompt": USER, "chosen": [{"role": "assistant", "content": ""}], "rejected": GREEN}, "message 1 is empty"),
        ({"prompt": "a", "chosen": "\ud800", "rejected": "b"}, "half of a surrogate pair"),
        ({"prompt": USER, "chosen": BLUE, "rejected": GREEN, "tools": [{"name": "f"}]}, "column 'tools'"),
    ],
)
def test_a_bad_row_says_where_and_what(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError) as caught:
        Preference.parse(row, "hh.jsonl row 17")
    message = str(caught.value)
    assert message.startswith("hh.jsonl row 17: ")
    assert said in message
    assert "\n" not in message
    assert isinstance(caught.value, TeloiError)


def test_labels() -> None:
    for written, meant in ((True, True), (0, False), ("True", True), ("false", False), ("1", True)):
        row = UnpairedPreference.parse({"prompt": "a", "completion": "b", "label": written})
        assert row.label is meant
    for wrong in ("good", 2, 0.5, [True]):
        with pytest.raises(RowError, match=r"column 'label' is .*, neither true nor false"):
            UnpairedPreference.parse({"prompt": "a", "completion": "b", "label": wrong})


def test_a_row_keeps_its_other_columns_and_its_place() -> None:
    row = Preference.parse({"prompt": "a", "chosen": "b", "rejected": "c", "score": 3}, "x.jsonl row 2")
    assert row == Preference("a", "b", "c", columns={"score": 3})
    assert row.where == "x.jsonl row 2"
    assert not row.conversational
    assert LanguageModeling.parse({"messages": USER + BLUE, "id": 1}).columns == {"id": 1}
    assert LanguageModeling.parse({"messages": USER + BLUE, "text": None}).text == USER + BLUE


def test_sharegpt_speakers_become_roles() -> None:
    said = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    row = Conversations.parse({"conversations": said})
    assert [message["role"] for message in row.conversations] == ["system", "user", "assistant"]
    assert [message["content"] for message in row.conversations] == ["Be brief.", "Hi", "Yo"]
    with pytest.raises(RowError, match="column 'conversations' is text"):
        Conversations.parse({"conversations": "Hi"})


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"prompt", "chosen", "rejected", "score"}, Preference),
        ({"chosen", "rejected"}, ImplicitPreference),
        ({"prompt", "completion", "label"}, UnpairedPreference),
        ({"prompt", "completion"}, PromptCompletion),
        ({"text"}, LanguageModeling),
        ({"messages", "id"}, LanguageModeling),
        ({"conversations"}, Conversations),
        ({"prompt"}, PromptOnly),
        ({"question", "answer"}, None),
    ],
)
def test_detect(columns: set[str], expected: object) -> None:
    assert detect(columns) is expected


def test_a_text_prompt_beside_whole_conversations_is_an_implicit_prompt() -> None:
    row = {"prompt": "What colour is the sky?", "chosen": USER + BLUE, "rejected": USER + GREEN}
    assert detect(row) is ImplicitPreference


def test_names_are_trls() -> None:
    assert {"language-modeling", "prompt-only", "prompt-completion", "preference", "unpaired-preference"} <= set(
        FORMATS
    )
