"""Training curves as series: thinned, averaged over seeds, with the range the seeds span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from teloi.measure.statistics import Floats

POINTS = 60
AXES = ("step", "tokens", "epoch", "seconds", "time")


@dataclass(frozen=True)
class Curve:
    """A quantity over training. `low` and `high` span the seeds; all arrays have one length."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    seeds: int


def quantities(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that hold numbers in `records`, the loss first, without those that only count time."""
    names = {
        key: None
        for record in records
        for key, value in record.items()
        if key not in AXES and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return sorted(names, key=lambda name: name != "loss")


def axis(records: Sequence[Mapping[str, Any]]) -> str:
    """What curves are drawn over: trained tokens where they are recorded, else steps."""
    return "tokens" if records and all("tokens" in r for r in records) else "step"


def curve(runs: Sequence[Sequence[Mapping[str, Any]]], name: str, over: str) -> Curve | None:
    """The quantity `name` of several runs of one arm, or None where none has it.

    Each point averages about 1/60 of a run. Runs meet on the stretch that all of them cover.
    """
    lines = [line for records in runs if (line := _line(records, name, over)) is not None]
    if not lines:
        return None
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = lines[0][0] if len(lines) == 1 or end <= start else np.linspace(start, end, POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in lines])
    return Curve(grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0), len(lines))


def _line(records: Sequence[Mapping[str, Any]], name: str, over: str) -> tuple[Floats, Floats] | None:
    pairs = [(r[over], r[name]) for r in records if r.get(name) is not None and r.get(over) is not None]
    points = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return None
    parts = np.array_split(points[np.argsort(points[:, 0], kind="stable")], min(POINTS, len(points)))
    means = np.stack([part.mean(axis=0) for part in parts])
    return means[:, 0], means[:, 1]
