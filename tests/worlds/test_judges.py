"""Judges of TRL's convention, whatever they give and take, and what each pair's preference comes to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi.errors import DataError, UsageError
from teloi.worlds.judges import JUDGES, by_convention, by_reward, load_judge, spoken

PAIRS = [("a", "bb"), ("ccc", "d"), ("ee", "ff")]
PROMPTS = ["p", "q", "r"]

OWN = """
class Longest:
    def judge(self, prompts, completions, shuffle_order=True):
        assert not shuffle_order
        assert all(isinstance(text, str) for pair in completions for text in pair)
        return [-1 if len(a) == len(b) else int(len(b) > len(a)) for a, b in completions]

instance = Longest()
def soft(prompts, completions):
    return [0.75] * len(prompts)

NOT_ONE = 3
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def test_judges_in_a_file_class_object_or_function(own_file: Path) -> None:
    for name in ("Longest", "instance"):
        judge = load_judge(f"{own_file}:{name}")
        assert judge.preferences(PROMPTS, PAIRS, {}) == [0.0, 1.0, None]
    # The position says nothing: what a judge thinks of the first of every pair cancels out.
    assert load_judge(f"{own_file}:soft").preferences(PROMPTS, PAIRS, {"unused": [1, 2, 3]}) == [0.5] * 3


def test_a_judge_that_is_not_there(own_file: Path) -> None:
    with pytest.raises(UsageError, match=r"no judge 'chekcs': use checks, my_judge\.py:function"):
        load_judge("chekcs")
    with pytest.raises(UsageError, match="there is no file"):
        load_judge(f"{own_file.parent}/none.py:soft")
    with pytest.raises(UsageError, match="has no judge hard"):
        load_judge(f"{own_file}:hard")
    with pytest.raises(UsageError, match=r"judge 'teloi\.nowhere:f' cannot be loaded: No module named"):
        load_judge("teloi.nowhere:f")
    with pytest.raises(UsageError, match="is no function, nor has it a method `judge`"):
        load_judge(f"{own_file}:NOT_ONE")


def test_whatever_number_a_verdict_is() -> None:
    verdicts: list[Any] = [0, np.int64(1), torch.tensor(0), 0.0, np.float32(0.25), torch.tensor(1.0), -1, None]
    judge = by_convention(lambda prompts, completions: verdicts, "own")
    assert judge.ask(["p"] * 8, [("a", "b")] * 8, {}) == [1.0, 0.0, 1.0, 0.0, 0.25, 1.0, None, None]


@pytest.mark.parametrize("verdict", [2, True, 1.5, float("nan"), "first"])
def test_a_verdict_that_is_none(verdict: Any) -> None:
    judge = by_convention(lambda prompts, completions: [verdict] * 2, "own")
    with pytest.raises(DataError, match=r"judge own gave .*: a verdict is the index"):
        judge.preferences(["p"], [("a", "b")], {})


def test_as_many_verdicts_as_pairs() -> None:
    with pytest.raises(DataError, match="judge own gave 1 verdicts for 6 pairs"):
        by_convention(lambda prompts, completions: [0], "own").preferences(PROMPTS, PAIRS, {})


def test_both_orders_make_one_preference() -> None:
    """0.8 for the first where it is the longer one, 0.6 where it is not: (0.8 + 1 - 0.6) / 2."""

    def judge(prompts, completions):
        return [0.8 if len(a) > len(b) else 0.6 for a, b in completions]

    asked = by_convention(judge, "own")
    there = asked.preferences(["p"], [("long", "x")], {})
    back = asked.preferences(["p"], [("x", "long")], {})
    assert there == [pytest.approx(0.6)]
    assert back == [pytest.approx(0.4)]


def test_one_order_alone_where_the_other_failed() -> None:
    asked = by_convention(lambda prompts, completions: [-1 if a > b else 0.7 for a, b in completions], "own")
    assert asked.preferences(["p", "p"], [("a", "b"), ("b", "a")], {}) == [0.7, pytest.approx(0.3)]


def test_columns_and_options_that_a_judge_names() -> None:
    seen: dict[str, Any] = {}

    def judge(prompts, completions, gold, return_scores=False):
        seen.update(gold=gold, scores=return_scores, prompts=prompts, completions=completions)
        return [0.5] * len(prompts)

    prompt = [{"role": "user", "content": "Name one."}]
    answers: Any = tuple([{"role": "assistant", "content": text}] for text in ("x", "y"))
    by_convention(judge, "own").preferences([prompt], [answers], {"gold": ["x"], "other": [1]})
    assert seen == {
        "gold": ["x", "x"],
        "scores": True,
        "prompts": ["Name one."] * 2,
        "completions": [["x", "y"], ["y", "x"]],
    }
    assert spoken([{"role": "system", "content": "Be brief."}, *prompt]) == "System: Be brief.\n\nUser: Name one."


def test_the_embedded_judge_counts_checks() -> None:
    wanted = [{"kind": "lowercase"}, {"kind": "max_words", "count": 2}]
    pairs = [("one two", "One two"), ("One two three", "one two three"), ("one", "two")]
    assert JUDGES["checks"].preferences(PROMPTS, pairs, {"checks": [wanted] * 3}) == [1.0, 0.0, 0.5]
    with pytest.raises(DataError, match="reads a column of that name"):
        JUDGES["checks"].preferences(PROMPTS, pairs, {})


def test_a_reward_as_judge() -> None:
    judge = by_reward(lambda prompts, completions: [float(len(text)) for text in completions])
    found = judge.preferences(PROMPTS, PAIRS, {})
    assert found == pytest.approx([1 / (1 + np.e), 1 / (1 + np.exp(-2)), 0.5])
    swapped = judge.preferences(PROMPTS, [(b, a) for a, b in PAIRS], {})
    assert [a + b for a, b in zip(found, swapped, strict=True)] == pytest.approx([1.0] * 3)  # type: ignore[operator]
