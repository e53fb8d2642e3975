"""The claim's own parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teloi.claims import tulu3
from teloi.claims.claim import Run
from teloi.worlds.verifiers import gsm8k
from tests.claims.judged import run_in_seconds


def one(arm: str | None = None, seed: int = 3) -> Run:
    return Run(arm, seed, True, Path())


def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = (f'{{"question": "{" ".join(f"{split}{n}w{i}" for i in range(20))}"}}\n' for n in range(60))
        (folder / f"{split}.jsonl").write_text("".join(rows))
    monkeypatch.setenv("TELOI_DATA", str(tmp_path / "data"))
    result = run_in_seconds("teloi.claims.tulu3", tmp_path)
    found = {arm["name"]: arm["runs"][0]["metrics"] for arm in result["arms"]}
    assert found["8-grams"]["recall_1"] == 1.0
    assert found["8-grams"]["flagged"] == 0.0


def test_no_problem_is_of_two_kinds():
    run = Run(None, 3, False, Path())
    test, shown = ({p.prompt() for p in some(run)} for some in (tulu3.held_out, tulu3.examples))
    fresh = {p.prompt() for name in ("rl", "pairs") for p in tulu3.fresh(run, 500, name)}
    assert len(test) == 400
    assert test.isdisjoint(shown)
    assert test.isdisjoint(fresh)


def test_pairs_are_of_a_right_and_a_wrong_answer(monkeypatch: pytest.MonkeyPatch):
    def written(base, asked, n, temperature, seed):
        return [[f"#### {(p.answer + k) % 14}" for k in (1, 0, 2, 0)] for p in asked[:-1]] + [["#### 99"] * 4]

    monkeypatch.setattr(tulu3, "written", written)
    run: Any = Run(None, 3, False, Path())
    plain, filled = (tulu3.sampled_pairs(run, None, "pairs", how) for how in (None, (1, 1)))  # type: ignore[arg-type]
    problems = tulu3.fresh(run, tulu3.FULL.asked, "pairs")
    assert len(plain) == len(filled) == len(problems) - 1
    for problem, pair, longer in zip(problems, plain, filled, strict=False):
        assert pair["chosen"] == f" #### {problem.answer}"
        assert pair["rejected"] == f" #### {(problem.answer + 1) % 14}"
        assert gsm8k(longer["chosen"], str(problem.answer))
        assert "so that is clear ." in longer["chosen"]


def test_as_many_words_are_changed_as_said():
    rng = np.random.default_rng(0)
    question = "how many of them are left at the end of it"
    for edits in (1, 3, 6):
        changed = tulu3.edited(question, edits, ["red", "blue", "green", "left"], rng)
        different = [a != b for a, b in zip(question.split(), changed.split(), strict=True)]
        assert sum(different) == edits
