"""What a claim is, and how it is judged: pure functions from every seed's numbers to a verdict.

A claim file builds one `Claim` and names it CLAIM. It states data, arms, seeds and expectations before anything runs.
Each expectation is a region of the true difference between two arms, paired by seed: it *holds* when the 95% interval
of the mean difference lies inside the region, is *contradicted* when the interval lies outside, and else stays *open*.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from teloi.measure.statistics import Estimate, paired_difference, paired_ratio
from teloi.measure.summary import Metric

Kind = Literal["superior", "noninferior", "equivalent"]
Finding = Literal["holds", "contradicted", "open"]
Verdict = Literal["reproduced", "not reproduced", "inconclusive", "invalid"]

Values = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Metrics by arm and seed; a run that gave no numbers is missing."""


@dataclass(frozen=True)
class Arm:
    """One side of the experiment; `about` says what is done in it."""

    name: str
    about: str


@dataclass(frozen=True)
class Expect:
    """`better` against `worse`, by a metric and a margin of practical size.

    superior: better by more than the margin. noninferior: worse by less than the margin. equivalent: apart by less than
    it. The margin is in the metric's unit; of a metric with `scale="log"` it is a ratio, 1 or more. An expectation that
    does not decide (`decides=False`) is ours and not the paper's: it is judged and reported beside the verdict.
    """

    metric: str
    better: str
    worse: str
    margin: float
    kind: Kind = "superior"
    decides: bool = True


@dataclass(frozen=True)
class Check:
    """A manipulation check: in every seed the metric of an arm lies within these bounds, or the run is invalid."""

    about: str
    metric: str
    arm: str
    at_least: float = -math.inf
    at_most: float = math.inf


@dataclass(frozen=True)
class Control:
    """A negative control: an effect where none can be. If this expectation holds, the run is invalid."""

    about: str
    expect: Expect


@dataclass(frozen=True)
class Run:
    """One arm with one seed, or with arm None what the arms of a seed share. `quick`: in seconds, whatever comes out.

    `directory` is the seed's own, for what `prepare` leaves to the arms.
    """

    arm: str | None
    seed: int
    quick: bool
    directory: Path

    def rng(self, name: str) -> np.random.Generator:
        """A stream keyed by seed and name only: arms that ask for the same name get the same draws."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])


@dataclass(frozen=True)
class Outcome:
    """What a run measured. `details` is kept beside it (a chosen learning rate, say); JSON.

    `collapsed` says why the run counts as collapsed (a model that only babbles): it is counted and drawn as such, and
    its numbers stay in.
    """

    metrics: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    collapsed: str | None = None


@dataclass(frozen=True)
class Claim:
    """An experiment that can fail. `run` and `prepare` must give the same again for the same `Run`."""

    slug: str
    """The paper."""
    statement: str
    """What is claimed, in a sentence."""
    setting: str
    """Data, model and budgets, and what was decided beforehand."""
    metrics: Sequence[Metric]
    arms: Sequence[Arm]
    expectations: Sequence[Expect]
    run: Callable[[Run], Outcome]
    prepare: Callable[[Run], None] | None = None
    checks: Sequence[Check] = ()
    controls: Sequence[Control] = ()
    seeds: Sequence[int] = tuple(range(5))
    methods: Sequence[str] = ()
    """Names of the catalogue's methods that it measures."""
    real_text: str = ""
    """What backs it on real text; empty where nothing does, and tables say so."""

    def __post_init__(self) -> None:
        arms, metrics = {arm.name for arm in self.arms}, {metric.name: metric for metric in self.metrics}
        if len(arms) < len(self.arms) or len(metrics) < len(self.metrics) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"{self.slug}: arms, metrics and seeds have names of their own")
        if not any(expect.decides for expect in self.expectations):
            raise ValueError(f"{self.slug}: a claim needs an expectation that decides")
        for expect in (*self.expectations, *(control.expect for control in self.controls)):
            if expect.metric not in metrics or not {expect.better, expect.worse} <= arms:
                raise ValueError(f"{self.slug}: {expect} names an arm or a metric that is not there")
            region(expect, metrics[expect.metric])
        for check in self.checks:
            if check.metric not in metrics or check.arm not in arms:
                raise ValueError(f"{self.slug}: {check} names an arm or a metric that is not there")


@dataclass(frozen=True)
class Judged:
    """An expectation with the mean paired difference (a ratio for a log metric): positive (above 1) is `better` ahead.

    `missing` are the seeds in which one of the two arms gave no number.
    """

    expect: Expect
    estimate: Estimate | None
    finding: Finding
    missing: Sequence[int]


@dataclass(frozen=True)
class Checked:
    """A check or a control in words, and whether it passed."""

    about: str
    passed: bool


@dataclass(frozen=True)
class Judgement:
    """What the numbers say."""

    verdict: Verdict
    expectations: Sequence[Judged]
    checks: Sequence[Checked]


def judge(claim: Claim, values: Values, seeds: Sequence[int]) -> Judgement:
    """Every expectation, check and control over these seeds, and the verdict that follows."""
    metrics = {metric.name: metric for metric in claim.metrics}
    judged = [weigh(expect, metrics[expect.metric], values, seeds) for expect in claim.expectations]
    checked = [Checked(check.about, _passes(check, values, seeds)) for check in claim.checks]
    for control in claim.controls:
        found = weigh(control.expect, metrics[control.expect.metric], values, seeds)
        checked.append(Checked(control.about, not found.missing and found.finding != "holds"))
    deciding = [one.finding for one in judged if one.expect.decides]
    return Judgement(verdict(deciding, [one.passed for one in checked]), judged, checked)


def verdict(findings: Sequence[Finding], passed: Sequence[bool] = ()) -> Verdict:
    """Invalid if a check or control failed; reproduced if all hold; not reproduced if one is contradicted."""
    if not all(passed):
        return "invalid"
    if "contradicted" in findings:
        return "not reproduced"
    return "reproduced" if all(finding == "holds" for finding in findings) else "inconclusive"


def weigh(expect: Expect, metric: Metric, values: Values, seeds: Sequence[int]) -> Judged:
    """One expectation. With a seed missing it never holds: a run that broke must not help its arm."""
    pairs = {seed: (_value(values, expect.better, seed, metric), _value(values, expect.worse, seed, metric))
             for seed in seeds}  # fmt: skip
    complete = [(a, b) for a, b in pairs.values() if a is not None and b is not None]
    missing = [seed for seed, pair in pairs.items() if None in pair]
    if not complete:
        return Judged(expect, None, "open", missing)
    ahead, behind = ([float(pair[side]) for pair in complete] for side in (0, 1))
    if metric.better == "lower":
        ahead, behind = behind, ahead
    compare = paired_ratio if metric.scale == "log" else paired_difference
    estimate = compare(ahead, behind, resolution=metric.resolution)
    if estimate.low is None or estimate.high is None:
        return Judged(expect, estimate, "open", missing)
    finding = place((estimate.low, estimate.high), region(expect, metric))
    return Judged(expect, estimate, "open" if missing and finding == "holds" else finding, missing)


def region(expect: Expect, metric: Metric) -> tuple[float, float]:
    """The open interval in which the true difference (ratio, for a log metric) lies if the expectation is right."""
    neutral = metric.neutral
    if not neutral <= expect.margin < math.inf or (expect.margin == neutral and expect.kind != "superior"):
        least = f"{neutral:g} or more" if expect.kind == "superior" else f"above {neutral:g}"
        raise ValueError(f"{expect}: the margin must be {least}")
    far = 1 / expect.margin if metric.scale == "log" else -expect.margin
    match expect.kind:
        case "superior":
            return expect.margin, math.inf
        case "noninferior":
            return far, math.inf
        case "equivalent":
            return far, expect.margin


def place(interval: tuple[float, float], inside: tuple[float, float]) -> Finding:
    """Where an interval lies: inside an open region, outside of it, or across an edge."""
    (low, high), (least, most) = interval, inside
    if least < low and high < most:
        return "holds"
    return "contradicted" if high < least or most < low else "open"


def _value(values: Values, arm: str, seed: int, metric: Metric) -> float | None:
    found = values.get(arm, {}).get(seed, {}).get(metric.name)
    usable = found is not None and math.isfinite(found) and (metric.scale == "linear" or found > 0)
    return found if usable else None


def _passes(check: Check, values: Values, seeds: Sequence[int]) -> bool:
    found = [values.get(check.arm, {}).get(seed, {}).get(check.metric, math.nan) for seed in seeds]
    return all(check.at_least <= value <= check.at_most for value in found)
