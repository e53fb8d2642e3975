"""Every benchmark says what it does, and what comes out of one is sane."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.__main__ import ORDER, markdown
from benchmarks.harness import Benchmark, Case, Check, Side

ROOT = Path(harness.__file__).parents[1]


def benchmark(name: str) -> Benchmark:
    found: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return found


def tiny(name: str, path: Path, *words: str) -> dict[str, Any]:
    """The result of a benchmark on tiny models, run from its command."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--tiny", "--json", str(path / f"{name}.json"), *words]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    result: dict[str, Any] = json.loads((path / f"{name}.json").read_text())
    return result


def assert_sane(result: dict[str, Any]) -> None:
    assert result["cases"]
    for case in result["cases"]:
        for side in case["sides"].values():
            found = side["medians"]
            assert 0 < found["seconds"] < 600
            assert found["cpu_seconds"] > 0
            assert 1e6 < found["peak_bytes"] < 1e11
            assert found["rate"] == pytest.approx(found["amount"] / found["seconds"])
        assert case["met"].keys() == case["targets"].keys()
    assert all(check["largest_difference"] <= check["tolerance"] for check in result["checks"])
    assert "| case | side |" in markdown([result])


@pytest.mark.parametrize("name", ORDER)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        harness.main(benchmark(name), ["--help"])
    assert ended.value.code == 0
    assert f"python -m benchmarks.{name}" in (shown := capsys.readouterr().out)
    assert "--json" in shown


def test_one_runs(tmp_path: Path) -> None:
    result = tiny("limit", tmp_path, "--only", "sft", "--dtype", "float32", "--all-peers")
    assert_sane(result)
    (case,) = result["cases"]
    assert list(case["sides"]) == ["teloi", "bare, sdpa", "bare, eager"]
    fastest = min((s["medians"]["seconds"], name) for name, s in case["sides"].items() if name != "teloi")
    assert case["peer"] == fastest[1]
    assert case["ratios"]["time"] == pytest.approx(case["sides"]["teloi"]["medians"]["seconds"] / fastest[0])
    work = {side["medians"]["flops"] for side in case["sides"].values()}
    assert len(work) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDER)
def test_every_one_runs(name: str, tmp_path: Path) -> None:
    assert_sane(tiny(name, tmp_path))


def results(**seconds: float) -> dict[str, list[dict[str, float]]]:
    base = {"cpu_seconds": 1.0, "amount": 10.0, "peak_bytes": 4e8}
    return {
        name: [{**base, "seconds": s}, {**base, "seconds": 2 * s}, {**base, "seconds": 3 * s}]
        for name, s in seconds.items()
    }


def test_ratios_are_of_medians_to_the_fastest_peer() -> None:
    sides = [Side(name, "", {}) for name in ("ours", "slow", "fast")]
    found = harness.summary(Case("", sides, {"speed": 2.0, "memory": 0.4}), results(ours=1, slow=9, fast=3), {})
    assert found["peer"] == "fast"
    assert found["ratios"]["speed"] == pytest.approx(3)
    assert found["met"] == {"speed": True, "memory": False}


def test_sides_that_differ_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"ours": [1.0, 2.0], "peer": [1.0, 2.002]}
    monkeypatch.setattr(harness, "one", lambda module, side, device: {"numbers": given[side.name]})
    check = Check("numbers", [Side("ours", "", {}), Side("peer", "", {})])
    with pytest.raises(SystemExit, match=r"differ by 0\.002"):
        harness.checked("", check, "cpu")
    given["peer"] = [1.0, 2.0005]
    assert harness.checked("", check, "cpu")["largest_difference"] == pytest.approx(5e-4)
    given["peer"] = [1.0]
    with pytest.raises(SystemExit, match="2 numbers, and 1 of peer"):
        harness.checked("", check, "cpu")


def test_sides_take_turns_and_turn_round(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def one(module: str, side: Side, device: str) -> dict[str, Any]:
        order.append(side.name)
        return {}

    monkeypatch.setattr(harness, "one", one)
    harness.take_turns("", Case("", [Side("a", "", {}), Side("b", "", {})]), 2, "cpu")
    assert order == ["a", "b", "b", "a"]


def test_a_failure_of_a_side_is_shown() -> None:
    with pytest.raises(SystemExit, match="no such side"):
        harness.one("", Side("broken", "tests.benchmarks.test_benchmarks:broken", {"message": "no such side"}), "cpu")


def broken(message: str) -> None:
    raise RuntimeError(message)


def test_the_command_names_all() -> None:
    there = {path.stem for path in Path(harness.__file__).parent.glob("*.py")}
    assert set(ORDER) == there - {"__init__", "__main__", "harness", "rows", "sides"}
