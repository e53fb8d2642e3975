"""A run that a person can follow: samples, warnings and the report, and an end where a logged number asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.conftest import Teloi, pairs, process, records, same_weights, write_rows

REWARD = """
def vowels(prompts, completions, **columns):
    return [float(sum(letter in "aeiou" for letter in text)) for text in completions]
"""


@pytest.fixture
def online(tmp_path: Path) -> list[str]:
    """The words of a grpo run of some steps."""
    write_rows(tmp_path / "prompts.jsonl", pairs(24))
    (tmp_path / "reward.py").write_text(REWARD)
    return [
        *("train", "grpo", "--model", "scratch:tiny", "--data", str(tmp_path / "prompts.jsonl"), "--batch-size", "2"),
        *("--reward", f"{tmp_path / 'reward.py'}:vowels", "--k", "3", "--max-new-tokens", "5", "--max-steps", "24"),
        *("--num-train-epochs", "9", "--learning-rate", "1e-3", "--output-dir", str(tmp_path / "out")),
    ]


def test_an_online_run(online: list[str], tmp_path: Path):
    run = process(*online, "--kl", "0.01", "--stop-when", "kl > 100")
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 0, said
    out = tmp_path / "out"
    assert {"reward", "kl", "length", "entropy", "clipped", "truncated"} <= records(out)[0].keys()
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    steps = sorted({one["step"] for one in samples})
    assert (len(steps), steps[0], steps[-1]) == (11, 1, 24)
    prompts = {row["prompt"] for row in pairs(24)}
    for one in samples:
        assert one["prompt"] in prompts
        assert one["reward"] == sum(letter in "aeiou" for letter in one["completion"])
    # A model that has learnt nothing does not end its answers.
    assert said.count("warning: truncated-answers: ") == 1
    done = yaml.safe_load((out / "run.yaml").read_text())["done"]
    (warning,) = [one for one in done["warnings"] if one["name"] == "truncated-answers"]
    assert done["stopped"] is None
    card, report = (out / "README.md").read_text(), (out / "report.html").read_text()
    assert "## What it wrote at step 24 of its training" in card
    for page in (card, report):
        assert f"truncated-answers (step {warning['step']}): " in page
        assert "stopped because" not in page.lower()
    assert "What the policy writes" in report


def test_it_stops_where_a_number_says_so(online: list[str], teloi: Teloi, tmp_path: Path):
    answer = teloi(*online, "--stop-when", "reward > 1000 or length >= 1")
    assert answer.status == 0, answer.err
    out = tmp_path / "out"
    (record,) = records(out)
    said = f"length >= 1 (length was {record['length']:.4g} at step 1)"
    assert f"stopped because {said}" in answer.err
    run = yaml.safe_load((out / "run.yaml").read_text())
    assert (run["done"]["stopped"], run["done"]["steps"]) == (said, 1)
    assert run["train"]["stop_when"] == "reward > 1000 or length >= 1"
    assert f"Stopped because {said}." in (out / "README.md").read_text()
    assert (out / "model.safetensors").exists()
    again = teloi(*online, "--stop-when", "reward > 1000 or length >= 1", "--resume")
    assert again.error == f"{out} is finished: there is nothing to resume"


def test_a_reward_that_is_not_what_is_wanted_is_told(online: list[str], teloi: Teloi, tmp_path: Path):
    """The gold wants fewer of the letters that the policy is paid for; nothing is learnt from it."""
    (tmp_path / "gold.py").write_text(REWARD.replace("vowels", "few").replace("float(sum", "20.0 - float(sum"))
    flags = ("--max-steps", 60, "--num-train-epochs", 99, "--k", 8, "--learning-rate", "3e-3")
    answer = teloi(*online, *flags, "--gold", f"{tmp_path / 'gold.py'}:few")
    assert answer.status == 0, answer.err
    assert "warning: reward-hacking: gold has fallen from " in answer.err
    logged = records(tmp_path / "out")
    assert logged[-1]["reward"] > logged[0]["reward"]
    assert logged[-1]["gold"] < logged[0]["gold"]
    done = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["done"]
    assert "reward-hacking" in {one["name"] for one in done["warnings"]}


def test_the_last_samples_of_a_run_that_stops_are_kept(online: list[str], teloi: Teloi, tmp_path: Path):
    tokens = 400
    assert teloi(*online, "--stop-when", f"tokens > {tokens}").status == 0
    logged = records(tmp_path / "out")
    assert [record["tokens"] > tokens for record in logged] == [False] * (len(logged) - 1) + [True]
    last = json.loads((tmp_path / "out" / "samples.jsonl").read_text().splitlines()[-1])
    assert last["step"] == len(logged)


def test_a_number_that_is_not_logged_is_named(train: Teloi, data: Path, tmp_path: Path):
    error = train("sft", data, tmp_path / "out", "--stop-when", "kl > 10").error
    assert error.startswith("stop_when: no number 'kl' is logged here; there are step, tokens, loss")
    error = train("sft", data, tmp_path / "other", "--stop-when", "eval_loss < 1").error
    assert error == "stop_when: eval_loss is measured on held-out rows, and there is no eval_data"
    error = train("sft", data, tmp_path / "other", "--stop-when", "loss = 1").error
    assert "is not of the form" in error
    assert not (tmp_path / "other").exists()


def test_a_held_out_number_stops_too(train: Teloi, data: Path, tmp_path: Path):
    flags: list[Any] = ["--eval-data", data, "--eval-steps", 3, "--max-steps", 9]
    assert train("sft", data, tmp_path / "out", *flags, "--stop-when", "eval_loss < 100").status == 0
    assert len(records(tmp_path / "out")) == 3


def test_an_arm_of_a_comparison_stops(teloi: Teloi, data: Path, tmp_path: Path):
    words = ["compare", "sft", "sft:stop_when=tokens >= 200", "--model", "scratch:tiny", "--data", data]
    flags = ["--budget", "12 steps", "--batch-size", 4, "--seeds", 1, "--generate", 0, "--output-dir", tmp_path / "out"]
    assert (answer := teloi(*words, *flags)).status == 0, answer.err
    _, whole, early = json.loads((tmp_path / "out" / "results.json").read_text())["arms"]
    assert (whole["runs"][0]["ledger"]["steps"], "stopped" in whole["runs"][0]) == (12, False)
    assert 1 < early["runs"][0]["ledger"]["steps"] < 12
    assert early["runs"][0]["stopped"].startswith("tokens >= 200 (tokens was ")


class Killed(BaseException):
    """Nothing in the engine may catch it."""


@pytest.mark.parametrize("moment", ["teloi.engine.callbacks.Listeners.saved", "teloi.engine.train.export"])
def test_a_run_killed_before_or_as_it_stops_ends_in_the_same_bits(
    moment: str, train: Teloi, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flags = ("--max-steps", 20, "--num-train-epochs", 9, "--learning-rate", 1e-2, "--stop-when", "tokens > 700")
    assert train("dpo", data, tmp_path / "whole", *flags).status == 0
    steps = len(records(tmp_path / "whole"))
    assert 2 < steps < 20

    def die(*args: Any, **named: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(moment, die)
        with pytest.raises(Killed):
            train("dpo", data, tmp_path / "out", *flags, "--save-steps", 2)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    answer = train("dpo", data, tmp_path / "out", *flags, "--resume")
    assert f"resumed after step {2 if 'saved' in moment else steps}" in answer.err
    assert same_weights(tmp_path / "out", tmp_path / "whole")
    assert records(tmp_path / "out") == records(tmp_path / "whole")
    one, other = (yaml.safe_load((tmp_path / name / "run.yaml").read_text())["done"] for name in ("out", "whole"))
    assert one["stopped"] == other["stopped"] is not None
