"""A stranger's objective in a file of their own works like a built-in one, and its failures are kept for inspection."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, PretrainedConfig

from teloi.engine.arms import Prepared
from teloi.methods.prefer.dpo import DPO
from teloi.models.scratch import train_tokenizer
from tests.end_to_end.conftest import Teloi, contents, pairs, process, records, weights, write_rows

ROOT = Path(__file__).parents[2]
MINE = (ROOT / "docs/write_your_own.py").read_text()

BREAKS = '''
from dataclasses import dataclass

from teloi import Term
from teloi.methods.finetune.sft import SFT


@dataclass(frozen=True)
class Breaks(SFT):
    """Supervised fine-tuning whose loss is not a number from its third step on."""

    def loss(self, models, batch, now):
        nll = super().loss(models, batch, now)["nll"]
        return {"nll": Term(nll.values * (float("nan") if now.step >= 2 else 1.0), per="tokens")}
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path / 'mine.py'}:RankAndImitate"


@pytest.fixture
def breaks(tmp_path: Path) -> str:
    (tmp_path / "breaks.py").write_text(BREAKS)
    return f"{tmp_path / 'breaks.py'}:Breaks"


def test_it_is_short_and_the_readme_shows_it():
    assert len(MINE.splitlines()) < 40
    assert MINE.partition('"""\n\n')[2] in (ROOT / "README.md").read_text()


def test_it_trains(mine: str, data: Path, train: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    flags = ("--scale", 3, "--max-steps", 20, "--learning-rate", "1e-2", "--eval-data", data)
    assert train(mine, data, out, *flags).status == 0
    steps = records(out)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[0]["loss"] == pytest.approx(steps[0]["rank"] + 0.1 * steps[0]["nll"])
    assert "eval_rank" in steps[-1]
    run = yaml.safe_load((out / "run.yaml").read_text())
    assert (run["method"], run["objective"]) == (mine, {"scale": 3.0, "imitation": 0.1})
    assert run["train"]["learning_rate"] == 1e-2
    assert AutoModelForCausalLM.from_pretrained(out)
    assert "trained from scratch with" in (out / "README.md").read_text().lower()


def test_its_hyperparameters_are_flags_with_help(mine: str, teloi: Teloi):
    answer = teloi("train", mine, "--help")
    assert answer.status == 0
    said = " ".join(answer.out.replace("│", " ").split())
    assert "--scale FLOAT How sharply the two sides are told apart. (default: 2.0)" in said
    assert "--imitation" in said
    assert "(default: 2e-05)" in said  # its own learning rate
    page = teloi("show", mine)
    assert page.status == 0
    assert "-log sigmoid(scale" in page.out


def test_a_setting_without_a_default_must_be_given(data: Path, train: Teloi, teloi: Teloi, tmp_path: Path):
    (tmp_path / "needs.py").write_text(MINE.replace("scale: float = 2.0", "scale: float"))
    needs = f"{tmp_path / 'needs.py'}:RankAndImitate"
    assert "--scale (to be given)" in " ".join(teloi("show", needs).out.split())
    answer = train(needs, data, tmp_path / "out")
    assert answer.status == 2
    assert "--scale" in answer.err
    assert train(needs, data, tmp_path / "out", "--scale", 1).status == 0


def test_a_setting_of_every_run_is_no_hyperparameter(data: Path, train: Teloi, tmp_path: Path):
    (tmp_path / "twice.py").write_text(MINE.replace("imitation", "seed"))
    error = train(f"{tmp_path / 'twice.py'}:RankAndImitate", data, tmp_path / "out").error
    assert "both have a setting 'seed'" in error


def test_a_saved_run_of_it_is_repeated(mine: str, data: Path, train: Teloi, teloi: Teloi, tmp_path: Path):
    (tmp_path / "mine.py").write_text(MINE.replace("scale: float = 2.0", "scales: tuple[float, ...] = (1.0, 2.0)")
                                      .replace("self.scale *", "sum(self.scales) *"))  # fmt: skip
    assert train(mine, data, tmp_path / "out", "--scales", 1, 0.5).status == 0
    assert teloi("train", "--config", tmp_path / "out" / "run.yaml", "--output-dir", tmp_path / "again").status == 0
    assert records(tmp_path / "out") == records(tmp_path / "again")


# -- a loss that is not finite


def test_a_loss_that_is_no_number_keeps_batch_and_checkpoint(breaks: str, data: Path, train: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    flags = ("--save-steps", 1, "--max-steps", 5, "--learning-rate", 1e-3)
    error = train(breaks, data, out, *flags).error
    batch = out / "failed-step-3.safetensors"
    assert f"the loss is not finite at step 3; its batch is saved as {batch}" in error
    with safe_open(batch, "np") as saved:
        names = list(saved.keys())
        assert all(saved.get_tensor(name).size for name in names)
    assert len({name.partition(".")[0] for name in names}) == 4  # the rows of the step
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    assert [record["step"] for record in records(out)] == [1, 2]
    assert all(math.isfinite(value) for record in records(out) for value in record.values())
    assert not (out / "model.safetensors").exists()
    # Once the objective is mended the run goes on from there.
    Path(breaks.partition(":")[0]).write_text(BREAKS.replace('float("nan")', "1.0"))
    assert train(breaks, data, out, *flags, "--resume").status == 0
    assert train("sft", data, tmp_path / "sft", *flags).status == 0
    assert records(out) == records(tmp_path / "sft")
    assert all((weights(out)[name] == tensor).all() for name, tensor in weights(tmp_path / "sft").items())


def test_a_process_whose_loss_is_no_number_ends_with_status_2(breaks: str, data: Path, tmp_path: Path):
    words = ("train", breaks, "--model", "scratch:tiny", "--data", data, "--output-dir", tmp_path / "out")
    command = process(*words, "--batch-size", 4)
    _, err = command.communicate(timeout=120)
    assert command.returncode == 2
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("teloi: error: the loss is not finite at step 3")


# -- in a comparison


COMPARE = ("--model", "scratch:tiny", "--budget", "300", "--seeds", 2, "--generate", 4, "--max-new-tokens", 8)


def test_arms_of_a_comparison(mine: str, breaks: str, data: Path, teloi: Teloi, tmp_path: Path):
    out = tmp_path / "compared"
    words = ("compare", "sft", "dpo", f"{mine}:scale=1", breaks, "--data", data, *COMPARE, "--batch-size", 4)
    answer = teloi(*words, "--output-dir", out)
    assert answer.status == 0, answer.err
    results = json.loads((out / "results.json").read_text())
    arms = {arm["name"]: arm for arm in results["arms"]}
    assert list(arms) == ["base", "sft", "dpo", "RankAndImitate:scale=1", "Breaks"]
    for arm in list(arms.values())[1:]:
        assert [run["seed"] for run in arm["runs"]] == [0, 1]
    for name in ("sft", "dpo", "RankAndImitate:scale=1"):
        for run in arms[name]["runs"]:
            assert run["failed"] is None
            assert 150 < run["ledger"]["trained_tokens"] <= 300
            assert run["metrics"].keys() == {metric["name"] for metric in results["metrics"]}
    assert arms["RankAndImitate:scale=1"]["settings"]["scale"] == 1.0
    for run in arms["Breaks"]["runs"]:
        assert "the loss is not finite at step 3" in run["failed"]
        assert [record["step"] for record in run["curve"]] == [1, 2]
    assert arms["base"]["runs"][0]["metrics"]["preference_accuracy"] == 0.5
    assert results["metrics"][0]["name"] == "preference_accuracy"
    assert set(results["samples"][0]["replies"]) == {"base", "sft", "dpo", "RankAndImitate:scale=1"}
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "RankAndImitate:scale=1" in (out / "report.html").read_text()
    assert "RankAndImitate:scale=1" in answer.out
    assert "fail" in answer.out
    # The same command again: refused, unless asked, and then the same numbers come out.
    before = contents(out)
    assert "--overwrite" in teloi(*words, "--output-dir", out).error
    assert contents(out) == before
    assert teloi(*words, "--output-dir", out, "--overwrite").status == 0
    again = json.loads((out / "results.json").read_text())
    for arm in again["arms"]:
        for one, other in zip(arm["runs"], arms[arm["name"]]["runs"], strict=True):
            assert (one["metrics"], one["curve"]) == (other["metrics"], other["curve"])


def test_an_interrupted_comparison_goes_on(data: Path, teloi: Teloi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def command(out: str, *flags: object) -> tuple[object, ...]:
        return ("compare", "sft", "dpo", "--data", data, *COMPARE, "--jobs", 1, "--output-dir", tmp_path / out, *flags)

    def outcome(out: str) -> dict[str, list[object]]:
        arms = json.loads((tmp_path / out / "results.json").read_text())["arms"]
        return {arm["name"]: [(run["metrics"], run["curve"]) for run in arm["runs"]] for arm in arms}

    run = Prepared.run

    def ends(self: Prepared, seed: int, *others: Any) -> object:
        if (type(self.objective), seed) == (DPO, 0):
            raise KeyboardInterrupt
        return run(self, seed, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Prepared, "run", ends)
        answer = teloi(*command("out"))
    assert answer.status == 130
    assert "--resume goes on" in answer.err
    assert [len(runs) for runs in outcome("out").values()] == [1, 2, 0]
    assert "an arm" in teloi(*command("out", "--resume")[:2], "ipo", *command("out", "--resume")[3:]).error
    assert "another budget" in teloi(*command("out", "--resume", "--budget", 200)).error
    resumed = teloi(*command("out", "--resume"))
    assert resumed.status == 0, resumed.err
    assert "2 runs are there already" in resumed.err
    assert teloi(*command("whole")).status == 0
    assert outcome("out") == outcome("whole")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--metric", "checks"], "no metric 'checks' on these rows: choose one of preference_accuracy"),
        (["--metric", "joy"], "no metric 'joy' on these rows"),
        (["--eval-data", "none.jsonl"], "none.jsonl: no such file"),
        (["--model", "./none"], "./none does not exist"),
        (["--max-length", "3"], "pairs.jsonl: no rows are left"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_comparison_that_cannot_be(flags: list[str], says: str, data: Path, teloi: Teloi, tmp_path: Path):
    before = contents(tmp_path)
    words = ["compare", "sft", "dpo", "--data", data, *COMPARE, "--output-dir", tmp_path / "out"]
    assert says in teloi(*words, *flags).error
    assert contents(tmp_path) == before


def test_what_one_arm_cannot_use_is_found_before_another_trains(teloi: Teloi, tmp_path: Path):
    rows = [{"prompt": "a", "completion": f" {n}", "label": True} for n in range(20)]
    data = write_rows(tmp_path / "one.jsonl", rows)
    before = contents(tmp_path)
    error = teloi("compare", "sft", "kto", "--data", data, *COMPARE, "--output-dir", tmp_path / "out").error
    assert "at least two different prompts" in error
    assert contents(tmp_path) == before


def test_a_bad_row_among_the_held_out_is_named(teloi: Teloi, data: Path, tmp_path: Path):
    rows = pairs(4)
    rows[2]["rejected"] = rows[2]["chosen"]
    held_out = write_rows(tmp_path / "held-out.jsonl", rows)
    words = ("--data", data, "--eval-data", held_out, *COMPARE, "--output-dir", tmp_path / "out")
    assert teloi("compare", "sft", "dpo", *words).error.startswith("held-out.jsonl row 3: 'chosen' and 'rejected' are")


@pytest.mark.parametrize("name", ["padded only", "short context"])
def test_other_architectures_are_compared(name: str, teloi: Teloi, data: Path, tmp_path: Path):
    tokenizer = train_tokenizer([json.dumps(row) for row in pairs(40)], 300)
    torch.manual_seed(0)
    config: PretrainedConfig = BloomConfig(hidden_size=32, n_layer=1, n_head=4, vocab_size=len(tokenizer))
    if name == "short context":  # without room for every prompt and its reply
        config = GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=24, vocab_size=len(tokenizer))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    words = ("compare", "sft", "simpo", "--data", data, *COMPARE, "--seeds", 1, "--model", tmp_path / "model")
    answer = teloi(*words, "--output-dir", tmp_path / "out")
    assert answer.status == 0, answer.err


def test_too_few_rows_to_hold_some_out(teloi: Teloi, data: Path, tmp_path: Path):
    error = teloi("compare", "sft", "dpo", "--data", data, *COMPARE, "--limit", 5, "--output-dir", tmp_path / "o").error
    assert "pairs.jsonl: 5 rows are too few to hold a tenth out: give --eval-data" in error
