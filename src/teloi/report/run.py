"""A training run as one HTML file: what came of it, its warnings, its curves, and samples of what the policy wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from teloi.engine.symptoms import WATCHED
from teloi.files import write_text
from teloi.report.curves import POINTS, axis, curve, quantities
from teloi.report.figures import course, svg
from teloi.report.html import Fact, page

REPORT = "report.html"
"""Its name in the directory of a run."""

FACTS = 4
"""Numbers on the first screen."""

JUDGED = ("loss", "accuracy", "reward", "gold")
"""What is worth a look on held-out rows."""


def render_run(
    run: Mapping[str, Any],
    records: Sequence[Mapping[str, float]],
    samples: Sequence[Mapping[str, Any]],
    command: str,
    path: Path,
) -> Path:
    """Write the report of a finished run to `path` and return it.

    Args:
        run: what run.yaml says, with its result.
        records: the lines of metrics.jsonl.
        samples: the lines of samples.jsonl, if there are any.
    """
    done = run["done"]
    found = facts(records)
    text = page(
        "run.html.jinja",
        run=run,
        done=done,
        title=f"{run['method']} on {run['data']['name']}" if run.get("data") else run["method"],
        facts=found,
        warnings=warning_lines(done),
        curves=_curves(records),
        thinned=len(records) > POINTS,
        samples=by_step(samples),
        ledger={key: value for key, value in done.items() if isinstance(value, int | float)},
        settings={**run["objective"], **{k: v for k, v in run["train"].items() if v is not None}},
        versions={"teloi": run["teloi"], **run["versions"]},
        command=command,
    )
    write_text(path, text)
    return path


def warning_lines(done: Mapping[str, Any]) -> list[str]:
    """What a run's result says that a person should know: why it ended early, and its warnings."""
    stopped = [f"Stopped because {done['stopped']}."] if done.get("stopped") else []
    return stopped + [f"{one['name']} (step {one['step']}): {one['text']}." for one in done.get("warnings") or []]


def facts(records: Sequence[Mapping[str, float]]) -> list[Fact]:
    """What came out on held-out rows, and what is watched at the end and at the start: means over a tenth of the run
    each."""
    known = quantities(records)
    held_out = [f"eval_{name}" for name in JUDGED if f"eval_{name}" in known]
    watched = [name for name in dict.fromkeys((*WATCHED, "loss", "accuracy")) if name in known]
    made = []
    for name in [*watched[: max(FACTS - len(held_out), 1)], *held_out]:
        values = [record[name] for record in records if name in record]
        size = max(1, len(values) // 10)
        start, end = np.mean(values[:size]), np.mean(values[-size:])
        behind = f"{start:.3g} at the start" if len(values) > 1 else "at the end"
        made.append(Fact(name.replace("eval_", "held-out "), f"{end:.3g}", behind))
    return made


def by_step(samples: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[tuple[str, list[Mapping[str, Any]]]]]]:
    """Samples by step, the last first, and of a step by prompt."""
    steps = [(step, list(lines)) for step, lines in groupby(samples, key=lambda line: int(line["step"]))]
    return [
        (step, [(prompt, list(lines)) for prompt, lines in groupby(found, key=lambda line: str(line["prompt"]))])
        for step, found in reversed(steps)
    ]


def _curves(records: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    """A small panel for each number that was recorded more than once, what is watched first; none for the only part
    of the loss, which is drawn already."""
    over, names = axis(records), quantities(records)
    order = dict.fromkeys([*(name for name in WATCHED if name in names), *names])
    drawn = [(name, curve([records], name, over)) for name in order if name == "loss" or not _is_loss(records, name)]
    return [
        (name.replace("_", " "), svg(course(c, over), 2.7, 1.9, name))
        for name, c in drawn
        if c is not None and (len(c.x) > 1 or len(records) == 1)
    ]


def _is_loss(records: Sequence[Mapping[str, float]], name: str) -> bool:
    """Whether a number is the loss itself by another name."""
    prefix = "eval_" if name.startswith("eval_") else ""
    if name == f"{prefix}loss":
        return False
    return all(record.get(name) == record.get(f"{prefix}loss") for record in records)
