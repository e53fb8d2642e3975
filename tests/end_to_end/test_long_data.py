"""Rows and examples in a file instead of memory: the same runs, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from teloi.data import store
from tests.end_to_end.conftest import Teloi, pairs, records, same_weights, write_rows

METHODS = ("sft", "dpo", "kto", "clm", "grpo", "in-batch", "mlm", "span-corruption")


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_same(method: str, train: Teloi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{**row, "checks": [{"kind": "max_words", "count": 3}]} for row in pairs(40)]
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    held_out = write_rows(tmp_path / "held-out.jsonl", rows[:9])
    flags = ["--eval-data", held_out, "--learning-rate", 1e-2, "--max-steps", 3, "--num-train-epochs", 9]
    if method == "grpo":
        flags += ["--k", 2, "--max-new-tokens", 4]
    for name, items in (("memory", 5000), ("file", 4)):
        monkeypatch.setattr(store, "IN_MEMORY", items)
        monkeypatch.setenv("TELOI_CACHE", str(tmp_path / f"{name} cache"))
        answer = train(method, data, tmp_path / name, *flags)
        assert answer.status == 0, answer.err
    assert same_weights(tmp_path / "memory", tmp_path / "file")
    assert records(tmp_path / "memory") == records(tmp_path / "file")
    one, other = (yaml.safe_load((tmp_path / name / "run.yaml").read_text()) for name in ("memory", "file"))
    assert one["data"] == other["data"]


def test_a_bad_row_far_down_is_named_before_anything_trains(refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "IN_MEMORY", 4)
    rows = pairs(40)
    del rows[33]["chosen"]
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    assert refused("sft", data).startswith("pairs.jsonl row 34: column 'chosen' is missing")
