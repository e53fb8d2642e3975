from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.casts import CASTS, as_format, cast, route, split_prompt
from teloi.data.formats import (
    Conversations,
    Format,
    ImplicitPreference,
    LanguageModeling,
    Preference,
    PromptCompletion,
    PromptOnly,
    Text,
    UnpairedPreference,
)
from teloi.data.read import Rows
from teloi.errors import CastError, DataError, RowError

texts = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
messages = st.builds(
    lambda role, content: {"role": role, "content": content}, st.sampled_from(["user", "assistant"]), texts
)
conversations = st.lists(messages, min_size=1, max_size=4)


@st.composite
def preferences(draw: st.DrawFn) -> Preference:
    kind: Any = draw(st.sampled_from([texts, conversations]))
    prompt, chosen, rejected = draw(kind), draw(kind), draw(kind)
    if chosen == rejected:
        rejected = rejected + rejected
    return Preference(prompt, chosen, rejected, columns={"id": draw(st.integers())}, where="x.jsonl row 3")


@given(preferences())
def test_unpairing_loses_nothing(row: Preference) -> None:
    good, bad = cast([row], Preference, UnpairedPreference)
    assert isinstance(good, UnpairedPreference)
    assert isinstance(bad, UnpairedPreference)
    assert (good.label, bad.label) == (True, False)
    assert good.prompt == bad.prompt
    assert Preference(good.prompt, good.completion, bad.completion, columns=good.columns) == row
    assert good.where == bad.where == "x.jsonl row 3"


@given(st.lists(preferences(), max_size=4))
def test_a_chain_of_casts_keeps_order_and_columns(rows: list[Preference]) -> None:
    whole = cast(rows, Preference, LanguageModeling)
    assert [row.columns for row in whole] == [row.columns for row in rows]
    for before, after in zip(rows, whole, strict=True):
        assert isinstance(after, LanguageModeling)
        assert after.text == before.prompt + before.chosen  # type: ignore[operator]


@given(preferences())
def test_an_implicit_prompt_is_the_common_start(row: Preference) -> None:
    chosen: Text = row.prompt + row.chosen  # type: ignore[operator]
    rejected: Text = row.prompt + row.rejected  # type: ignore[operator]
    prompt, left, right = split_prompt(chosen, rejected)
    assert prompt + left == chosen  # type: ignore[operator]
    assert prompt + right == rejected  # type: ignore[operator]
    assert not left or not right or left[0] != right[0] or left[0] == " "
    if prompt and left and right:
        trl = pytest.importorskip("trl.data_utils")
        assert trl.extract_prompt({"chosen": chosen, "rejected": rejected}) == {
            "prompt": prompt,
            "chosen": left,
            "rejected": right,
        }


def test_unpairing_agrees_with_trl() -> None:
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl.data_utils")
    rows = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(3)]
    theirs = trl.unpair_preference_dataset(datasets.Dataset.from_list(rows))
    ours = as_format(Rows(rows, "rows"), UnpairedPreference)
    found = {(row.prompt, row.completion, row.label) for row in ours}  # type: ignore[attr-defined]
    assert found == {(row["prompt"], row["completion"], row["label"]) for row in theirs}


def test_desirable_rows_are_imitated_the_others_left_out() -> None:
    rows = [{"prompt": "p", "completion": "good", "label": True}, {"prompt": "p", "completion": "bad", "label": False}]
    assert as_format(Rows(rows, "kto"), PromptCompletion) == [PromptCompletion("p", "good")]
    with pytest.raises(DataError, match="kto: no rows are left after the cast"):
        as_format(Rows(rows[1:], "kto"), PromptCompletion)


def test_the_prompt_of_published_preference_sets() -> None:
    user, blue, green = ({"role": r, "content": c} for r, c in (("user", "?"), ("assistant", "b"), ("assistant", "g")))
    row = {"prompt": "?", "chosen": [user, blue], "rejected": [user, green], "score": 1}
    assert as_format(Rows([row], "uf"), Preference) == [Preference([user], [blue], [green], columns={"score": 1})]


def test_columns_that_are_there_are_preferred_to_casts() -> None:
    row = {"prompt": "p", "completion": "mine", "chosen": "c", "rejected": "r"}
    (found,) = as_format(Rows([row], "x"), PromptCompletion)
    assert isinstance(found, PromptCompletion)
    assert found.completion == "mine"


def test_a_method_may_read_several_formats() -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    both = (PromptCompletion, LanguageModeling)
    assert as_format(Rows([{"messages": chat}], "x"), both) == [LanguageModeling(chat)]
    assert as_format(Rows([{"prompt": "a", "completion": "b"}], "x"), both) == [PromptCompletion("a", "b")]
    assert as_format(Rows([{"conversations": [{"from": "human", "value": "a"}]}], "x"), both) == [
        LanguageModeling([{"role": "user", "content": "a"}])
    ]


@pytest.mark.parametrize(
    ("row", "target", "said"),
    [
        (
            {"prompt": "p", "rejected": "r"},
            Preference,
            "column 'chosen' is missing; this method reads preference rows (prompt, chosen, rejected)",
        ),
        ({"question": "q"}, PromptCompletion, "column 'prompt' is missing"),
        ({"text": "t"}, Preference, "it also takes implicit-prompt preference rows (chosen, rejected)"),
    ],
)
def test_rows_that_cannot_be_cast_name_the_column_and_the_ways(
    row: dict[str, Any], target: type[Format], said: str
) -> None:
    with pytest.raises(RowError) as caught:
        as_format(Rows([row], "hh.jsonl"), target)
    assert str(caught.value).startswith("hh.jsonl row 1: ")
    assert said in str(caught.value)


def test_an_error_in_a_later_row_names_that_row() -> None:
    good = {"prompt": "p", "chosen": "c", "rejected": "r"}
    rows = Rows([good, good, {"prompt": "p", "chosen": "c"}], "hh.jsonl", [f"hh.jsonl row {i}" for i in (1, 2, 9)])
    with pytest.raises(RowError, match=r"^hh\.jsonl row 9: column 'rejected' is missing"):
        as_format(rows, UnpairedPreference)


def test_sides_without_a_common_start() -> None:
    with pytest.raises(RowError, match=r"row 1: .*no common start"):
        as_format(Rows([{"chosen": "abc", "rejected": "xyz"}], "x"), Preference)
    with pytest.raises(RowError, match="row 1: 'chosen' has nothing after the common start"):
        as_format(Rows([{"chosen": "abc", "rejected": "abcd"}], "x"), Preference)


def test_routes() -> None:
    assert route(Preference, Preference) == []
    assert [step.target for step in route(ImplicitPreference, UnpairedPreference)] == [Preference, UnpairedPreference]
    assert all(step.loses for step in CASTS if step.target in (PromptOnly, PromptCompletion))
    with pytest.raises(CastError, match=r"prompt-only rows \(prompt\) cannot be turned into preference rows"):
        route(PromptOnly, Preference)
    assert cast([Conversations([{"role": "user", "content": "x"}])], Conversations, LanguageModeling)
