"""The real command on small data: in this process where only its answer counts, as a process where its death does."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from teloi.cli import main

WORDS = ["red", "green", "blue", "cat", "dog", "tree", "house", "river", "stone", "light", "bread", "window"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached between runs of a test session stays in it."""
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line by which a mistake is explained, after whatever was said before it."""
        assert self.status == 2, self.err
        assert "Traceback" not in self.err
        said = self.err.splitlines()
        assert [line for line in said if line.startswith("teloi: error: ")] == said[-1:], self.err
        return said[-1].removeprefix("teloi: error: ")


Teloi = Callable[..., Answer]


@pytest.fixture
def teloi(capsys: pytest.CaptureFixture[str]) -> Teloi:
    """The command in this process."""

    def run(*words: object) -> Answer:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:  # how tyro leaves after --help and after a flag that does not parse
            status = int(end.code or 0)
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def train(teloi: Teloi) -> Teloi:
    """`teloi train METHOD --data DATA --output-dir OUT ...` from a tiny model with random weights, two steps of four
    rows unless other flags say otherwise."""

    def run(method: object, data: object, out: object, *flags: object) -> Answer:
        words = ["train", method, "--data", data, "--output-dir", out, *flags]
        for flag, value in (("--model", "scratch:tiny"), ("--batch-size", 4), ("--max-steps", 2)):
            if flag not in flags:
                words += [flag, value]
        return teloi(*words)

    return run


@pytest.fixture
def refused(train: Teloi, tmp_path: Path) -> Callable[..., str]:
    """Runs a training that must be refused without a trace; gives the line that says why."""

    def run(method: object, data: object, *flags: object, out: Path = tmp_path / "out") -> str:
        before = contents(tmp_path)
        error = train(method, data, out, *flags).error
        assert contents(tmp_path) == before
        return error

    return run


def process(*words: object) -> subprocess.Popen[str]:
    """The command as a process of its own, with as many threads as this one."""
    return subprocess.Popen(
        [sys.executable, "-m", "teloi", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


def pairs(count: int) -> list[dict[str, Any]]:
    """Preferences between a few words; no two rows are alike."""
    draw = random.Random(0)

    def some(most: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, most)))

    return [
        {"prompt": f"{some(6)} {n}?", "chosen": f" {some(8)}.", "rejected": f" {some(8)} {n}!"} for n in range(count)
    ]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty preferences."""
    return write_rows(tmp_path / "pairs.jsonl", pairs(40))


def records(out: Path) -> list[dict[str, float]]:
    """The logged steps of a run."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, Tensor]:
    """The trained model."""
    return load_file(out / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    """Whether two trained models are equal bit for bit."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def contents(directory: Path) -> dict[str, bytes | None]:
    """Everything below a directory: a test compares it before and after."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }
