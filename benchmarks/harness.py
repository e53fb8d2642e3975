"""What every benchmark shares: each side of each repeat in a process of its own, a table, a JSON file.

A benchmark is a list of cases, a case two or more sides, ours first. A side names a function of the benchmark's module;
it runs in a fresh process and returns `seconds` and `cpu_seconds` for an `amount` of work, and whatever else is worth
a column. Sides take turns, and turn round every repeat, so that a drift of the machine hits all of them. What is
reported are medians over the repeats, and the ratios of ours to the fastest peer."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Result = dict[str, Any]

PACKAGES = ("teloi", "torch", "transformers", "trl", "peft", "sentence-transformers")
MEANING = {
    "speed": "times the peer's speed",
    "time": "of the peer's time",
    "memory": "of the peer's peak memory",
    "rate": "a second",
}
AT_LEAST = ("speed", "rate")


@dataclass(frozen=True)
class Side:
    """One side of a case: a name, the function of the benchmark's module that runs it, what the function is given.
    `slower`: a setting of a peer that was found slower than its others, run only where all are asked for."""

    name: str
    function: str
    settings: Mapping[str, Any]
    slower: bool = False


@dataclass(frozen=True)
class Case:
    """Sides that do the same work, ours first. `targets`: by ratio ("speed" at least, "time" and "memory" at most)."""

    name: str
    sides: Sequence[Side]
    targets: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Sides whose functions return the same `numbers`, to `tolerance` (absolute)."""

    name: str
    sides: Sequence[Side]
    tolerance: float = 1e-3


@dataclass(frozen=True)
class Benchmark:
    """`cases` and `checks` follow from the command's options; `unit` is what the sides' `amount` counts."""

    name: str
    about: str
    unit: str
    cases: Callable[[argparse.Namespace], Sequence[Case]]
    checks: Callable[[argparse.Namespace], Sequence[Check]] = lambda options: ()
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


# -- the command


def main(benchmark: Benchmark, words: Sequence[str] | None = None) -> None:
    """The command of one benchmark."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=benchmark.about,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where both sides run")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each side")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all numbers there")
    parser.add_argument(
        "--only", nargs="+", default=None, metavar="CASE", help="cases whose name has one of these words"
    )
    parser.add_argument("--all-peers", action="store_true", help="peers at their slower settings too")
    parser.add_argument("--tiny", action="store_true", help="seconds on random weights, to see that it runs")
    benchmark.arguments(parser)
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="teloi-benchmark-") as scratch:
        options.scratch = scratch
        if options.tiny:
            options.repeats = 1
            one(benchmark.name, Side("tiny models", "benchmarks.sides:write_tiny", {"path": scratch}), options.device)
        result = run(benchmark, options)
    print("\n".join(lines(result)))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def run(benchmark: Benchmark, options: argparse.Namespace) -> Result:
    """Check, measure and summarise."""
    started = time.monotonic()
    module = f"benchmarks.{benchmark.name}"
    cases = [
        replace(case, sides=[side for side in case.sides if options.all_peers or not side.slower])
        for case in benchmark.cases(options)
        if options.only is None or any(word in case.name for word in options.only)
    ]
    machine = one(module, Side("machine", "benchmarks.sides:machine", {"device": options.device}), options.device)
    del machine["peak_bytes"]
    checks = [checked(module, check, options.device) for check in benchmark.checks(options)]
    measured = []
    for case in cases:
        results = take_turns(module, case, options.repeats, options.device)
        measured.append(summary(case, results, machine["peak"]))
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "scratch")}
    return {
        "benchmark": benchmark.name,
        "about": benchmark.about,
        "unit": benchmark.unit,
        "settings": settings,
        "machine": description() | machine,
        "checks": checks,
        "cases": measured,
        "minutes": (time.monotonic() - started) / 60,
    }


def take_turns(module: str, case: Case, repeats: int, device: str) -> dict[str, list[Result]]:
    """The results of every side, repeat by repeat."""
    results: dict[str, list[Result]] = {side.name: [] for side in case.sides}
    for repeat in range(repeats):
        for side in case.sides if repeat % 2 == 0 else reversed(case.sides):
            print(f"{case.name}: {side.name}, {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
            results[side.name].append(one(module, side, device))
    return results


def checked(module: str, check: Check, device: str) -> Result:
    """The largest difference between our numbers and a peer's. Ends the command where it is above the tolerance."""
    print(f"check: {check.name}", file=sys.stderr, flush=True)
    ours, *peers = [one(module, side, device)["numbers"] for side in check.sides]
    worst = 0.0
    for side, numbers in zip(check.sides[1:], peers, strict=True):
        if len(numbers) != len(ours):
            sys.exit(f"{check.name}: {len(ours)} numbers, and {len(numbers)} of {side.name}")
        worst = max(worst, *(abs(one - other) for one, other in zip(ours, numbers, strict=True)))
    if not worst <= check.tolerance:
        sys.exit(f"{check.name}: the sides differ by {worst:.2g}, more than {check.tolerance:g}: nothing to compare")
    return {"name": check.name, "numbers": len(ours), "largest_difference": worst, "tolerance": check.tolerance}


def one(module: str, side: Side, device: str) -> Result:
    """The result of a side's function, run in a process of its own."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    function = side.function if ":" in side.function else f"{module}:{side.function}"
    with tempfile.TemporaryDirectory(prefix="teloi-side-") as directory:
        path = Path(directory) / "result.json"
        command = [sys.executable, "-m", "benchmarks.harness", function, str(path)]
        done = subprocess.run(
            command, input=json.dumps(dict(side.settings)), capture_output=True, text=True, env=environment
        )
        if done.returncode != 0:
            sys.exit(f"{side.name} failed:\n{done.stdout[-1000:]}{done.stderr[-4000:]}")
        result: Result = json.loads(path.read_text())
    return result


def serve(function: str, path: str) -> None:
    """In the process of a side: run the function on the settings that come from standard input."""
    module, _, name = function.partition(":")
    result: Result = getattr(importlib.import_module(module), name)(**json.load(sys.stdin))
    result.setdefault("peak_bytes", peak_bytes())
    Path(path).write_text(json.dumps(result))


def peak_bytes() -> int:
    """The most memory this process has held: of the GPU where it used one, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss: on Linux that begins with what the parent process held.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, where there is no /proc: macOS


class Watch:
    """Wall and CPU time between marks; called after each step, it measures all steps but the first."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def __call__(self, *_: Any) -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append((time.perf_counter(), time.process_time()))

    def result(self, amount: float) -> Result:
        """Seconds from the first mark to the last, for so much work."""
        (wall, cpu), (wall_end, cpu_end) = self.marks[0], self.marks[-1]
        return {"seconds": wall_end - wall, "cpu_seconds": cpu_end - cpu, "amount": amount}


# -- what comes out


def summary(case: Case, results: Mapping[str, Sequence[Result]], peak: Mapping[str, float]) -> Result:
    """Medians of every side, the ratios of ours to the fastest peer, and whether they reach the targets."""
    sides: dict[str, Result] = {}
    for side in case.sides:
        runs = results[side.name]
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        medians["rate"] = medians["amount"] / medians["seconds"]
        if "flops" in medians:  # of the matrix-product peak in the numbers that the side computes with
            medians["of_peak"] = medians["flops"] / medians["seconds"] / peak[side.settings["dtype"]]
        settings = {name: value for name, value in side.settings.items() if name != "rows"}
        sides[side.name] = {"medians": medians, "runs": list(runs), "settings": settings}
    ours, *peers = (side.name for side in case.sides)
    found: Result = {"name": case.name, "sides": sides, "ratios": {}, "targets": dict(case.targets), "peer": None}
    if peers:
        fastest = max(peers, key=lambda name: sides[name]["medians"]["rate"])
        one, other = sides[ours]["medians"], sides[fastest]["medians"]
        speed = one["rate"] / other["rate"]
        found["peer"] = fastest
        found["ratios"] = {"speed": speed, "time": 1 / speed, "memory": one["peak_bytes"] / other["peak_bytes"]}
        found["ratios"] |= {"rate": one["rate"]} if "rate" in case.targets else {}
    found["met"] = {name: reached(name, found["ratios"][name], target) for name, target in case.targets.items()}
    return found


def reached(name: str, ratio: float, target: float) -> bool:
    """Speed and rate shall be at least the target, time and memory at most."""
    return ratio >= target if name in AT_LEAST else ratio <= target


def verdict(case: Result) -> str:
    """The ratios of a case against its fastest peer, in words."""
    shown = [name for name in case["ratios"] if name in (case["targets"] or ("speed", "memory"))]
    parts = []
    for name in shown:
        ratio = case["ratios"][name]
        part = f"{ratio:,.0f} {MEANING[name]}" if name == "rate" else f"{ratio:.2f} {MEANING[name]}"
        if name in case["targets"]:
            bound = "at least" if name in AT_LEAST else "at most"
            part += f" (wanted {bound} {case['targets'][name]:,g}: {'met' if case['met'][name] else 'missed'})"
        parts.append(part)
    return "; ".join(parts) + f", against {case['peer']}"


def lines(result: Result) -> list[str]:
    """A result for the terminal."""
    machine, extra = result["machine"], extras(result)
    header = [
        "case",
        "side",
        "seconds",
        result["unit"] + "/s",
        "CPU s",
        "peak GB",
        *(n.replace("_", " ") for n in extra),
    ]
    rows = [header]
    for case in result["cases"]:
        for name, side in case["sides"].items():
            m = side["medians"]
            numbers = [m["seconds"], m["rate"], m["cpu_seconds"], m["peak_bytes"] / 1e9, *(m.get(n) for n in extra)]
            rows.append([case["name"], name, *("-" if n is None else f"{n:,.4g}" for n in numbers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    peak = ", ".join(f"{name} {value / 1e9:,.0f}" for name, value in machine["peak"].items())
    return [
        f"{result['benchmark']}: {result['about']}",
        f"{where(machine)}; matrix products in GFLOP/s: {peak}",
        ", ".join(f"{name} {number}" for name, number in machine["versions"].items()),
        *(f"same numbers: {c['name']}, {c['numbers']} to {c['largest_difference']:.1e}" for c in result["checks"]),
        "",
        *table,
        "",
        *(f"{case['name']}: {verdict(case)}" for case in result["cases"] if case["peer"]),
        f"medians of {result['settings']['repeats']}; {result['minutes']:.1f} minutes",
    ]


def extras(result: Result) -> list[str]:
    """What sides measured beyond what all do."""
    known = {"seconds", "cpu_seconds", "amount", "peak_bytes", "rate", "flops"}
    names = (name for case in result["cases"] for side in case["sides"].values() for name in side["medians"])
    return [name for name in dict.fromkeys(names) if name not in known]


def where(machine: Result) -> str:
    """What a benchmark ran on, in words."""
    cpu = (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gb']:.0f} GB"
    )
    return f"{machine['gpu']}, {cpu}" if "gpu" in machine else cpu


def description() -> Result:
    """The machine, as far as the standard library knows it."""
    information = Path("/proc/cpuinfo")
    names = (
        [line for line in information.read_text().splitlines() if line.startswith("model name")]
        if (information.is_file())
        else []
    )
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "load": os.getloadavg()[0],
        "versions": versions,
    }


if __name__ == "__main__":
    serve(*sys.argv[1:])
