"""Figures, drawn with matplotlib. Colour says one thing: the best arm, those tied with it, the others."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teloi.files import replacing
from teloi.measure.statistics import Estimate
from teloi.measure.summary import Arm, Metric, Summary, summarise
from teloi.measure.wording import count, style
from teloi.report.curves import Curve, axis, curve, quantities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Callable[["Axes", "Theme"], None]


@dataclass(frozen=True)
class Theme:
    """Colours by what they say."""

    ink: str = "#1c1f23"
    muted: str = "#676d76"
    line: str = "#d9dce1"
    paper: str = "#ffffff"
    best: str = "#1559b3"
    tied: str = "#6f9fdc"
    other: str = "#8b9199"

    def of(self, arm: Arm) -> str:
        """The colour of an arm."""
        return {"best": self.best, "tied": self.tied}.get(arm.standing, self.other)


LIGHT = Theme()
# Stand-ins that `svg` turns into CSS variables, so that one drawing serves light and dark pages.
_CSS = Theme("#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707")


def figure(results: Mapping[str, Any], path: str | Path) -> Path:
    """Draw a comparison: the primary metric of each arm, beside what it cost in time and in drift.

    The suffix of `path` chooses the format (.png, .svg, .pdf).
    """
    summary = summarise(results)
    panels = [intervals(summary), *(panel for _, panel in trade_offs(summary))]
    with _style(LIGHT):
        fig = _figure(4.3 * len(panels), panel_height(summary))
        ratios = [1.25, *[1.0] * (len(panels) - 1)]
        axes = fig.subplots(1, len(panels), width_ratios=ratios, squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            panel(ax, LIGHT)
        return _save(fig, Path(path))


def run_figure(records: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Draw the curves of one training run from the lines of its `metrics.jsonl`, the loss first."""
    over = axis(records)
    drawn = [(name, c) for name in quantities(records) if (c := curve([records], name, over)) is not None]
    columns = min(3, max(1, len(drawn)))
    rows = max(1, math.ceil(len(drawn) / columns))
    with _style(LIGHT):
        fig = _figure(3.4 * columns, 2.3 * rows)
        grid = fig.subplots(rows, columns, squeeze=False).ravel()
        for ax in grid[len(drawn) :]:
            ax.set_axis_off()
        for ax, (name, c) in zip(grid, drawn, strict=False):
            ax.set_title(name.replace("_", " "))
            course(c, over)(ax, LIGHT)
        return _save(fig, Path(path))


def intervals(summary: Summary, metric: Metric | None = None) -> Panel:
    """A metric, the primary one by default: a dot a seed, a tick at the mean, a bar for the interval; the baseline
    dashed. Of another than the primary only the arms that have it."""
    metric = metric or summary.primary
    how = style(summary, metric)
    arms = [a for a in reversed(summary.arms) if metric is summary.primary or metric.name in a.cells]

    def draw(ax: Axes, theme: Theme) -> None:
        for y, arm in enumerate(arms):
            cell = arm.cells.get(metric.name)
            if cell is None:
                missing = "not defined" if metric.name in arm.undefined else "no result"
                ax.text(0.02, y, missing, transform=ax.get_yaxis_transform(), color=theme.muted, va="center")
                continue
            color = theme.of(arm)
            _bar(ax, cell.estimate, y, how.factor, color)
            values = [value * how.factor for value in cell.values.values()]
            offsets = [0.26 * (i - (len(values) - 1) / 2) / max(1, len(values) - 1) for i in range(len(values))]
            face = theme.paper if arm.baseline else color
            ax.scatter(values, [y - o for o in offsets], s=17, color=face, edgecolor=color, lw=0.9, zorder=3)
            ax.plot([cell.estimate.mean * how.factor] * 2, [y - 0.3, y + 0.3], color=color, lw=1.8, zorder=2)
            if arm.name == summary.baseline:
                ax.axvline(cell.estimate.mean * how.factor, color=theme.muted, lw=0.8, ls=(0, (4, 3)), zorder=0)
        ax.set_yticks(range(len(arms)), labels=[_short(arm.name) for arm in arms])
        for label, arm in zip(ax.get_yticklabels(), arms, strict=True):
            label.set_fontweight("bold" if arm.standing == "best" else "normal")
        ax.set_ylim(-0.6, len(arms) - 0.4)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x", color=theme.line, lw=0.6)
        direction = f" ({how.direction})" if how.direction else ""
        ax.set_xlabel(named(metric.label, how.unit) + direction)

    return draw


def trade_offs(summary: Summary) -> list[tuple[str, Panel]]:
    """What the primary metric costs: a title and a panel each for time and for distance from the base."""
    panels = []
    times = {a.name: a.mean_seconds for a in summary.arms if a.mean_seconds is not None}
    if times:
        minutes = max(times.values()) > 300
        x = {name: value / (60 if minutes else 1) for name, value in times.items()}
        x |= {a.name: 0.0 for a in summary.arms if not a.trained}
        panels.append(("cost", _scatter(summary, x, f"time a run, {'minutes' if minutes else 'seconds'}")))
    drift = summary.drift
    if drift is not None and drift is not summary.primary:
        x = {a.name: a.cells[drift.name].estimate.mean for a in summary.arms if drift.name in a.cells}
        if x:
            panels.append(("drift", _scatter(summary, x, named(drift.label, style(summary, drift).unit))))
    return panels if any(summary.primary.name in a.cells for a in summary.arms) else []


def course(c: Curve, over: str) -> Panel:
    """A training curve: the mean over seeds and the band they span."""

    def draw(ax: Axes, theme: Theme) -> None:
        if c.seeds > 1:
            ax.fill_between(c.x, c.low, c.high, color=theme.tied, alpha=0.28, lw=0)
        single = len(c.x) == 1
        ax.plot(c.x, c.mean, color=theme.best, lw=1.3, marker="o" if single else "", ms=4)
        ax.grid(axis="y", color=theme.line, lw=0.6)
        ax.set_xlabel({"tokens": "trained tokens"}.get(over, over))
        ax.xaxis.set_major_formatter(lambda value, _: count(value))
        ax.locator_params(nbins=4)

    return draw


def svg(panel: Panel, width: float, height: float, label: str) -> str:
    """A panel of `width` x `height` inches as an inline SVG whose colours are the page's CSS variables."""
    with _style(_CSS, salt=label):
        fig = _figure(width, height)
        panel(fig.subplots(), _CSS)
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font(-family)?: [^;\"]*", _font, text)
    for name, value in vars(_CSS).items():
        text = text.replace(value, f"var(--{name})")
    name = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1).strip()


def named(label: str, unit: str) -> str:
    """A label with its unit: `checks satisfied, %`."""
    return f"{_short(label)}, {unit}" if unit else _short(label)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def panel_height(summary: Summary) -> float:
    """Inches that the rows of the arms need."""
    return max(3.0, 0.9 + 0.3 * len(summary.arms))


def _font(match: re.Match[str]) -> str:
    """Keep size and weight, leave the family to the page."""
    size = re.search(r"([\d.]+px)", match[0])
    weight = "bold " if re.search(r"\b(bold|700)\b", match[0]) else ""
    return f"font: {weight}{size[1]} var(--font)" if size else "font-family: var(--font)"


def _style(theme: Theme, salt: str = "teloi") -> AbstractContextManager[None]:
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "figure.facecolor": theme.paper,
        "text.parse_math": False,  # a name may hold dollars
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
    }
    return mpl.rc_context(settings)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(fig: Figure, path: Path) -> Path:
    with replacing(path) as draft:
        fig.savefig(draft, dpi=160, format=path.suffix.removeprefix("."))
    return path


def _bar(ax: Axes, estimate: Estimate, y: float, factor: float, color: str) -> None:
    if estimate.low is not None and estimate.high is not None:
        ends = [estimate.low * factor, estimate.high * factor]
        ax.plot(ends, [y, y], color=color, lw=5, alpha=0.3, solid_capstyle="butt", zorder=1)


def _scatter(summary: Summary, x: Mapping[str, float], xlabel: str) -> Panel:
    metric, how = summary.primary, style(summary, summary.primary)
    # The best and the baseline get their names first; where there is no room, later ones go without.
    arms = [a for a in summary.arms if a.name in x and metric.name in a.cells]
    arms.sort(key=lambda a: ("best", "baseline", "tied", "other").index(a.standing))

    def draw(ax: Axes, theme: Theme) -> None:
        for arm in arms:
            estimate, color = arm.cells[metric.name].estimate, theme.of(arm)
            if estimate.low is not None and estimate.high is not None:
                ends = [estimate.low * how.factor, estimate.high * how.factor]
                ax.plot([x[arm.name]] * 2, ends, color=color, lw=3, alpha=0.3, solid_capstyle="butt", zorder=1)
            face = theme.paper if arm.baseline else color
            ax.scatter([x[arm.name]], [estimate.mean * how.factor], s=34, color=face, edgecolor=color, zorder=3)
        ax.margins(0.12, 0.1)
        ax.grid(color=theme.line, lw=0.6)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(named(metric.label, how.unit))
        points = [(_short(a.name), x[a.name], a.cells[metric.name].estimate.mean * how.factor) for a in arms]
        _names(ax, points, theme)

    return draw


def _names(ax: Axes, points: Sequence[tuple[str, float, float]], theme: Theme) -> None:
    """Name each point beside it, at the first of eight places that is free."""
    from matplotlib.transforms import Bbox

    fig = ax.figure
    fig.draw_without_rendering()  # type: ignore[union-attr]  # a figure, no part of one
    pixel = fig.dpi / 72
    frame = ax.get_window_extent()
    centres = ax.transData.transform([(x, y) for _, x, y in points])
    taken = [
        Bbox.from_extents(cx - 3.5 * pixel, cy - 3.5 * pixel, cx + 3.5 * pixel, cy + 3.5 * pixel) for cx, cy in centres
    ]
    places = [
        (6, 0, "left", "center"),
        (-6, 0, "right", "center"),
        (0, 6, "center", "bottom"),
        (0, -6, "center", "top"),
    ]
    places += [
        (5, 5, "left", "bottom"),
        (-5, 5, "right", "bottom"),
        (5, -5, "left", "top"),
        (-5, -5, "right", "top"),
    ]
    for name, x, y in points:
        for dx, dy, ha, va in places:
            text = ax.annotate(
                name,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                ha=ha,
                va=va,
                color=theme.ink,
                fontsize=8.5,
            )
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
