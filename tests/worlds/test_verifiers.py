from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest

from teloi.errors import DataError
from teloi.worlds import verifiers
from teloi.worlds.rewards import load_reward
from teloi.worlds.verifiers import exact, gsm8k, matches, math, math_answers, program, same_value


@pytest.mark.parametrize(
    ("response", "label", "right"),
    [
        ("12 - 5 = 7. #### 7", "7", True),
        ("so 8", "7", False),
        ("it costs $1,250.", "1250", True),
        ("it is 7.0", "7", False),
        ("from 3-4", "-4", True),
        ("from 3-4", "4", False),
        ("1,2,3", "3", True),
        ("1,2,3", "123", False),
        ("it is -3.5", "-3.5", True),
        ("seven", "7", False),
        ("Seven", "seven", True),
    ],
)
def test_gsm8k_compares_the_last_number(response: str, label: str, right: bool):
    assert gsm8k(response, label) is right


def test_exact_and_format():
    assert exact(" Paris\n", "paris")
    assert not exact("Paris, France", "paris")
    assert matches("<think>\na\n</think> 7", r"<think>.*</think> \d+")
    assert not matches("7", r"<think>.*</think> \d+")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\dfrac12", "1/2", True),
        (r"-\frac{3}{4}", "-0.75", True),
        ("1,234", "1234", True),
        ("1,234,567.0", "1234567", True),
        ("x = 5", "5", True),
        (r"\text{ Monday }", "monday", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", True),
        (r"90^\circ", "90", True),
        (r"50\%", "50", True),
        ("3", "4", False),
        (r"\frac{1}{0}", "0", False),
        (r"\sqrt{2}", r"\sqrt{3}", False),
        ("", "", False),
        ("1e999999999", "10", False),
        ("9" * 10**5, "10", False),
    ],
)
def test_mathematical_values(one: str, other: str, same: bool):
    assert same_value(one, other) is same
    assert same_value(other, one) is same


def test_answers_of_a_mathematical_response():
    assert math_answers(r"so \boxed{1} and then \boxed{\frac{1}{2}}.") == [r"\frac{1}{2}"]
    assert math_answers("The final answer is 12. I hope so") == ["12"]
    assert math_answers("first $x$ and then $y + 1$") == ["y + 1"]
    assert math_answers(r"\boxed{never closed") == []
    assert math(r"$3$, hence the final answer is: $\frac{6}{2}$.", "3")
    assert not math("no answer", "3")


def test_the_program_of_a_response():
    assert program("Here:\n```python\nx = 1\n```\nor\n```\nx = 2\n```") == "x = 2\n"
    assert program("x = 3") == "x = 3"


def reward(name: str, completions: list[Any], **columns: Any) -> list[Any]:
    return list(load_reward(name)(prompts=["?"] * len(completions), completions=completions, **columns))


def test_rewards_read_columns_and_messages():
    said: list[Any] = ["#### 7", [{"role": "assistant", "content": "#### 8"}]]
    assert reward("gsm8k", said, ground_truth=["7", 7], completion_ids=[[1], [2]]) == [1.0, 0.0]
    assert reward("format", ["a1", "a"], pattern=[r"a\d", r"a\d"]) == [1.0, 0.0]
    assert reward("checks", ["YES", "no"], checks=[[{"kind": "uppercase"}]] * 2) == [1.0, 0.0]
    with pytest.raises(DataError, match="reads a column 'ground_truth'"):
        reward("math", ["1"])


@pytest.mark.parametrize("label", ["", "  ", None, [], {}])
def test_empty_labels_are_refused(label: Any):
    with pytest.raises(DataError, match="which an empty response would equal"):
        reward("gsm8k", [""], ground_truth=[label])
    with pytest.raises(DataError, match="list of statements"):
        reward("code", [""], tests=[label])


def test_an_item_with_several_verifiers_gets_the_weighted_sum():
    columns: dict[str, list[Any]] = {
        "dataset": ["gsm8k", ["gsm8k", "format"], ["gsm8k", "checks"]],
        "ground_truth": ["7", ["7", r"#### \d"], ["7", [{"kind": "lowercase"}]]],
        "weights": [None, [0.75, 0.25], [2.0, 1.0]],
    }
    assert reward("verifiable", ["#### 7"] * 3, **columns) == [1.0, 1.0, 3.0]
    assert reward("verifiable", ["It is 7"] * 3, **columns) == [1.0, 0.75, 2.0]
    assert reward("verifiable", ["#### 7"] * 3, **{**columns, "weights": [None] * 3}) == [1.0, 2.0, 2.0]
    with pytest.raises(DataError, match="no verifier 'gsm9k'"):
        reward("verifiable", ["7"], dataset=["gsm9k"], ground_truth=["7"])
    with pytest.raises(DataError, match="2 verifiers and 1 weights"):
        reward("verifiable", ["7"], dataset=[["gsm8k", "math"]], ground_truth=[["7", "7"]], weights=[[1.0]])


def test_a_verifier_that_errs_says_nothing_and_is_told_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(verifiers, "FAILURES", Counter())
    with pytest.warns(UserWarning, match=r"verifier 'format' failed .*count 0") as told:
        found = reward("format", ["a", "a(", "a"], pattern=["a", "a(", "a("])
    assert found == [1.0, None, None]
    assert len(told) == 1
    assert verifiers.FAILURES == {"format": 2}
    # Of several verifiers the others still count.
    several: dict[str, list[Any]] = {"dataset": [["format", "gsm8k"]], "ground_truth": [["a(", "7"]]}
    assert reward("verifiable", ["7"], **several) == [1.0]


@pytest.mark.skipif(sys.platform != "linux", reason="there is a sandbox on Linux only")
def test_code_is_right_that_passes_its_tests():
    tests = ["assert double(2) == 4", "assert double(0) == 0"]
    right, wrong = "```python\ndef double(x):\n    return 2 * x\n```", "def double(x): return x * x"
    hostile = "import os\ndef double(x): os._exit(0)"
    assert reward("code", [right, wrong, hostile], tests=[[*tests, "assert double(3) == 6"]] * 3) == [1.0, 0.0, 0.0]
    assert reward("verifiable", [right], dataset=["code"], ground_truth=[tests]) == [1.0]
