"""Rows for encoders and controllers: pairs, titles with skills, trajectories; what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from teloi.data.casts import as_format
from teloi.data.formats import Pair, TitleSkills, Trajectory, detect
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.errors import Overlong, RowError
from tests.engine.conftest import tiny_processor

MOVE = {"states": [[0, 1], [0, 2]], "actions": [[0, 1]]}


@pytest.mark.parametrize(
    ("format", "row", "said"),
    [
        (Pair, {"anchor": "a"}, "column 'positive' is missing; this method reads pair rows (anchor, positive and, if"),
        (Pair, {"anchor": "a", "positive": "b", "negative": " "}, "column 'negative' is empty"),
        (Pair, {"anchor": [{"role": "user", "content": "a"}], "positive": "b"}, "'anchor' is a list of messages"),
        (TitleSkills, {"title": "a", "skills": "b, c"}, "column 'skills' is text ('b, c'), not a list of texts"),
        (TitleSkills, {"title": "a", "skills": []}, "column 'skills' is empty"),
        (TitleSkills, {"title": "a", "skills": ["b", 3]}, "column 'skills', entry 2 is a number (3), not text"),
        (Trajectory, {**MOVE, "actions": [[0, 1], [1, 1]]}, "2 states and 2 actions: there is one state more"),
        (Trajectory, {**MOVE, "states": [[0, 1], [0]]}, "column 'states', vector 2 has 1 numbers, the first has 2"),
        (Trajectory, {**MOVE, "actions": [[0, float("nan")]]}, "column 'actions', vector 1 holds something that is no"),
        (Trajectory, {**MOVE, "actions": [["0", True]]}, "column 'actions', vector 1 holds something that is no"),
        (Trajectory, {**MOVE, "instruction": ""}, "column 'instruction' is empty"),
    ],
)
def test_a_bad_row_says_where_and_what(format: Any, row: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError) as caught:
        format.parse(row, "x.jsonl row 7")
    assert str(caught.value).startswith("x.jsonl row 7: ")
    assert said in str(caught.value)


def test_a_row_keeps_its_other_columns() -> None:
    assert Pair.parse({"anchor": "a", "positive": "b", "negative": None, "group": 3}) == Pair(
        "a", "b", columns={"group": 3}
    )
    assert TitleSkills.parse({"title": "a", "skills": ["b"], "id": 1}) == TitleSkills("a", ("b",), columns={"id": 1})
    row = Trajectory.parse({**MOVE, "instruction": None, "task": 2})
    assert row == Trajectory(((0.0, 1.0), (0.0, 2.0)), ((0.0, 1.0),), columns={"task": 2})
    for format, kept in ((Pair, {"anchor", "positive"}), (TitleSkills, {"title", "skills"}), (Trajectory, set(MOVE))):
        assert detect(kept | {"id"}) is format


def test_answers_become_pairs() -> None:
    said = [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]
    worse = [{"role": "assistant", "content": "c"}]
    for prompt, chosen, rejected in (("a", "b", "c"), (*said, worse)):
        rows = Rows([{"prompt": prompt, "chosen": chosen, "rejected": rejected, "id": 1}], "x")
        assert as_format(rows, Pair) == [Pair("a", "b", "c", columns={"id": 1})]
        rows = Rows([{"prompt": prompt, "completion": chosen}], "x")
        assert as_format(rows, Pair) == [Pair("a", "b")]
    rows = Rows([{"prompt": [*said[0], *said[1], *said[0]], "completion": worse}], "x")
    with pytest.raises(RowError, match="x row 1: a conversation of several messages"):
        as_format(rows, Pair)
    assert as_format(Rows([{"title": "a", "skills": ["b", "c"]}], "x"), Pair) == [Pair("a", "b, c")]
    with pytest.raises(RowError, match="column 'title' is missing"):
        as_format(Rows([{"anchor": "a", "positive": "b"}], "x"), TitleSkills)


def test_an_encoder_reads_a_text_between_special_tokens() -> None:
    tokenizer = tiny_processor("masked").tokenizer  # BEGIN and END around each text
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    processor = Processor(tokenizer, 6)
    ids = processor.bare_ids("abc")
    assert processor.sentence_ids(ids) == tokenizer("abc")["input_ids"] == [begin, *ids, end]
    assert processor.sentence_ids(ids[:1], ids[1:]) == [begin, *ids, end]
    with pytest.raises(Overlong):
        processor.sentence_ids(ids, ids)
    cut = Processor(tokenizer, 6, "truncate")
    assert cut.sentence_ids(ids, ids) == [begin, *ids, ids[0], end]
    assert cut.truncated == 1
