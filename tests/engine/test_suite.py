from __future__ import annotations

from pathlib import Path

import pytest

from teloi.data.read import Rows
from teloi.engine import suite
from teloi.engine.fit import as_base
from teloi.engine.suite import Suite, Task, answered, judged, pairs, prompts
from teloi.errors import UsageError
from tests.engine.conftest import tiny_model, tiny_processor


def task(name: str, *labels: str) -> Task:
    return Task(name, Rows([{"prompt": f"What is {n}?", "ground_truth": n} for n in labels], name), "gsm8k", 4)


@pytest.fixture
def base():
    return as_base(tiny_model(), tiny_processor().tokenizer, max_length=64)


def echo(base, asked, *_):
    """Answers every question with its own number, but for the 9."""
    return [[row.prompt.replace("9", "8")] for row in asked]


def test_a_part_is_the_mean_over_its_tasks(base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(suite, "answered", echo)
    found = Suite((task("a", "1", "9"), task("b", "1", "2", "3", "9")), (task("c", "5"),))
    assert found.measure(base) == {"a": 0.5, "b": 0.75, "average": 0.625}
    lock = tmp_path / "unseen.json"
    assert found.open_unseen(base, lock, "mine") == {"c": 1.0, "average": 1.0}
    assert found.open_unseen(base, lock, "mine") == {"c": 1.0, "average": 1.0}
    with pytest.raises(UsageError, match="opened for mine"):
        found.open_unseen(base, lock, "another")
    assert Suite(()).measure(base) == {}


def test_answers_and_pairs(base):
    asked = prompts(task("a", "1", "2").rows)
    answers = answered(base, asked, 5, n=3, temperature=1.0, seed=1)
    assert [len(several) for several in answers] == [3, 3]
    assert answers == answered(base, asked, 5, n=3, temperature=1.0, seed=1)
    said = [["so 2", "so 1", "1"], ["2", "2", "is 2"]]
    rewards = judged("gsm8k+gsm8k", asked, said)
    assert rewards == [[0.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    (pair,) = pairs(asked, said, rewards)
    assert pair == {"prompt": "What is 1?", "chosen": "so 1", "rejected": "so 2", "ground_truth": "1"}


def test_conversations_are_answered_by_messages():
    rows = Rows([{"prompt": [{"role": "user", "content": "Shout."}], "checks": [{"kind": "uppercase"}]}], "rows")
    (pair,) = pairs(prompts(rows), [["no", "YES"]], judged("checks", prompts(rows), [["no", "YES"]]))
    assert pair["chosen"] == [{"role": "assistant", "content": "YES"}]
