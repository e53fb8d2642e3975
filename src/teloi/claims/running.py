"""Running a claim: every arm with every seed as one-thread processes, one JSON file a run, resumable.

What has run is never run again: a claim that was killed goes on with the files it finds. They lie in a directory
named after the claim file's hash, so a changed claim starts anew.
"""

from __future__ import annotations

import importlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import teloi
from teloi.claims.claim import Claim, Judgement, Outcome, Run, judge
from teloi.claims.results import file_hash
from teloi.engine.directory import writing
from teloi.engine.progress import bar, say
from teloi.errors import NonFinite, UsageError
from teloi.files import write_text
from teloi.jobs import in_parallel, one_by_one

Record = dict[str, Any]
"""What is kept of a run; JSON."""


@dataclass(frozen=True)
class Settings:
    """How a claim is run. Without `quick` and with the claim's own seeds it is for the record and gets a verdict."""

    quick: bool = False
    jobs: int = 2
    seeds: tuple[int, ...] | None = None
    directory: Path = Path("runs/claims")

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise UsageError(f"jobs must be at least 1, not {self.jobs}")
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0):
            raise UsageError("seeds are different numbers, 0 or more")


def load(module: str) -> Claim:
    """The claim that a module states."""
    claim = importlib.import_module(module).CLAIM
    assert isinstance(claim, Claim)
    return claim


def run(module: str, settings: Settings, command: str = "") -> dict[str, Any]:
    """Run what is missing of a claim and judge it; returns what its results file holds."""
    claim = load(module)
    seeds = settings.seeds or (claim.seeds[:1] if settings.quick else claim.seeds)
    digest = file_hash(module)
    directory = settings.directory / claim.slug / (digest + ("-quick" if settings.quick else ""))
    runs = [
        Run(arm, seed, settings.quick, directory / f"seed-{seed}")
        for seed in seeds
        for arm in (*([None] if claim.prepare else []), *(arm.name for arm in claim.arms))
    ]
    with writing(directory):
        for one in runs:
            one.directory.mkdir(parents=True, exist_ok=True)
    missing = [one for one in runs if not record_path(one).exists()]
    there = f", {len(runs) - len(missing)} more are there already" if len(missing) < len(runs) else ""
    say(f"{claim.slug}: {len(missing)} runs of {len(claim.arms)} arms and {len(seeds)} seeds{there}")
    work = partial(execute, module)

    def prepared(one: Run) -> bool:
        """A seed's arms wait for its preparation."""
        return one.arm is None or claim.prepare is None or record_path(replace(one, arm=None)).exists()

    with bar(len(missing), claim.slug) as advance:
        made = (
            one_by_one(work, missing, title)
            if settings.quick
            else in_parallel(work, missing, settings.jobs, title, ready=prepared)
        )
        for one, record in made:
            write_text(record_path(one), json.dumps(record, indent=1, allow_nan=False) + "\n")
            advance(title(one))
    records = [json.loads(record_path(one).read_text(encoding="utf-8")) for one in runs]
    return {
        "claim": claim.slug,
        "statement": claim.statement,
        "setting": claim.setting,
        "real_text": claim.real_text,
        "methods": list(claim.methods),
        **outcome(claim, records, seeds, for_the_record=not settings.quick and tuple(seeds) == tuple(claim.seeds)),
        "hash": digest,
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seconds": round(sum(record["seconds"] for record in records), 1),
    }


def outcome(
    claim: Claim, records: Sequence[Mapping[str, Any]], seeds: Sequence[int], *, for_the_record: bool
) -> dict[str, Any]:
    """Metrics, arms with every seed's numbers, expectations with interval and finding, checks, and the verdict."""
    arms = [
        {**asdict(arm), "runs": [{n: v for n, v in r.items() if n != "arm"} for r in records if r["arm"] == arm.name]}
        for arm in claim.arms
    ]
    judgement = judge(claim, values(arms), seeds)
    return {
        "verdict": judgement.verdict if for_the_record else None,
        "seeds": list(seeds),
        "metrics": [asdict(metric) for metric in claim.metrics],
        **judged(judgement),
        "arms": arms,
        "preparation": [{"seed": r["seed"], "seconds": r["seconds"]} for r in records if r["arm"] is None],
    }


def values(arms: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, dict[str, float]]]:
    """Metrics by arm and seed, of the runs that gave any."""
    return {
        arm["name"]: {
            run["seed"]: {name: value for name, value in run["metrics"].items() if value is not None}
            for run in arm["runs"]
            if not run["failed"]
        }
        for arm in arms
    }


def judged(judgement: Judgement) -> dict[str, Any]:
    """A judgement as the results hold it."""
    return {
        "expectations": [
            {
                **asdict(one.expect),
                "estimate": None if one.estimate is None else asdict(one.estimate),
                "finding": one.finding,
                "missing": list(one.missing),
            }
            for one in judgement.expectations
        ],
        "checks": [asdict(check) for check in judgement.checks],
    }


def record_path(one: Run) -> Path:
    """Where the record of a run lies."""
    return one.directory / f"{'preparation' if one.arm is None else one.arm.replace('/', '-')}.json"


def versions() -> dict[str, str]:
    """What computed it."""
    libraries = ("torch", "transformers", "numpy")
    return {"teloi": teloi.__version__, "python": platform.python_version(), **{n: version(n) for n in libraries}}


def execute(module: str, one: Run) -> Record:
    """One run in this process. A loss that stops being a number is a result; whatever else fails ends the claim."""
    claim = load(module)
    started = time.process_time()  # seconds of its one thread, also where others want the processor
    found, failed = Outcome({}), None
    try:
        if one.arm is not None:
            found = claim.run(one)
        elif claim.prepare is not None:
            claim.prepare(one)
    except NonFinite as error:
        if one.arm is None:
            raise
        failed = str(error)
    return {
        "arm": one.arm,
        "seed": one.seed,
        "metrics": {name: float(value) if math.isfinite(value) else None for name, value in found.metrics.items()},
        "details": dict(found.details),
        "collapsed": found.collapsed,
        "failed": failed,
        "seconds": round(time.process_time() - started, 2),
    }


def title(one: Run) -> str:
    """A run in the words of a message."""
    return f"{one.arm or 'preparation'}, seed {one.seed}"
