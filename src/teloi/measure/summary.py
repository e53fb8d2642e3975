"""From a comparison's results to means with intervals and paired differences, per arm and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from teloi.errors import TeloiError
from teloi.measure.statistics import (
    Estimate,
    Floats,
    crossed_interval,
    finite,
    mean_interval,
    paired_difference,
    paired_ratio,
    wilson,
)

Standing = Literal["best", "tied", "other", "baseline"]

OWN_START = "its untrained model"
"""What an arm is compared with where each architecture has its own start."""


@dataclass(frozen=True)
class Metric:
    """One thing that was measured. `scale="log"` compares arms by ratio, else by difference."""

    name: str
    label: str
    better: Literal["higher", "lower"] | None = None
    unit: str | None = None
    primary: bool = False
    about: str = ""
    scale: Literal["linear", "log"] = "linear"
    resolution: float = 0.0

    @property
    def neutral(self) -> float:
        """The comparison's value for two equal arms: 0 for a difference, 1 for a ratio."""
        return 1.0 if self.scale == "log" else 0.0

    def gain(self, value: float) -> float:
        """`value` with its sign turned so that more is better; unchanged without a direction."""
        return -value if self.better == "lower" else value

    def improves(self, estimate: Estimate | None) -> bool:
        """Whether the interval of a comparison lies wholly on the better side."""
        return (
            estimate is not None
            and self.better is not None
            and estimate.excludes(self.neutral)
            and self.gain(estimate.mean - self.neutral) > 0
        )


@dataclass(frozen=True)
class Cell:
    """One metric of one arm.

    The `values` by seed, their mean, and the comparison with the baseline (None for itself).
    """

    values: Mapping[int, float]
    estimate: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class Failure:
    """A run that gave no result, and why."""

    seed: int
    reason: str


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison.

    `trained` is false for a model that is only measured. `ledger` holds means a run; `seconds` the time to prepare and
    train, by seed (none for an untrained arm), and `time` its ratio to the quickest arm's. `gap` compares the primary
    metric with the best arm's; an arm whose gap may be nothing is `tied` with it. `against` names the baseline that it
    is compared with, `undefined` the metrics that it cannot have, each with the reason.
    """

    name: str
    trained: bool
    baseline: bool
    settings: Mapping[str, Any]
    runs: int
    failures: Sequence[Failure]
    cells: Mapping[str, Cell]
    ledger: Mapping[str, float]
    seconds: Mapping[int, float]
    gap: Estimate | None = None
    time: Estimate | None = None
    standing: Standing = "other"
    against: str | None = None
    undefined: Mapping[str, str] = field(default_factory=dict)

    @property
    def mean_seconds(self) -> float | None:
        """Mean time to prepare and train one run."""
        return sum(self.seconds.values()) / len(self.seconds) if self.seconds else None


@dataclass(frozen=True)
class Summary:
    """What a comparison found.

    `arms` are ordered by the primary metric, the best first, arms without a value last. `best` names the
    arm with the best mean among those shown better than the baseline; where none is, or arms have baselines of their
    own, the best mean of all.
    `items` is the size of the fixed test set (0 when unknown). `baseline` is what arms are compared with, in words: the
    baseline's name, or, where arms of several architectures each have their own, what they all are.
    """

    metrics: Sequence[Metric]
    arms: Sequence[Arm]
    seeds: Sequence[int]
    items: int
    baseline: str | None
    best: str | None
    quickest: str | None

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return next((m for m in self.metrics if m.primary), self.metrics[0])

    @property
    def drift(self) -> Metric | None:
        """How far an arm went from where it started: the first metric that is a KL divergence."""
        return next((m for m in self.metrics if "kl" in m.name.lower().split("_")), None)

    @property
    def empty(self) -> list[str]:
        """Sentences on what arms have no value of, and why: arms that lack the same for the same reason stand
        together."""
        lacks: dict[tuple[str, str], list[str]] = {}
        for arm in self.arms:
            for metric in self.metrics if arm.trained else ():
                if reason := arm.undefined.get(metric.name):
                    lacks.setdefault((arm.name, reason), []).append(metric.label)
        together: dict[tuple[str, str], list[str]] = {}
        for (name, reason), labels in lacks.items():
            together.setdefault((reason, "; ".join(labels)), []).append(name)
        return [
            f"No value of {', '.join(names)} in {labels}: {reason}." for (reason, labels), names in together.items()
        ]

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(a for a in self.arms if a.name == name)

    @property
    def failures(self) -> int:
        """Number of runs that gave no result."""
        return sum(len(a.failures) for a in self.arms)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return sum(a.runs for a in self.arms)


def summarise(results: Mapping[str, Any]) -> Summary:
    """Summary of a `results.json`.

    Failed runs and values that are no finite number are left out of means, and counted.
    """
    try:
        metrics = [_metric(m) for m in results["metrics"]]
        series = {a["name"]: {m.name: _series(a, m) for m in metrics} for a in results["arms"]}
        raw = list(results["arms"])
    except (KeyError, TypeError) as error:
        raise TeloiError(f"these are no results of a comparison: {error} is missing or of another type") from error
    if not metrics or not raw:
        raise TeloiError("these results hold no metric or no arm")
    primary = next((m for m in metrics if m.primary), metrics[0])
    baselines = [a["name"] for a in raw if a.get("baseline")]
    baseline = OWN_START if len(baselines) > 1 else next(iter(baselines), None)

    arms = []
    for a in raw:
        against = None if a.get("baseline") else a.get("against", next(iter(baselines), None))
        arms.append(_arm(a, metrics, primary, series[a["name"]], against, series.get(against)))
    arms.sort(key=lambda a: _rank(a, primary))
    best = _best(arms, primary, against_own=len(baselines) > 1)
    timed = [a for a in arms if a.trained and a.mean_seconds is not None]
    quickest = min(timed, key=lambda a: a.mean_seconds or 0.0, default=None)
    arms = [_placed(a, best, quickest, primary, series) for a in arms]
    items = max((len(row) for s in series.values() for row in s[primary.name].items.values()), default=0)
    return Summary(
        metrics=[primary, *(m for m in metrics if m is not primary)],
        arms=arms,
        seeds=sorted({run["seed"] for a in raw for run in a["runs"]}),
        items=items,
        baseline=baseline,
        best=None if best is None else best.name,
        quickest=None if quickest is None else quickest.name,
    )


@dataclass(frozen=True)
class _Series:
    """One metric of one arm by seed.

    `fixed`: nothing was trained and every run agrees, so seeds carry no variance.
    """

    values: dict[int, float] = field(default_factory=dict)
    items: dict[int, Floats] = field(default_factory=dict)
    fixed: bool = False

    def at(self, seeds: Sequence[int]) -> _Series:
        """This series at `seeds`; a fixed one has its one value at every seed."""
        if self.fixed:
            rows = [dict.fromkeys(seeds, row) for row in self.items.values()]
            return _Series(dict.fromkeys(seeds, next(iter(self.values.values()))), rows[0] if rows else {}, True)
        values = {s: self.values[s] for s in seeds}
        return _Series(values, {s: self.items[s] for s in seeds if s in self.items})

    def table(self) -> Floats | None:
        """Items of shape [seeds, items], or None where a seed lacks them or their numbers differ."""
        rows = list(self.items.values())
        if not rows or len(rows) != len(self.values) or len({len(r) for r in rows}) != 1:
            return None
        return np.stack(rows)


def _metric(raw: Mapping[str, Any]) -> Metric:
    known = {k: raw[k] for k in Metric.__dataclass_fields__ if raw.get(k) is not None}
    return Metric(**{"label": str(raw["name"]).replace("_", " "), **known})


def _series(arm: Mapping[str, Any], metric: Metric) -> _Series:
    values, items = {}, {}
    for run in arm["runs"]:
        number = finite([run.get("metrics", {}).get(metric.name)])
        if run.get("failed") or not number:
            continue
        values[run["seed"]] = number[0]
        row = run.get("items", {}).get(metric.name)
        if row:
            row = np.array([np.nan if x is None else x for x in row], dtype=np.float64)
            # Items speak for the metric only where it is their mean.
            known = row[~np.isnan(row)]
            if len(known) and np.isclose(known.mean(), number[0], rtol=1e-3, atol=1e-6):
                items[run["seed"]] = row
    fixed = arm.get("method") is None and len(set(values.values())) == 1
    return _Series(values, items, fixed)


def _resolution(metric: Metric, table: Floats | None) -> float:
    if metric.resolution or table is None or not np.isin(table, (-1.0, 0.0, 1.0)).all():
        return metric.resolution
    return float(1.0 / table.shape[1])


def _complete(table: Floats | None) -> Floats | None:
    """The items that every seed has."""
    if table is None:
        return None
    table = table[:, ~np.isnan(table).any(axis=0)]
    return table if table.shape[1] else None


def _estimate(series: _Series, metric: Metric) -> Estimate:
    table = _complete(series.table())
    if series.fixed:
        value = next(iter(series.values.values()))
        if table is None:
            return Estimate(value, None, None, 1)
        share = np.isin(table[0], (0.0, 1.0)).all()
        return wilson(float(table[0].sum()), table.shape[1]) if share else mean_interval(table[0])
    if table is not None:
        return crossed_interval(table, resolution=_resolution(metric, table))
    return mean_interval(list(series.values.values()), resolution=metric.resolution)


def _compare(arm: _Series, other: _Series, metric: Metric) -> Estimate | None:
    """`arm` against `other`, paired by seed and, where both have items, by item."""
    if not arm.values or not other.values:
        return None
    if other.fixed:
        seeds = list(arm.values)
    elif arm.fixed:
        seeds = list(other.values)
    else:
        seeds = [s for s in arm.values if s in other.values]
    if not seeds:
        return None
    both_fixed = arm.fixed and other.fixed
    seeds = seeds[:1] if both_fixed else seeds
    arm, other = arm.at(seeds), other.at(seeds)
    a, b = list(arm.values.values()), list(other.values.values())
    if metric.scale == "log":
        return paired_ratio(a, b, resolution=metric.resolution) if min(*a, *b) > 0 else None
    x, y = arm.table(), other.table()
    table = _complete(x - y) if x is not None and y is not None and x.shape == y.shape else None
    if table is None:
        return paired_difference(a, b, resolution=metric.resolution)
    if both_fixed:
        return mean_interval(table[0], resolution=_resolution(metric, table))
    return crossed_interval(table, resolution=_resolution(metric, table))


def _arm(
    raw: Mapping[str, Any],
    metrics: Sequence[Metric],
    primary: Metric,
    series: Mapping[str, _Series],
    against: str | None,
    baseline: Mapping[str, _Series] | None,
) -> Arm:
    undefined = raw.get("undefined") or {}
    cells = {}
    for m in metrics:
        if series[m.name].values:
            own = series[m.name]
            compared = None if baseline is None else _compare(own, baseline[m.name], m)
            cells[m.name] = Cell(own.values, _estimate(own, m), compared)
    good = [run for run in raw["runs"] if not run.get("failed")]
    ledger: dict[str, list[float]] = {}
    for run in good:
        for key, value in run.get("ledger", {}).items():
            ledger.setdefault(key, []).extend(finite([value]))
    seconds = {
        run["seed"]: sum(finite([run["ledger"].get(k) for k in ("prepare_seconds", "train_seconds")]))
        for run in good
        if run.get("ledger") and raw.get("method") is not None
    }
    failures = [
        Failure(run["seed"], str(run.get("failed") or f"{primary.label} is no finite number"))
        for run in raw["runs"]
        if run.get("failed") or (run["seed"] not in series[primary.name].values and primary.name not in undefined)
    ]
    return Arm(
        name=raw["name"],
        trained=raw.get("method") is not None,
        baseline=bool(raw.get("baseline")),
        settings=raw.get("settings") or {},
        runs=len(raw["runs"]),
        failures=failures,
        cells=cells,
        ledger={key: float(np.mean(values)) for key, values in ledger.items() if values},
        seconds={seed: s for seed, s in seconds.items() if s > 0},
        against=against,
        undefined=undefined,
    )


def _rank(arm: Arm, primary: Metric) -> float:
    cell = arm.cells.get(primary.name)
    if cell is None:
        return math.inf
    return 0.0 if primary.better is None else -primary.gain(cell.estimate.mean)


def _best(arms: Sequence[Arm], primary: Metric, against_own: bool) -> Arm | None:
    """Where baselines differ, an arm is not the better for a worse start."""
    if primary.better is None:
        return None
    candidates = [a for a in arms if not a.baseline and primary.name in a.cells]
    shown = [a for a in candidates if primary.improves(a.cells[primary.name].difference)]
    return next(iter(candidates if against_own else [*shown, *candidates]), None)


def _placed(
    arm: Arm,
    best: Arm | None,
    quickest: Arm | None,
    primary: Metric,
    series: Mapping[str, Mapping[str, _Series]],
) -> Arm:
    gap = time = None
    if best is not None and arm is not best:
        gap = _compare(series[arm.name][primary.name], series[best.name][primary.name], primary)
    if quickest is not None and arm.trained:
        seeds = [s for s in arm.seconds if s in quickest.seconds]
        if seeds:
            time = paired_ratio([arm.seconds[s] for s in seeds], [quickest.seconds[s] for s in seeds])
    standing: Standing = "other"
    if arm is best:
        standing = "best"
    elif arm.baseline:
        standing = "baseline"
    elif gap is not None and not gap.excludes(primary.neutral):
        standing = "tied"
    return replace(arm, gap=gap, time=time, standing=standing)
