"""Claims as processes: paired, resumable, and clear when something breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from teloi.claims import running
from teloi.claims.claim import judge
from teloi.claims.running import Settings, run
from teloi.errors import TeloiError, UsageError
from tests.claims.tiny import CLAIM

TINY = "tests.claims.tiny"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tiny claim runs and logs; workers find `tests` below the repository."""
    monkeypatch.setenv("TINY_CLAIM", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


@pytest.fixture
def measure(directory: Path) -> Callable[..., dict[str, Any]]:
    return lambda **settings: run(TINY, Settings(directory=directory / "runs", **settings), "teloi claim tiny")


def lines(directory: Path) -> list[list[str]]:
    return [line.split() for line in (directory / "log").read_text().splitlines()]


def test_two_at_a_time_with_a_thread_each(directory: Path, measure: Callable[..., dict[str, Any]]):
    result = measure()
    done = lines(directory)
    assert sorted(line[:2] for line in done) == sorted(
        [arm, str(seed)] for arm in ("None", "old", "new", "noise") for seed in range(5)
    )
    assert len({pid for *_, pid, _ in done}) == 2
    assert str(os.getpid()) not in {pid for *_, pid, _ in done}
    assert {threads for *_, threads in done} == {"1"}
    for seed in "01234":  # what a seed's arms share comes before them
        assert next(line[0] for line in done if line[1] == seed) == "None"
    assert result["verdict"] == "reproduced"
    assert [one["finding"] for one in result["expectations"]] == ["holds", "contradicted"]
    assert all(check["passed"] for check in result["checks"])
    json.dumps(result, allow_nan=False)


def test_results_hold_every_seed_and_give_the_verdict_again(measure: Callable[..., dict[str, Any]]):
    result = json.loads(json.dumps(measure(jobs=3)))
    assert result["seeds"] == [0, 1, 2, 3, 4]
    for arm in result["arms"]:
        assert [r["seed"] for r in arm["runs"]] == result["seeds"]
        # Paired: every arm of a seed saw the level that its preparation drew.
        levels = [r["details"]["level"] for r in arm["runs"]]
        assert levels == [r["details"]["level"] for r in result["arms"][0]["runs"]]
        assert all(r["metrics"]["lost"] is None for r in arm["runs"])
    again = judge(CLAIM, running.values(result["arms"]), result["seeds"])
    assert again.verdict == result["verdict"]
    assert json.loads(json.dumps(running.judged(again))) == {n: result[n] for n in ("expectations", "checks")}


def test_the_same_numbers_however_it_is_run(directory: Path, measure: Callable[..., dict[str, Any]]):
    def numbers(result: dict[str, Any]) -> list[Any]:
        return [(arm["name"], r["seed"], r["metrics"]) for arm in result["arms"] for r in arm["runs"]]

    together = numbers(measure(jobs=2))
    alone = [
        pair for seed in range(5)
        for pair in numbers(run(TINY, Settings(quick=True, seeds=(seed,), directory=directory / "other")))
    ]  # fmt: skip
    assert sorted(together, key=str) == sorted(alone, key=str)


def test_quick_and_other_seeds_are_trials(directory: Path, measure: Callable[..., dict[str, Any]]):
    quick = measure(quick=True)
    assert (quick["verdict"], quick["seeds"]) == (None, [0])
    assert {pid for *_, pid, _ in lines(directory)} == {str(os.getpid())}
    assert measure(seeds=(7, 8), jobs=1)["verdict"] is None
    assert measure(seeds=(0, 1, 2, 3), jobs=1)["verdict"] is None


def test_what_has_run_is_not_run_again(directory: Path, measure: Callable[..., dict[str, Any]]):
    first = measure(seeds=(0, 1), jobs=1)
    (directory / "log").unlink()
    next((directory / "runs").rglob("seed-1/new.json")).unlink()
    second = measure(seeds=(0, 1, 2), jobs=1)
    assert sorted(line[:2] for line in lines(directory)) == sorted(
        [["new", "1"], *([arm, "2"] for arm in ("None", "old", "new", "noise"))]
    )
    kept = [[r["metrics"] for r in arm["runs"][:2]] for arm in second["arms"]]
    assert kept == [[r["metrics"] for r in arm["runs"]] for arm in first["arms"]]


def test_a_changed_claim_starts_anew(
    directory: Path, measure: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    measure(quick=True)
    monkeypatch.setattr(running, "file_hash", lambda module: "another")
    assert measure(quick=True)["hash"] == "another"
    assert len(lines(directory)) == 8


def test_a_killed_claim_goes_on_and_leaves_no_process(directory: Path, measure: Callable[..., dict[str, Any]]):
    (directory / "slow").touch()
    code = f"from teloi.claims.running import *; run({TINY!r}, Settings(directory=Path({str(directory / 'runs')!r})))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        log = directory / "log"

        def both_are_at_work() -> bool:
            there = lines(directory) if log.exists() else []
            return any(line[:2] == ["new", "1"] for line in there) and len({line[2] for line in there}) == 2

        until(both_are_at_work)
        process.send_signal(signal.SIGKILL)
    finished = {path.relative_to(directory) for path in directory.rglob("runs/**/*.json")}
    workers = {int(line[2]) for line in lines(directory)}
    busy = next(int(line[2]) for line in lines(directory) if line[:2] == ["new", "1"])
    until(lambda: not any(alive(pid) for pid in workers - {busy}))  # idle ones see that nobody is there
    os.kill(busy, signal.SIGKILL)  # this one would sleep on for a minute first
    (directory / "slow").unlink()
    log.unlink()
    assert measure()["verdict"] == "reproduced"
    assert len(lines(directory)) == 20 - len(finished)


def test_a_loss_that_is_no_number_is_a_result(directory: Path, measure: Callable[..., dict[str, Any]]):
    (directory / "non-finite").touch()
    result = measure()
    new = next(arm for arm in result["arms"] if arm["name"] == "new")
    assert [r["failed"] for r in new["runs"]].count(None) == 4
    assert result["expectations"][0]["missing"] == [1]
    assert result["expectations"][0]["finding"] == "open"
    assert result["verdict"] == "inconclusive"


def test_a_collapsed_run_counts(directory: Path, measure: Callable[..., dict[str, Any]]):
    (directory / "collapse").touch()
    result = measure()
    assert [r["collapsed"] for r in result["arms"][1]["runs"]] == [None, None, "it babbles", None, None]
    assert result["expectations"][0]["missing"] == []


@pytest.mark.parametrize(
    ("trouble", "error", "says"),
    [
        ("no data", TeloiError, "^new, seed 1: there is no data: fetch some$"),
        ("bug", RuntimeError, "(?s)^new, seed 1 failed.*ZeroDivisionError"),
        ("death", RuntimeError, "^the process of new, seed 1 ended without a word"),
    ],
)
def test_trouble_ends_the_claim(
    directory: Path, measure: Callable[..., dict[str, Any]], trouble: str, error: type[Exception], says: str
):
    (directory / trouble).touch()
    with pytest.raises(error, match=says):
        measure()
    until(lambda: not any(alive(int(line[2])) for line in lines(directory)))
    (directory / trouble).unlink()
    assert measure()["verdict"] == "reproduced"


def test_settings_that_mean_nothing():
    for settings in ({"jobs": 0}, {"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)}):
        with pytest.raises(UsageError):
            replace(Settings(), **settings)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
