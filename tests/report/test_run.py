from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from teloi.report.run import by_step, facts, render_run, warning_lines
from tests.report.test_html import HOSTILE, Page, assert_self_contained

RECORDS = [
    {"step": i, "tokens": 100 * i, "loss": 1 / i, "reward": i / 40, "kl": 0.1 * i, "eval_loss": 2.0}
    for i in range(1, 41)
]
SAMPLES = [
    {
        "step": step,
        "prompt": f"{HOSTILE} {prompt}",
        "completion": f"{HOSTILE} {step} {n}",
        "reward": -0.5 * n,
        "finished": n > 0,
    }
    for step in (1, 20, 40)
    for prompt in "ab"
    for n in range(2)
]


def run(**done: Any) -> dict[str, Any]:
    return {
        "teloi": "0.1.0",
        "method": "grpo",
        "objective": {"k": 8, "reward": HOSTILE},
        "train": {"model": "scratch:tiny", "limit": None, "seed": 0},
        "data": {"name": "prompts.jsonl", "rows": 40},
        "versions": {"torch": "2.13"},
        "done": {
            "steps": 40,
            "trained_tokens": 4000,
            "train_seconds": 93.0,
            "last": RECORDS[-1],
            "stopped": None,
            "warnings": [],
            **done,
        },
    }


def test_the_page_of_a_run(tmp_path: Path) -> None:
    warning = {"name": "length-growth", "step": 30, "text": "answers have grown"}
    result = run(stopped="kl > 3 (kl was 4 at step 40)", warnings=[warning])
    read = Page(render_run(result, RECORDS, SAMPLES, "teloi train grpo", tmp_path / "report.html").read_text("utf-8"))
    assert_self_contained(read)
    for text in (
        "grpo on prompts.jsonl",
        "Stopped because kl > 3 (kl was 4 at step 40).",
        "length-growth (step 30): answers have grown.",
        "40 steps",
        "93 s",
        "0.0625 at the start",
        "reward −0.5",
        "cut off",
        "2 earlier steps",
        f"{HOSTILE} 40 1",
        "teloi train grpo",
        "torch 2.13",
    ):
        assert text in read.text
    assert read.text.index("Step 40") < read.text.index("Step 20") < read.text.index("Step 1\n")
    assert {("aria-label", name) for name in ("reward", "kl", "loss", "eval_loss")} <= read.attributes


def test_a_run_that_samples_nothing(tmp_path: Path) -> None:
    records = [{"step": 1, "tokens": 9, "loss": 0.5}]
    read = Page(render_run(run(), records, [], "teloi train sft", tmp_path / "report.html").read_text("utf-8"))
    assert "What the policy writes" not in read.text
    assert "at the end" in read.text


def test_held_out_numbers_come_first_and_nothing_is_drawn_twice(tmp_path: Path) -> None:
    records: list[dict[str, float]] = [
        {"step": i, "tokens": 9 * i, "loss": 1 / i, "preference": 1 / i, "accuracy": 0.5} for i in range(1, 9)
    ]
    records[-1] |= {"eval_loss": 0.6, "eval_preference": 0.6, "eval_accuracy": 0.625}
    assert [(one.question, one.answer, one.behind) for one in facts(records)] == [
        ("loss", "0.125", "1 at the start"),
        ("accuracy", "0.5", "0.5 at the start"),
        ("held-out loss", "0.6", "at the end"),
        ("held-out accuracy", "0.625", "at the end"),
    ]
    read = Page(render_run(run(), records, [], "teloi train dpo", tmp_path / "report.html").read_text("utf-8"))
    drawn = {value for name, value in read.attributes if name == "aria-label"}
    assert drawn & {"loss", "preference", "accuracy", "eval_loss", "eval_accuracy"} == {"loss", "accuracy"}


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    one, other = (render_run(run(), RECORDS, SAMPLES, "x", tmp_path / name).read_bytes() for name in ("a", "b"))
    assert one == other


def test_facts_are_of_what_is_watched() -> None:
    found = facts(RECORDS)
    assert [fact.question for fact in found] == ["reward", "kl", "loss", "held-out loss"]
    assert math.isclose(float(found[0].answer), 0.963, abs_tol=1e-3)


def test_samples_by_step_and_prompt() -> None:
    assert [(step, [len(lines) for _, lines in prompts]) for step, prompts in by_step(SAMPLES)] == [
        (40, [2, 2]),
        (20, [2, 2]),
        (1, [2, 2]),
    ]
    assert warning_lines({}) == []
