from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.cli import main
from teloi.data.decontamination import Match, decontaminate, matching, overlaps, prompt_of, tokens
from teloi.data.read import Rows
from teloi.errors import DataError, UsageError

QUESTION = "A farmer has twelve red hens and sells five of them at the market on Monday."


def brute_force(test: str, train: str, n: int) -> float:
    """The definition, token by token."""
    asked, given = tokens(test), tokens(train)
    grams = [given[i : i + n] for i in range(len(given) - n + 1)]
    covered = [
        any(asked[i : i + n] in grams for i in range(max(at - n + 1, 0), at + 1) if i + n <= len(asked))
        for at in range(len(asked))
    ]
    return sum(covered) / len(asked) if asked else 0.0


texts = st.lists(st.sampled_from(["a", "b", "c", "."]), max_size=12).map(" ".join)


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4), st.integers(1, 4))
def test_overlaps_are_the_definitions(asked: list[str], given: list[str], n: int):
    expected = {
        (i, j): overlap
        for i, test in enumerate(asked)
        for j, train in enumerate(given)
        if (overlap := brute_force(test, train, n)) > 0
    }
    assert {(one.test, one.train): pytest.approx(one.overlap) for one in overlaps(asked, given, n)} == expected


def test_more_than_half_of_a_test_row_must_be_covered():
    half = "one two three four five six seven eight"
    assert matching([[f"{half} a b c d e f g h"]], [half]) == []
    assert matching([[f"{half} a b c d e f g"]], [half]) == [Match(0, 0, 8 / 15)]
    assert matching([["one two three"]], ["one two three"]) == [], "shorter than an n-gram"


def test_fields_of_a_test_row_are_averaged():
    choices = "one two three four five six seven eight"
    assert matching([[QUESTION, choices]], [QUESTION]) == []
    assert matching([[QUESTION, choices]], [f"{QUESTION} {choices}"]) == [Match(0, 0, 1.0)]


def test_the_users_turns_are_what_a_row_asks():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert prompt_of({"messages": turns}) == "a\nc"
    assert prompt_of({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}) == "a"
    assert prompt_of({"question": "q", "answer": "a"}) == "q"
    assert prompt_of({"question": "q", "answer": "a"}, "answer") == "a"
    with pytest.raises(DataError, match="no column prompt or messages"):
        prompt_of({"input": "x"})


def test_a_set_is_dropped_from_only_where_enough_test_rows_are_touched():
    trains = Rows([{"prompt": QUESTION}, {"prompt": "Something else."}], "train")
    tests = Rows([{"prompt": QUESTION}, *({"prompt": f"Question {n} of another kind."} for n in range(9))], "test")
    assert list(decontaminate(trains, tests).kept) == [1]
    assert list(decontaminate(trains, tests, touched=0.1).kept) == [0, 1]
    with pytest.raises(UsageError, match="n is at least 1"):
        decontaminate(trains, tests, n=0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [{"prompt": f"{QUESTION} How many are left?", "label": "7"}, {"prompt": "Write a poem.", "label": "é"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    kept = tmp_path / "kept.jsonl"
    words = ["decontaminate", str(tmp_path / "train.jsonl"), "--against", str(tmp_path / "test.jsonl"), "--output"]
    assert main([*words, str(kept)]) == 0
    assert "1 of 2 training rows match 100.0% of 1 test rows; 1 are kept" in capsys.readouterr().out
    assert [json.loads(line) for line in kept.read_text().splitlines()] == rows[1:]
    report = json.loads((tmp_path / "kept.jsonl.report.json").read_text())
    assert report["contaminated"] is True
    (match,) = report["matches"]
    assert (match["train"], match["test"], match["train row"]) == ("train.jsonl row 1", "test.jsonl row 1", rows[0])
    assert main([*words, str(kept)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["decontaminate"]) == 2
