"""Recipes: stages in a row, resumed where they stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import Teloi, pairs, process, records, same_weights, write_rows

STEPS = 60

OWN = """
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from teloi import Preference
from teloi.engine.recipe import Make, Recipe, Train
from teloi.methods.finetune.sft import SFT
from teloi.methods.prefer.dpo import DPO


@dataclass(frozen=True)
class Twice(Recipe):
    reads = Preference
    beta: float = 0.1

    def stages(self):
        return (
            Make("some", "every other row", self.some),
            Train("sft", "imitate", "sft", lambda bench: SFT(), data="some", settings={"learning_rate": 1e-3}),
            Make("measured", "count the words", self.measured),
            Train("dpo", "prefer", "dpo", lambda bench: DPO(beta=self.beta), model="sft", data="some",
                  settings={"learning_rate": 1e-3}),
            Make("scores", "measure", self.scores),
        )

    def some(self, bench):
        return (row for number, row in enumerate(bench.rows()) if number % 2 == 0)

    def measured(self, bench):
        assert Path(bench.model("sft"), "model.safetensors").exists()
        time.sleep(0)
        return [{"words": len(row["prompt"].split())} for row in bench.rows("some")]

    def scores(self, bench):
        return [{"model": "dpo", "task": "words", "score": len(bench.rows("measured"))}]


@dataclass(frozen=True)
class Nothing(Twice):
    def some(self, bench):
        return []
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    write_rows(folder / "pairs.jsonl", pairs(4 * STEPS))
    (folder / "own.py").write_text(OWN)
    return folder


def words(out: Path, recipe: str = "Twice") -> list[str]:
    return [
        *("train", f"{out.parent / 'own.py'}:{recipe}", "--model", "scratch:tiny", "--batch-size", "2"),
        *("--data", str(out.parent / "pairs.jsonl"), "--output-dir", str(out), "--save-steps", "7"),
    ]


@pytest.fixture
def whole(work: Path, teloi: Teloi) -> Path:
    out = work / "whole"
    if not out.exists():
        assert teloi(*words(out)).status == 0
    return out


def steps_done(stage: Path) -> int:
    metrics = stage / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def test_a_recipe_leaves_a_checkpoint_and_its_stages(whole: Path, teloi: Teloi):
    assert same_weights(whole, whole / "stages" / "dpo")
    assert not same_weights(whole, whole / "stages" / "sft")
    assert {"config.json", "tokenizer.json", "README.md", "run.yaml"} <= {path.name for path in whole.iterdir()}
    assert len(records(whole / "stages" / "sft")) == len(records(whole / "stages" / "dpo")) == STEPS
    done = yaml.safe_load((whole / "run.yaml").read_text())["done"]
    assert done["steps"] == 2 * STEPS
    assert done["last"] == {"dpo words": 2 * STEPS}
    sft = yaml.safe_load((whole / "stages" / "sft" / "run.yaml").read_text())
    assert (sft["method"], sft["train"]["learning_rate"]) == ("sft", 1e-3)
    assert f"{whole} holds another run" in teloi(*words(whole)).error
    assert "is finished: there is nothing to resume" in teloi(*words(whole), "--resume").error
    # The checkpoint is one of transformers like any other.
    again = ("train", "sft", "--model", whole, "--data", whole.parent / "pairs.jsonl", "--max-steps", "1")
    assert teloi(*again, "--output-dir", whole.parent / "again").status == 0


MOMENTS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "inside the first training": ("0", lambda stages: 10 <= steps_done(stages / "sft") < STEPS),
    "between the trainings": (
        "600",
        lambda stages: (stages / "measured").exists() and not (stages / "measured" / "rows.jsonl").exists(),
    ),
    "inside the second training": ("0", lambda stages: 10 <= steps_done(stages / "dpo") < STEPS),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_recipe_goes_on_where_it_stopped(moment: str, work: Path, whole: Path, teloi: Teloi):
    out = work / moment
    slow, now = MOMENTS[moment]
    # How long a stage sleeps is a setting: a finished run of the same recipe would have another one.
    (out.parent / "own.py").write_text(OWN.replace("time.sleep(0)", f"time.sleep({slow})"))
    run = process(*words(out))
    deadline = time.monotonic() + 120
    while not now(out / "stages"):
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    run.kill()
    run.communicate()
    (out.parent / "own.py").write_text(OWN)
    assert not (out / "model.safetensors").exists()
    trained = out / "stages" / "sft" / "model.safetensors"
    before = trained.stat().st_mtime_ns if trained.exists() else None
    assert f"{out} holds another run" in teloi(*words(out)).error
    assert "beta was 0.1 and is 0.2" in teloi(*words(out), "--resume", "--beta", "0.2").error
    assert teloi(*words(out), "--resume").status == 0
    assert same_weights(out, whole)
    assert records(out / "stages" / "dpo") == records(whole / "stages" / "dpo")
    assert before in (None, trained.stat().st_mtime_ns)
    assert not list(out.glob("stages/*/checkpoints"))


def test_mistakes_are_told_in_a_line(work: Path, teloi: Teloi):
    refused = teloi(*words(work / "refused"), "--learning-rate", "1e-2")
    assert "--learning-rate differs between the stages of" in refused.error
    assert not (work / "refused").exists()
    assert "stage some has left no rows" in teloi(*words(work / "nothing", "Nothing")).error
    compared = teloi("compare", "sft", f"{work / 'own.py'}:Twice", "--data", work / "pairs.jsonl")
    assert "has no place among arms of one" in compared.error


def test_a_dry_run_tells_the_stages(work: Path, teloi: Teloi):
    told = teloi(*words(work / "dry"), "--dry-run")
    assert told.status == 0
    assert "1. some: every other row" in told.err + told.out
    assert "4. dpo: prefer" in told.err + told.out
    assert not (work / "dry").exists()


def test_tulu3_runs_on_nothing_of_ones_own(tmp_path: Path, teloi: Teloi):
    out = tmp_path / "tulu3"
    words = ["train", "tulu3", "--model", "scratch:tiny", "--output-dir", out, "--max-steps", "2", "--batch-size", "4"]
    words += ["--max-new-tokens", "6", "--eval-prompts", "4", "--limit", "30"]
    assert teloi(*words).status == 0
    for stage in ("sft", "dpo-norm", "rlvr"):
        assert len(records(out / "stages" / stage)) == 2
    assert same_weights(out, out / "stages" / "rlvr")
    scores = [json.loads(line) for line in (out / "stages" / "scores" / "rows.jsonl").read_text().splitlines()]
    assert [row["model"] for row in scores if row["task"] == "average"] == ["sft", "dpo-norm", "rlvr"]
    assert [row["model"] for row in scores if row["task"].startswith("unseen")] == ["rlvr", "rlvr"]
    for part in ("development", "unseen"):
        report = json.loads((out / "stages" / "clean" / f"{part}.json").read_text())
        assert (report["training rows"], report["kept"]) == (30, 30)


def test_tulu3_keeps_what_it_is_measured_on_out_of_training(tmp_path: Path, teloi: Teloi):
    asked = [f"Which of the seven rivers of country number {n} is longest and why?" for n in range(8)]
    rows = [{"prompt": text, "completion": " The first.", "ground_truth": "1"} for text in asked]
    write_rows(tmp_path / "train.jsonl", [{**rows[0], "prompt": f"{asked[0]} Say it in a word."}, *rows[1:]])
    write_rows(tmp_path / "test.jsonl", rows[:2])
    words = ["train", "tulu3", "--model", "scratch:tiny", "--data", tmp_path / "train.jsonl", "--reward", "gsm8k"]
    words += ["--max-steps", "1", "--batch-size", "2", "--max-new-tokens", "3", "--overlap", "0.5"]
    refused = teloi(*words, "--output-dir", tmp_path / "no")
    assert "held-out rows" in refused.error
    assert not (tmp_path / "no").exists()
    # Eight questions that differ in a word are all too near to two of them.
    said = teloi(*words, "--output-dir", tmp_path / "out", "--eval-data", tmp_path / "test.jsonl").error
    assert "stage clean has left no rows" in said
    write_rows(tmp_path / "more.jsonl", [*rows, {"prompt": "Count to 1.", "completion": " 1", "ground_truth": "1"}])
    words[words.index("--data") + 1] = tmp_path / "more.jsonl"
    said = teloi(*words, "--output-dir", tmp_path / "out", "--eval-data", tmp_path / "test.jsonl", "--overwrite").error
    assert "stage pairs has left no rows" in said
    kept = (tmp_path / "out" / "stages" / "clean" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in kept] == ["Count to 1."]
