"""The making of the embedded preference data, and the data as it is shipped."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from teloi.jobs import one_by_one
from teloi.worlds import make_instructions
from teloi.worlds.instructions import KINDS, satisfied
from teloi.worlds.make_instructions import Prompt, prompts, questions, rows, write


def shipped(split: str) -> list[dict[str, Any]]:
    data = (files("teloi.data") / "embedded" / "instructions" / f"{split}.jsonl.gz").read_bytes()
    return [json.loads(line) for line in gzip.decompress(data).decode().splitlines()]


def text(row: dict[str, Any], column: str) -> str:
    content: str = row[column][0]["content"]
    return content


def test_prompts_are_many_distinct_and_held_out_by_topic() -> None:
    made = prompts(0)
    train, test = [p for p in made if not p.test], [p for p in made if p.test]
    assert len(train) >= 400
    assert len(test) >= 100
    assert len({prompt.text for prompt in made}) == len(made)
    assert not {p.topic for p in train} & {p.topic for p in test}
    assert not {p.question.lower() for p in train} & {p.question.lower() for p in test}
    assert {check["kind"] for p in train for check in p.checks} == set(KINDS)
    assert {check["kind"] for p in test for check in p.checks} == set(KINDS)
    assert [p.text for p in prompts(0)] == [p.text for p in made]
    assert [p.text for p in prompts(1)] != [p.text for p in made]
    assert len({question for _, question, _ in questions()}) == len(questions())


def prompt(**changes: Any) -> Prompt:
    return Prompt(
        **{
            "topic": "cats",
            "question": "Why?",
            "test": False,
            "text": "Why? Answer without commas please.",
            "checks": [{"kind": "no_commas"}],
            **changes,
        }
    )


def test_pairs_are_of_replies_that_ended_and_say_something() -> None:
    asked = prompt()
    asked.replies = [
        ("cut off, in the mid", False),
        ("answer without commas", True),  # repeats the prompt
        ("Yes, sir.", True),  # two words
        ("Because they can", True),
        ("Well, because they can", True),
        ("Because they can", True),  # the same again
        ("No idea at all", True),
    ]
    assert asked.pairs() == [("Because they can", "Well, because they can")]
    asked.replies += [("This, that and more", True), ("So, who knows that?", True)]
    assert asked.pairs()[1:] == [("No idea at all", "This, that and more")]
    (row, _) = rows([asked])
    assert set(row) == {"prompt", "chosen", "rejected", "checks", "topic"}
    assert row["chosen"] == [{"role": "assistant", "content": "Because they can"}]


def test_a_prompt_is_asked_until_it_has_a_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = [prompt(), prompt(text="Why not?"), prompt(text="Really?", test=True)]
    script = {
        asked[0].text: ["because they can", "well, because they can"],
        asked[1].text: ["it is so"],
        asked[2].text: ["no, I do not think so", "yes I think so"],
    }
    seen: list[int] = []

    def answer(chunk: tuple[list[str], int]) -> list[list[tuple[str, bool]]]:
        texts, seed = chunk
        seen.append(seed)
        return [[(reply, True) for reply in script[text]] for text in texts]

    (tmp_path / "SOURCE").write_text("a test")
    monkeypatch.setattr(make_instructions, "path", lambda: tmp_path)
    monkeypatch.setattr(make_instructions, "answer", answer)
    monkeypatch.setattr(make_instructions, "in_parallel", lambda work, items, jobs, name: one_by_one(work, items, name))
    make_instructions.answer_all(asked, seed=3, processes=2)
    assert [len(p.replies) for p in asked] == [2, 3, 2]
    assert len(set(seen)) == 3, "every round draws anew"

    write(tmp_path / "out", asked, seed=3)
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(first) == {"train.jsonl.gz", "test.jsonl.gz", "README.md"}
    (row,) = [json.loads(line) for line in gzip.decompress(first["test.jsonl.gz"]).splitlines()]
    assert (text(row, "chosen"), text(row, "rejected")) == ("yes I think so", "no, I do not think so")
    write(tmp_path / "out", asked, seed=3)
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_shipped_data_holds_what_it_promises() -> None:
    train, test = shipped("train"), shipped("test")
    assert len({text(row, "prompt") for row in train}) >= 400
    assert len({text(row, "prompt") for row in test}) == len(test) >= 100
    assert not {row["topic"] for row in train} & {row["topic"] for row in test}
    assert {check["kind"] for row in test for check in row["checks"]} == set(KINDS)
    known = {prompt.text: prompt for prompt in prompts(0)}
    for row in train + test:
        assert satisfied(row, text(row, "chosen"))
        assert not satisfied(row, text(row, "rejected"))
        assert known[text(row, "prompt")].checks == row["checks"]
    assert len({(text(row, "prompt"), text(row, "chosen")) for row in train + test}) == len(train + test)
