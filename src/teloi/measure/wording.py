"""How a metric's values are written, and the verdict of a comparison in one sentence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from teloi.measure.statistics import Estimate
from teloi.measure.summary import OWN_START, Arm, Metric, Summary


@dataclass(frozen=True)
class Style:
    """How one metric is written.

    As many decimals as its intervals bear; shares as percentages, their differences in points.
    """

    metric: Metric
    decimals: int

    @property
    def factor(self) -> int:
        """What a value is multiplied with before it is written."""
        return 100 if self.metric.unit == "share" else 1

    @property
    def unit(self) -> str:
        """Unit of a value."""
        return "%" if self.metric.unit == "share" else self.metric.unit or ""

    @property
    def difference_unit(self) -> str:
        """Unit of a comparison with the baseline."""
        if self.metric.scale == "log":
            return "times"
        return "points" if self.metric.unit == "share" else self.metric.unit or ""

    @property
    def direction(self) -> str:
        """Which way is better, in words; empty without a direction."""
        return f"{self.metric.better} is better" if self.metric.better else ""

    def number(self, value: float) -> str:
        """A value without its unit: `43.1`."""
        text = f"{value * self.factor:.{self.decimals}f}"
        return text.removeprefix("-") if float(text) == 0 else text

    def value(self, value: float) -> str:
        """A value with its unit: `43.1%`, `0.52 nats`."""
        return self.number(value) + ("%" if self.unit == "%" else f" {self.unit}" if self.unit else "")

    def interval(self, estimate: Estimate) -> str:
        """`38.0 to 48.2`; empty without an interval."""
        if estimate.low is None or estimate.high is None:
            return ""
        return f"{self._compared(estimate.low)} to {self._compared(estimate.high)}"

    def change(self, estimate: Estimate) -> str:
        """A comparison's mean with its sign: `+12.1`, or `1.30x`."""
        text = self._compared(estimate.mean)
        if self.metric.scale == "log":
            return f"{text}x"
        return text if text.startswith("-") or float(text) == 0 else f"+{text}"

    def amount(self, value: float) -> str:
        """Size of a difference in words: `12 points`, `0.3 nats`, `a factor of 1.3`."""
        if self.metric.scale == "log":
            return f"a factor of {max(value, 1 / value):.2f}"
        text, unit = self.number(abs(value)), self.difference_unit
        return f"{text} {unit.removesuffix('s') if text == '1' else unit}".rstrip()

    def _compared(self, value: float) -> str:
        return f"{value:.2f}" if self.metric.scale == "log" else self.number(value)


def style(summary: Summary, metric: Metric, *, brief: bool = False) -> Style:
    """The style of `metric`, one for all arms so that its numbers align.

    Intervals get two to three digits, or in sentences (`brief`) one to two.
    """
    cells = [a.cells[metric.name] for a in summary.arms if metric.name in a.cells]
    widths = [w for c in cells for e in (c.estimate, c.difference) if e is not None and (w := e.width)]
    if widths and metric.scale == "linear":
        size = statistics.median(widths)
    else:
        means = [c.estimate.mean for c in cells]
        size = (max(means) - min(means) or max(map(abs, means))) if means else 1.0
    size *= 100 if metric.unit == "share" else 1
    size /= 1 if brief else 3
    return Style(metric, min(max(1 - math.floor(math.log10(size) + 1e-9), 0), 4) if size > 0 else 0)


def count(value: float) -> str:
    """A count in three digits: `950`, `20.3k`, `200k`, `1.25M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:
            return f"{float(f'{value / limit:.3g}'):g}{unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """`4.2 s`, `93 s`, `12 min`, `3.4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a`, `a and b`, `a, b and 3 more`."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


_LUCK = "but one seed gives no interval: this may be luck"


def verdict(summary: Summary) -> str:
    """What the comparison found, in one sentence; a second one counts the runs that failed."""
    sentence = _finding(summary)
    if summary.failures and summary.failures < summary.runs:
        failed = [f"{a.name} {len(a.failures)}" for a in summary.arms if a.failures]
        sentence += f" {summary.failures} of {summary.runs} runs failed ({listed(failed)}) and are left out."
    return sentence


def _finding(summary: Summary) -> str:
    metric = summary.primary
    if summary.failures == summary.runs:
        return f"No result: all {summary.runs} runs failed."
    if metric.better is None:
        return f"{metric.label} has no better direction, so the arms are not ranked."
    if summary.best is None:
        return "Nothing to compare: only the baseline has a result."
    best, how = summary.arm(summary.best), style(summary, metric, brief=True)
    base, label, cost = summary.baseline, metric.label, _cost(summary, best)
    cell = best.cells[metric.name]
    difference = cell.difference
    if difference is None:
        interval = how.interval(cell.estimate)
        sure = f" (95% {interval})" if interval else ""
        extreme = "highest" if metric.better == "higher" else "lowest"
        text = f"{best.name} has the {extreme} {label}, {how.value(cell.estimate.mean)}{sure}{cost}"
        return f"{text}, {_LUCK}." if cell.estimate.n == 1 else f"{text}{_ties(summary)}."
    if base == OWN_START:
        return _across_starts(summary, best, how)
    amount, sure = how.amount(difference.mean), f"(95% {how.interval(difference)})"
    rises = difference.mean > metric.neutral
    place, verb = ("above", "raises") if rises else ("below", "lowers")
    if difference.low is None:
        return f"{best.name} is {amount} {place} {base} on {label}{cost}, {_LUCK}."
    if metric.improves(difference):
        return f"{best.name} {verb} {label} by {amount} against {base} {sure}{cost}{_ties(summary)}."
    if difference.excludes(metric.neutral):
        return f"Every method is behind {base} on {label}: the nearest, {best.name}, by {amount} {sure}."
    nearest = f"the nearest, {best.name}, is {amount} {place} {sure}"
    return f"No method is shown to beat {base} on {label}: {nearest}."


def _across_starts(summary: Summary, best: Arm, how: Style) -> str:
    """The finding where arms start from different models: their values decide, and each is set against its start."""
    metric, cell = summary.primary, best.cells[summary.primary.name]
    assert cell.difference is not None
    extreme = "highest" if metric.better == "higher" else "lowest"
    sure, moved = how.interval(cell.estimate), how.interval(cell.difference)
    text = f"{best.name} has the {extreme} {metric.label}, {how.value(cell.estimate.mean)}"
    text += f" (95% {sure})" if sure else ""
    unit = how.difference_unit if metric.scale == "linear" else ""
    text += f", {how.change(cell.difference)} {unit}".rstrip() + f" against {OWN_START}"
    text += f" (95% {moved})" if moved else ""
    text += _cost(summary, best) + (_ties(summary) if sure else f", {_LUCK}")
    if not any(metric.improves(a.cells[metric.name].difference) for a in summary.arms if metric.name in a.cells):
        text += f". No method is shown to be better than {OWN_START}"
    first = summary.arms[0]
    if first.baseline:
        text += f". But {first.name}, which learned nothing, has {how.value(first.cells[metric.name].estimate.mean)}"
    return f"{text}."


def _cost(summary: Summary, best: Arm) -> str:
    if summary.quickest is None or best.time is None or len([a for a in summary.arms if a.seconds]) < 2:
        return ""
    if best.name == summary.quickest:
        return " and is the quickest to train"
    ratio = best.time.mean
    times = f"{ratio:.1f}x the time" if ratio < 9.95 else f"{ratio:.0f}x the time"
    return f" at {times if ratio >= 1.05 else 'about the time'} of {summary.quickest}"


def _ties(summary: Summary) -> str:
    others = [a for a in summary.arms if a.standing in ("tied", "other") and a.gap is not None]
    tied = [a.name for a in others if a.standing == "tied"]
    if not others or all(a.gap is None or a.gap.low is None for a in others):
        return ""
    if not tied:
        return "; the other methods are behind it" if len(others) > 1 else f"; {others[0].name} is behind it"
    if len(tied) == len(others) and len(tied) > 1:
        return f"; none of the other {len(tied)} methods can be told apart from it"
    return f"; {listed(tied)} cannot be told apart from it"


def interval_note(summary: Summary) -> str:
    """What the intervals of a comparison stand for, in a sentence or two."""
    if len(summary.seeds) < 2:
        return "One seed: trained arms have no intervals, and a difference may be luck."
    seeds = f"{len(summary.seeds)} seeds"
    if summary.items:
        items = f"the variance of the {summary.items} items added"
        over = f"new seeds and new test items (Student's t over {seeds}, {items})"
    else:
        over = f"new seeds (Student's t over {seeds})"
    pairs = "seed and item" if summary.items else "seed"
    return (
        f"Intervals hold the truth 95 times in 100 for {over}. Differences are paired by {pairs}. "
        "Each interval stands for itself: of twenty arms that change nothing, one will seem to."
    )
