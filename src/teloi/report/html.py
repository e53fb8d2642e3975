"""The comparison as one HTML file: no script, no request to anywhere, light and dark, readable on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from teloi.files import write_text
from teloi.measure.summary import OWN_START, Arm, Summary, summarise
from teloi.measure.wording import Style, count, duration, interval_note, listed, style, verdict
from teloi.report.curves import axis, curve, quantities
from teloi.report.figures import course, intervals, panel_height, svg, trade_offs
from teloi.report.table import failures

OPEN_SAMPLES = 3


@dataclass(frozen=True)
class Fact:
    """An answer on the first screen: the question, the answer in a few words, what stands behind it."""

    question: str
    answer: str
    behind: str


@dataclass(frozen=True)
class Strip:
    """The scale of the difference bars in the table, in pixels; `zero` is where arms are equal."""

    low: float
    high: float
    zero: float
    width: int = 150

    def x(self, value: float) -> float:
        """Position of `value`."""
        return round(6 + (value - self.low) / (self.high - self.low) * (self.width - 12), 1)


def render_html(results: Mapping[str, Any], path: str | Path) -> Path:
    """Write the report of a comparison (a `results.json`, read) to `path` and return it."""
    summary = summarise(results)
    styles = {m.name: style(summary, m) for m in summary.metrics}
    text = page(
        "report.html.jinja",
        results=results,
        summary=summary,
        styles=styles,
        how=styles[summary.primary.name],
        verdict=verdict(summary),
        facts=facts(summary),
        strip=_strip(summary),
        interval_note=interval_note(summary),
        failures=failures(summary),
        figures=_figures(summary),
        others=_others(summary),
        curves=_curves(summary, results),
        samples=list(results.get("samples") or []),
        open_samples=OPEN_SAMPLES,
        speakers=_speakers(summary),
        ledger=_ledger(summary),
        settings=_settings(summary),
        versions=_versions(results),
    )
    write_text(Path(path), text)
    return Path(path)


def page(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file, with the style that all share."""
    from jinja2 import ChainableUndefined, Environment

    environment = Environment(autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(count=count, duration=duration, minus=minus, setting=_setting, quantity=quantity)
    folder = files("teloi.report")
    css = folder.joinpath("page.css").read_text("utf-8")
    return environment.from_string(folder.joinpath(template).read_text("utf-8")).render(css=css, **values)


def facts(summary: Summary) -> list[Fact]:
    """Which, by how much, how sure, at what cost; empty where there is no best arm."""
    if summary.best is None:
        return []
    best, metric = summary.arm(summary.best), summary.primary
    return [_which(summary, best), *_how_much(summary, best, style(summary, metric, brief=True)), _cost(summary, best)]


def _which(summary: Summary, best: Arm) -> Fact:
    metric = summary.primary
    difference = best.cells[metric.name].difference
    own = summary.baseline == OWN_START  # arms are ranked by their values, whatever they started from
    if not own and difference is not None and difference.width is not None and not metric.improves(difference):
        return Fact("Which", "none", f"nearest: {best.name}")
    tied = [a.name for a in summary.arms if a.standing == "tied" and a.gap is not None and a.gap.width is not None]
    methods = sum(not a.baseline for a in summary.arms)
    if tied:
        return Fact("Which", best.name, f"{listed(tied)} cannot be told apart from it")
    return Fact("Which", best.name, f"best of {methods} on {metric.label}" if methods > 1 else metric.label)


def _how_much(summary: Summary, best: Arm, how: Style) -> list[Fact]:
    cell = best.cells[how.metric.name]
    label, estimate = summary.primary.label, cell.difference or cell.estimate
    if cell.difference is None or best.against is None:
        unit = how.unit
        much = Fact("By how much", how.value(estimate.mean), f"{label}, no baseline")
    else:
        unit = "" if how.metric.scale == "log" else how.difference_unit
        base = summary.arm(best.against).cells[how.metric.name].estimate.mean
        change = f"{how.change(estimate)} {unit}".rstrip()
        much = Fact("By how much", change, f"{label} {how.value(base)} → {how.value(cell.estimate.mean)}")
    seeds = f"{estimate.n} seed{'s' if estimate.n > 1 else ''}"
    seeds += f", {summary.items} test items" if summary.items else ""
    interval = how.interval(estimate)
    if not interval:
        return [much, Fact("How sure", "unknown", f"no interval from {seeds}")]
    return [much, Fact("How sure", f"{interval} {unit}".rstrip(), f"95% interval, {seeds}")]


def minus(text: str) -> str:
    """Text with a true minus sign before numbers."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _cost(summary: Summary, best: Arm) -> Fact:
    parts = []
    if "trained_tokens" in best.ledger:
        parts.append(f"{count(best.ledger['trained_tokens'])} tokens trained")
    drift = summary.drift
    if drift is not None and drift.name in best.cells:
        mean = best.cells[drift.name].estimate.mean
        parts.append(f"{drift.label} {style(summary, drift, brief=True).value(mean)}")
    if best.time is not None and best.name != summary.quickest:
        parts.insert(0, f"{best.time.mean:.1f}x the time of {summary.quickest}")
    time = "unknown" if best.mean_seconds is None else f"{duration(best.mean_seconds)} a run"
    return Fact("At what cost", time, ", ".join(parts))


def _strip(summary: Summary) -> Strip | None:
    """A scale that holds every difference of the primary metric and no difference at all."""
    metric = summary.primary
    cells = [a.cells[metric.name].difference for a in summary.arms if metric.name in a.cells]
    ends = [x for e in cells if e is not None for x in (e.low, e.high, e.mean) if x is not None]
    if not ends:
        return None
    low, high = min(*ends, metric.neutral), max(*ends, metric.neutral)
    return Strip(low, high if high > low else low + 1.0, metric.neutral)


def _figures(summary: Summary) -> list[tuple[str, str]]:
    """Panels as SVG, each with its caption."""
    if not any(summary.primary.name in a.cells for a in summary.arms):
        return []
    label = summary.primary.label
    captions = {
        "cost": f"{label} against the time to prepare and train one run.",
        "drift": f"{label} against the distance from the base: what was paid in change for it.",
    }
    first = svg(intervals(summary), 4.3, panel_height(summary), f"{label} by arm")
    rest = [(svg(panel, 3.35, 3.0, f"{label} and {kind}"), captions[kind]) for kind, panel in trade_offs(summary)]
    return [(first, f"{label}: a dot a seed, a tick at the mean, a bar for the 95% interval."), *rest]


def _others(summary: Summary) -> list[tuple[str, str]]:
    """A panel for each other metric that has a better direction and several arms."""
    made = []
    for metric in summary.metrics[1:]:
        arms = sum(metric.name in arm.cells for arm in summary.arms)
        if metric.better is not None and arms > 1:
            drawing = svg(intervals(summary, metric), 4.3, max(1.6, 0.9 + 0.3 * arms), f"{metric.label} by arm")
            made.append((drawing, metric.label))
    return made


def _curves(summary: Summary, results: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each recorded quantity, a small panel an arm."""
    runs = {a["name"]: [r["curve"] for r in a["runs"] if r.get("curve")] for a in results["arms"]}
    records = [record for curves in runs.values() for one in curves for record in one]
    over = axis(records)
    groups = []
    for name in quantities(records):
        drawn = [(a.name, c) for a in summary.arms if (c := curve(runs[a.name], name, over)) is not None]
        panels = [(arm, svg(course(c, over), 2.7, 1.9, f"{name} of {arm}")) for arm, c in drawn]
        groups.append((name.replace("_", " "), panels))
    return groups


def _speakers(summary: Summary) -> list[str]:
    """Arms in the order of sample replies: the baseline first."""
    return [arm.name for arm in sorted(summary.arms, key=lambda arm: not arm.baseline)]


def _ledger(summary: Summary) -> list[tuple[str, str]]:
    """Keys of the ledger, with their labels."""
    keys = dict.fromkeys(key for arm in summary.arms for key in arm.ledger)
    return [(key, key.removesuffix("_seconds").replace("_", " ")) for key in keys]


def quantity(value: float, key: str) -> str:
    """An amount of the ledger, by its name."""
    if key == "epochs":
        return f"{value:.2g}"
    return duration(value) if key.endswith("seconds") else count(value)


def _settings(summary: Summary) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings that all trained arms share, and each arm's own."""
    trained = [a for a in summary.arms if a.trained]
    if len(trained) < 2:
        return {}, {a.name: dict(a.settings) for a in trained}
    first, *rest = trained
    shared = {k: v for k, v in first.settings.items() if all(k in a.settings and a.settings[k] == v for a in rest)}
    return shared, {a.name: {k: v for k, v in a.settings.items() if k not in shared} for a in trained}


def _setting(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _versions(results: Mapping[str, Any]) -> dict[str, str]:
    """Versions that the results name; this machine's may be others."""
    named = {"teloi": results.get("teloi"), **(results.get("versions") or {})}
    return {name: str(value) for name, value in named.items() if value}
