"""Bad input gets one line that names file, row and remedy, and status 2; nothing is written, nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.conftest import Teloi, contents, pairs, process, records, write_rows

GOOD = pairs(3)


def row(**changes: object) -> bytes:
    changed = {name: value for name, value in {**GOOD[0], **changes}.items() if value is not ...}
    return json.dumps(changed).encode()


BAD_ROWS = {
    "broken JSON": (b'{"prompt": "a", "chosen"}', "not valid JSON"),
    "no object": (b'["a", "b"]', "not an object"),
    "not UTF-8": (b'{"prompt": "caf\xe9", "chosen": "a", "rejected": "b"}', "save the file as UTF-8"),
    "column missing": (row(rejected=...), "column 'rejected' is missing; this method reads preference rows (prompt,"),
    "column empty": (row(chosen=" "), "column 'chosen' is empty"),
    "column null": (row(chosen=None), "column 'chosen' is empty"),
    "wrong type": (row(chosen=3), "column 'chosen' is a number (3), neither text nor a list of messages"),
    "equal sides": (row(rejected=GOOD[0]["chosen"]), "'chosen' and 'rejected' are equal"),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_is_named(bad: str, refused, tmp_path: Path):
    line, says = BAD_ROWS[bad]
    data = tmp_path / "bad.jsonl"
    data.write_bytes(b"\n".join([row(), row(), line, row()]) + b"\n")
    error = refused("dpo", data)
    assert error.startswith("bad.jsonl row 3: ")
    assert says in error


@pytest.mark.parametrize("flag", ["--data", "--eval-data"])
def test_a_missing_file_is_named(flag: str, data: Path, refused, tmp_path: Path):
    error = refused("dpo", data, flag, tmp_path / "none.jsonl")
    assert f"{tmp_path / 'none.jsonl'}: no such file" in error


def test_a_bad_row_of_the_held_out_data_is_named(data: Path, refused, tmp_path: Path):
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_bytes(row() + b"\n" + row(chosen="") + b"\n")
    assert refused("dpo", data, "--eval-data", held_out).startswith("held-out.jsonl row 2: column 'chosen' is empty")


def test_columns_that_the_method_cannot_use_say_which_it_can(refused, tmp_path: Path):
    data = write_rows(tmp_path / "x.jsonl", [{"question": "a", "answer": "b"}] * 3)
    error = refused("dpo", data)
    assert error.startswith("x.jsonl row 1: column 'prompt' is missing")
    assert "preference rows (prompt, chosen, rejected)" in error


def test_an_empty_file_is_named(refused, tmp_path: Path):
    assert refused("dpo", write_rows(tmp_path / "empty.jsonl", [])).startswith("empty.jsonl: no rows")


def test_no_rows_left(data: Path, refused):
    error = refused("dpo", data, "--max-length", 3)
    assert "pairs.jsonl: no rows are left, all 40 are longer than 3 tokens" in error
    assert "--max-length" in error
    assert "--overlong truncate" in error


def test_text_without_a_token_to_learn_from(refused, tmp_path: Path):
    data = tmp_path / "plain.txt"
    data.write_text("only text\n")
    assert refused("sft", data).startswith("plain.txt row 1: sft learns from answers; plain text")


def test_kto_with_a_single_prompt(refused, tmp_path: Path):
    data = write_rows(tmp_path / "one.jsonl", [{"prompt": "a", "completion": "b", "label": True}] * 4)
    assert "at least two different prompts" in refused("kto", data)


# -- longer than the context


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Six pairs, two of which are far longer than 64 tokens."""
    rows = pairs(6)
    for number in (1, 4):
        rows[number]["chosen"] = rows[number]["chosen"] * 40
    return write_rows(tmp_path / "mixed.jsonl", rows)


@pytest.mark.parametrize(("policy", "examples"), [("drop", 4), ("truncate", 6)])
def test_longer_than_the_context_is_counted(policy: str, examples: int, mixed: Path, train: Teloi, tmp_path: Path):
    answer = train("dpo", mixed, tmp_path / "out", "--max-length", 64, "--overlong", policy)
    assert answer.status == 0
    done = {"drop": "dropped", "truncate": "truncated"}[policy]
    assert f"{examples} examples" in answer.err
    assert f"2 longer than the context {done}" in answer.err
    run = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())
    assert run["data"]["rows"] == 6
    assert run["data"]["examples"] == examples
    assert run["done"]["overlong"] == {"rows": 2}


def test_longer_than_the_context_is_refused(mixed: Path, refused):
    error = refused("dpo", mixed, "--max-length", 64, "--overlong", "fail")
    assert error.startswith("mixed.jsonl row 2: ")
    assert "exceed the context of 64" in error
    assert "--overlong drop or truncate" in error


# -- methods, settings, models


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--budget", "lots"], "budget 'lots' is not of the form 200k, 1.5M tokens, 300 rows or 50 steps"),
        (["--budget", "9" * 400], "is not of the form"),
        (["--beta", "-1"], "beta must be above 0, not -1.0"),
        (["--beta", "inf"], "beta must be above 0, not inf"),
        (["--label-smoothing", "0.5"], "label_smoothing must lie in [0, 0.5), not 0.5"),
        (["--learning-rate", "0"], "learning_rate must be above 0, not 0.0"),
        (["--learning-rate", "nan"], "learning_rate must be above 0, not nan"),
        (["--num-train-epochs", "inf"], "num_train_epochs must be above 0, not inf"),
        (["--max-steps", "0"], "max_steps must be at least 1, not 0"),
        (["--warmup-ratio", "2"], "warmup_ratio must lie between 0 and 1, not 2.0"),
        (["--weight-decay", "-1"], "weight_decay must not be below 0: -1.0"),
        (["--adam-beta2", "1"], "adam_beta2 must lie in [0, 1), not 1.0"),
        (["--seed", "-1"], "seed must not be below 0: -1"),
        (["--lora-alpha", "0"], "lora_alpha must be at least 1, not 0"),
        (["--lr-scheduler-type", "lineal"], "there is no schedule 'lineal': lr_scheduler_type is one of linear"),
        (["--max-length", "1"], "a context of 1 tokens holds no prompt and completion"),
        (["--report-to", "nobody"], "--report-to nobody: nobody is not supported, only "),
        (["--resume", "--overwrite"], "choose one"),
        (["--model", "scratch:huge"], "no scratch model 'huge': choose one of tiny, small, base"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_settings_out_of_range(flags: list[str], says: str, data: Path, refused):
    assert says in refused("dpo", data, *flags)


def test_an_unknown_method_gets_the_nearest_names(data: Path, refused):
    assert "there is no method 'dppo'; did you mean ppo or dpo" in refused("dppo", data)


def test_a_directory_that_is_no_model(data: Path, refused, tmp_path: Path):
    (tmp_path / "model").mkdir()
    assert f"{tmp_path / 'model'} " in refused("dpo", data, "--model", tmp_path / "model")
    assert "does not exist" in refused("dpo", data, "--model", tmp_path / "none")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert str(tmp_path / "model") in refused("dpo", data, "--model", tmp_path / "model")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "0"], "seeds must be at least 1, not 0"),
        (["--eval-limit", "0"], "eval_limit must be at least 1, not 0"),
        (["--generate", "-1"], "generate must be at least 0, not -1"),
        (["--max-new-tokens", "0"], "max_new_tokens must be at least 1, not 0"),
        (["--budget", "0"], "budget '0' is not of the form"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_of_a_comparison_out_of_range(words: list[str], says: str, teloi: Teloi):
    assert says in teloi("compare", "sft", "dpo", *words).error


# -- output directories


def test_an_empty_directory_is_used(data: Path, train: Teloi, tmp_path: Path):
    (tmp_path / "out").mkdir()
    assert train("sft", data, tmp_path / "out").status == 0
    assert len(records(tmp_path / "out")) == 2


def test_another_run_is_not_overwritten_unless_asked(data: Path, train: Teloi, refused, tmp_path: Path):
    out = tmp_path / "out"
    assert train("sft", data, out).status == 0
    (out / "notes.txt").write_text("from before")
    error = refused("dpo", data)
    assert f"{out} holds another run" in error
    assert all(flag in error for flag in ("--output-dir", "--resume", "--overwrite"))
    # What is wrong with the new run is found while the old one is still there.
    assert "beta" in refused("dpo", data, "--overwrite", "--beta", -1)
    assert "does not exist" in refused("dpo", data, "--overwrite", "--model", tmp_path / "none")
    assert "only" in refused("dpo", data, "--overwrite", "--report-to", "nobody")
    assert train("dpo", data, out, "--overwrite").status == 0
    assert yaml.safe_load((out / "run.yaml").read_text())["method"] == "dpo"
    assert not (out / "notes.txt").exists()


@pytest.mark.parametrize("file", ["thesis.txt", "run.yaml"])
@pytest.mark.parametrize("flag", [[], ["--overwrite"], ["--resume"]], ids=str)
def test_what_teloi_did_not_make_is_never_touched(file: str, flag: list[str], data: Path, refused, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / file).write_text("lr: 3\n")
    error = refused("dpo", data, *flag, out=tmp_path / "mine")
    assert f"{tmp_path / 'mine'} holds something else than a run" in error
    assert "choose another --output-dir" in error


@pytest.mark.parametrize("flag", [[], ["--overwrite"], ["--resume"]], ids=str)
def test_a_file_in_the_way(flag: list[str], data: Path, refused, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        error = refused("dpo", data, *flag, out=out)
        assert f"{tmp_path / 'file'} is a file: choose another --output-dir" in error


def test_comparisons_keep_to_their_own_directories(data: Path, teloi: Teloi, tmp_path: Path):
    compare = ("compare", "sft", "dpo", "--model", "scratch:tiny", "--data", data, "--overwrite", "--output-dir")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    before = contents(tmp_path)
    assert "holds no comparison: choose another --output-dir" in teloi(*compare, tmp_path / "mine").error
    assert "is a file: choose another --output-dir" in teloi(*compare, data).error
    assert contents(tmp_path) == before


def test_a_process_ends_with_status_2_and_one_line(tmp_path: Path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"\n')
    command = process("train", "dpo", "--data", tmp_path / "bad.jsonl", "--output-dir", tmp_path / "out")
    out, err = command.communicate(timeout=120)
    assert (command.returncode, out) == (2, "")
    assert err.startswith("teloi: error: bad.jsonl row 1: not valid JSON")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
