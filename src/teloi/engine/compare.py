"""`teloi compare`: several objectives from one start model, on the same rows, under one budget, over several seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teloi.engine.arms import Chained, Prepared, Untrained
from teloi.engine.behaviour import Behaviour
from teloi.engine.comparison import check_arms, described, head, set_up
from teloi.engine.config import Arm, Budget, CompareConfig
from teloi.engine.directory import check_writable, occupied, writing
from teloi.engine.processes import device
from teloi.engine.progress import bar, say
from teloi.errors import UsageError
from teloi.files import json_text, write_text
from teloi.jobs import default_jobs, in_parallel, one_by_one

RESULTS = "results.json"
SAMPLES = 12
"""Prompts whose replies the report shows side by side."""

SAME = ("teloi", "data", "model_hash", "training", "generation", "budget", "seeds", "metrics")
"""What must be as it was for a comparison to be resumed, beside its arms."""


def compare(arms: Sequence[Arm], config: CompareConfig, command: str = "", notes: Sequence[str] = ()) -> dict[str, Any]:
    """Train every arm with every seed, measure all on the same held-out rows; returns what `results.json` holds.

    The file is rewritten after every run, so an interrupted comparison keeps what it has measured, and goes on from
    there with `config.resume`. A run whose loss stops being a number is counted as failed; the others go on. `notes`
    are the caller's own, for the reader.
    """
    check_arms(arms)
    path = config.output_dir or Path("runs") / ("compare-" + "-".join(arm.name for arm in arms))
    check_place(path, config)
    jobs = config.jobs or default_jobs()
    if jobs > 1 and device().type == "cuda":
        raise UsageError("several runs at a time are for CPUs, on a GPU they follow one another: leave --jobs out")
    comparison = set_up(arms, config)
    evaluator, metrics = comparison.evaluator, comparison.metrics
    results = head(comparison, path, command, notes)
    if config.resume:
        take_up(path, results)
    there = sum(len(arm["runs"]) for arm in results["arms"] if arm["method"] is not None)
    say(
        f"{' and '.join(map(described, comparison.bases.values()))}; {len(comparison.rows):,} training rows of "
        f"{comparison.rows.name}, measured on {comparison.held_out.name}; {len(arms)} arms x {config.seeds} seeds, "
        f"{Budget.parse(config.budget)} each; decided by {metrics[0].label}"
        + (f"; {there} runs are there already" if there else "")
    )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    samples = Samples(evaluator.behaviour, results["samples"])
    untrained = comparison.untrained
    workers: dict[int, Untrained | Prepared | Chained] = dict(enumerate(untrained))
    done = [{run["seed"] for run in arm["runs"]} for arm in results["arms"]]
    missing = [
        (place, seed)
        for place in range(len(results["arms"]))
        for seed in (range(config.seeds) if place >= len(untrained) else untrained[place].seeds(config.seeds))
        if seed not in done[place]
    ]
    with bar(sum(map(len, done)) + len(missing), "compare") as advance:

        def keep(arm: dict[str, Any], run: dict[str, Any], replies: list[str] | None) -> None:
            arm["runs"] = sorted([*arm["runs"], run], key=lambda run: run["seed"])
            if replies:
                samples.add(arm["name"], replies, first=run["seed"] == 0)
            results["samples"] = samples.rows
            with writing(path):
                write_text(path / RESULTS, json_text(results) + "\n")
            advance(f"{arm['name']}, seed {run['seed']}{': failed' if run['failed'] else ''}")

        for _ in range(sum(map(len, done))):
            advance("resumed")
        first = [item for item in missing if item[0] < len(untrained) and not comparison.redraws]
        for place, seed in first:  # in this process: a large start model may need all cores
            keep(results["arms"][place], *untrained[place].run(seed, evaluator, metrics))
        missing = [item for item in missing if item not in first]
        for place in dict.fromkeys(place for place, _ in missing if place >= len(untrained)):
            workers[place] = comparison.worker(place - len(untrained))

        def work(item: tuple[int, int]) -> tuple[dict[str, Any], list[str] | None]:
            place, seed = item
            return workers[place].run(seed, evaluator, metrics)

        def name(item: tuple[int, int]) -> str:
            place, seed = item
            return f"{results['arms'][place]['name']}, seed {seed}"

        # Forked, for the model, the examples and the reference's sums are held once and never sent.
        made = one_by_one(work, missing, name) if jobs == 1 else in_parallel(work, missing, jobs, name, fork=True)
        for (place, _), (run, replies) in made:
            keep(results["arms"][place], run, replies)
    return results


def check_place(path: Path, config: CompareConfig) -> None:
    """UsageError where the results cannot go there, or would replace something."""
    check_writable(path)
    if occupied(path) and not (path / RESULTS).exists():
        raise UsageError(f"{path} is not empty and holds no comparison: choose another --output-dir")
    if occupied(path) and not config.overwrite and not config.resume:
        raise UsageError(
            f"{path} holds another comparison: choose another --output-dir, go on with --resume or --overwrite it"
        )


def take_up(path: Path, results: dict[str, Any]) -> None:
    """Put what an interrupted comparison has measured into the results of this one, which must be the same."""
    if not (path / RESULTS).exists():
        return
    earlier = json.loads((path / RESULTS).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(results))

    def arms(of: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{name: value for name, value in arm.items() if name != "runs"} for arm in of["arms"]]

    changed = [name for name in SAME if earlier.get(name) != now[name]]
    if changed or arms(earlier) != arms(now):
        what = " and ".join(changed) or "settings of an arm"
        raise UsageError(f"{path} holds another comparison, so it cannot be resumed: another {what}")
    results |= {"arms": earlier["arms"], "samples": earlier["samples"]}


class Samples:
    """The first prompts with every arm's reply side by side, of its first seed where that is there."""

    def __init__(self, behaviour: Behaviour | None, rows: list[dict[str, Any]]) -> None:
        """`rows`: what an interrupted comparison had of them."""
        self.behaviour = behaviour
        self.rows = rows or [
            {
                "prompt": question
                if isinstance(question, str)
                else "\n\n".join(f"{m['role']}: {m['content']}" for m in question),
                "checks": behaviour.requirements(index) if behaviour else [],
                "reference": None,
                "replies": {},
            }
            for index, question in enumerate(behaviour.questions[:SAMPLES] if behaviour else ())
        ]

    def add(self, arm: str, texts: Sequence[str], first: bool) -> None:
        """The replies of an arm with some seed; those of its `first` replace others."""
        for index, row in enumerate(self.rows):
            if self.behaviour and (first or arm not in row["replies"]):
                row["replies"][arm] = {"text": texts[index], "ok": self.behaviour.passes(index, texts[index])}
