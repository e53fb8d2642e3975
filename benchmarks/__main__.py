"""`python -m benchmarks`: every benchmark, one after the other; a JSON file each and a summary in Markdown.

On two quiet cores about a quarter of an hour; with --repeats 3, for the record, about forty minutes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import extras, verdict, where

ORDER = (
    "start",
    "limit",
    "sft_step",
    "preference_step",
    "rl_step",
    "rollouts",
    "embedding_step",
    "scale",
    "corruption",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=ORDER, metavar="NAME", help=f"of {', '.join(ORDER)}; default: all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=1, help="processes of each side; 3 for the record")
    parser.add_argument("--output-dir", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--tiny", action="store_true", help="seconds each on random weights, to see that they run")
    options = parser.parse_args()
    failed = []
    for name in options.names:
        started = time.monotonic()
        words = [sys.executable, "-m", f"benchmarks.{name}", "--device", options.device]
        words += ["--repeats", str(options.repeats), "--json", str(options.output_dir / f"{name}.json")]
        if subprocess.run([*words, *(["--tiny"] if options.tiny else [])]).returncode != 0:
            failed.append(name)
        print(f"{name}: {(time.monotonic() - started) / 60:.1f} minutes\n", file=sys.stderr, flush=True)
    results = [json.loads(path.read_text()) for path in sorted(options.output_dir.glob("*.json"))]
    (options.output_dir / "README.md").write_text(markdown(sorted(results, key=lambda r: ORDER.index(r["benchmark"]))))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """What the JSON files hold, as a table a benchmark."""
    parts = ["# Benchmarks", "", "Written by `python -m benchmarks`; medians of fresh processes, sides in turns."]
    for result in results:
        machine = result["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        parts += ["", f"## {result['benchmark']}", "", result["about"], "", f"{where(machine)}; {versions}.", ""]
        parts += [f"Same numbers: {c['name']}, to {c['largest_difference']:.1e}.\n" for c in result["checks"]]
        extra = extras(result)
        columns = ["seconds", f"{result['unit']}/s", "CPU s", "peak GB", *(name.replace("_", " ") for name in extra)]
        parts += [f"| case | side | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
        for case in result["cases"]:
            for name, side in case["sides"].items():
                m = side["medians"]
                numbers = [m["seconds"], m["rate"], m["cpu_seconds"], m["peak_bytes"] / 1e9, *map(m.get, extra)]
                shown = ("" if number is None else f"{number:,.3g}" for number in numbers)
                parts.append(f"| {case['name']} | {name} | {' | '.join(shown)} |")
        parts += ["", *(f"- {case['name']}: {verdict(case)}" for case in result["cases"] if case["peer"])]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
