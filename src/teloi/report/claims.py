"""A measured claim in words, as a line of a table, and as a figure with every seed. Reads results, judges nothing.

Imports nothing heavy until a figure is drawn: `teloi show` speaks of claims too.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teloi.claims.results import Result
from teloi.errors import TeloiError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from teloi.report.figures import Theme

BEGIN = "<!-- claims: written by `teloi claim --readme README.md` -->"
END = "<!-- /claims -->"

LABEL = 50
"""Characters below a panel, on each line."""


def verdict(result: Result) -> str:
    """The verdict, with the failed checks where it is invalid; a trial has none."""
    if result["verdict"] is None:
        return "a trial, not for the record: no verdict"
    failed = [check["about"] for check in result["checks"] if not check["passed"]]
    because = f" (failed: {'; '.join(failed)})" if failed else ""
    return f"{result['verdict']}{because}"


def held(result: Result) -> str:
    """How many of the deciding expectations hold, and what becomes of the others: "4 of 6 hold, 2 open"."""
    findings = [one["finding"] for one in result["expectations"] if one["decides"]]
    others = (f", {findings.count(kind)} {kind}" for kind in ("contradicted", "open") if kind in findings)
    return f"{findings.count('holds')} of {len(findings)} hold" + "".join(others)


def expectation(result: Result, one: Mapping[str, Any]) -> str:
    """An expectation with what was found: "dpo against sft, right decisions: +6.2 points (4.0 to 8.4), ..."."""
    metric = next(metric for metric in result["metrics"] if metric["name"] == one["metric"])
    asked = {
        "superior": f"expected above {_amount(one['margin'], metric)}",
        "noninferior": f"expected above {_amount(_behind(one['margin'], metric), metric)}",
        "equivalent": f"expected within {_amount(_behind(one['margin'], metric), metric)} "
        f"and {_amount(one['margin'], metric)}",
    }[one["kind"]]
    missing = f", {len(one['missing'])} seeds missing" if one["missing"] else ""
    return (
        f"{one['better']} against {one['worse']}, {metric['label']}: {difference(one['estimate'], metric)}, "
        f"{asked}{missing}: {one['finding']}"
    )


def difference(estimate: Mapping[str, Any] | None, metric: Mapping[str, Any]) -> str:
    """A mean paired difference or ratio with its interval; positive, or above 1, is ahead."""
    if estimate is None:
        return "no numbers"
    low, high = estimate["low"], estimate["high"]
    interval = "" if low is None else f" ({_compared(low, metric)} to {_compared(high, metric)})"
    return _amount(estimate["mean"], metric) + interval


def collapsed(result: Result) -> str:
    """Runs that collapsed or failed, by arm; empty without any."""
    counts = {
        arm["name"]: sum(bool(run["collapsed"] or run["failed"]) for run in arm["runs"]) for arm in result["arms"]
    }
    return ", ".join(f"{count} of {name}" for name, count in counts.items() if count)


def cost(result: Result) -> str:
    """Seeds, arms and time: "8 arms, 5 seeds, 9 minutes of one thread"."""
    minutes = result["seconds"] / 60
    time = f"{minutes:.0f} minutes" if minutes >= 2 else f"{result['seconds']:.0f} seconds"
    return f"{len(result['arms'])} arms, {len(result['seeds'])} seeds, {time} of one thread"


def paragraphs(result: Result) -> Iterator[str]:
    """Everything there is to say, line by line."""
    yield f"{result['claim']}: {verdict(result)}"
    yield result["statement"]
    yield result["setting"]
    for title, decides in (("The paper's claim", True), ("Beyond it", False)):
        lines = [expectation(result, one) for one in result["expectations"] if one["decides"] == decides]
        if lines:
            yield f"{title}:"
            yield from (f"  {line}" for line in lines)
    for check in result["checks"]:
        yield f"check {'passed' if check['passed'] else 'FAILED'}: {check['about']}"
    if lost := collapsed(result):
        yield f"collapsed runs: {lost}"
    yield f"{cost(result)}; on real text: {result['real_text'] or 'not measured'}"


def means(result: Result) -> Iterator[tuple[str, ...]]:
    """Every arm's means over its seeds, geometric for ratios, of the metrics in expectations; the header first."""
    shown = _judged_metrics(result)
    yield "arm", *(f"{metric['label']}{_unit(metric)}" for metric in shown)
    for arm in result["arms"]:
        cells = []
        for metric in shown:
            found = [value for run in arm["runs"] if (value := run["metrics"].get(metric["name"])) is not None]
            cells.append(_bare(_mean(found, metric), metric) if found else "-")
        yield arm["name"], *cells


# -- the table of a README


def table(results: Mapping[str, Result], cite: Callable[[str], str]) -> str:
    """Measured claims as a Markdown table; `cite` gives a paper's citation by its slug."""
    lines = [
        "| paper | claim | verdict | expectations | the first of them | run | real text |",
        "|" + "---|" * 7,
    ]
    for slug, result in results.items():
        lines.append(
            f"| {cite(slug)} | {result['statement']} | **{verdict(result)}** "
            f"([all seeds](docs/claims/{slug}.png), [numbers](results/claims/{slug}.json)) | {held(result)} "
            f"| {expectation(result, result['expectations'][0])} "
            f"| {cost(result)}{_lost(result)} | {result['real_text'] or 'not measured'} |"
        )
    return "\n".join(lines)


def with_table(text: str, made: str) -> str:
    """A README with the table between its two marks replaced. TeloiError where it has no marks."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise TeloiError(f"there is no place for the table of claims: it stands between {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{made}\n{END}", text)


# -- the figure


def claim_figure(result: Result, path: str | Path) -> Path:
    """A panel for each metric that expectations name: a dot a seed, a tick at the mean, the arms in their order.

    Hollow dots are collapsed runs. More than four panels stand in rows. The suffix of `path` chooses the format.
    """
    from teloi.report.figures import LIGHT, _figure, _save, _style

    metrics = _judged_metrics(result)
    with _style(LIGHT):
        rows = math.ceil(len(metrics) / 4)
        columns = math.ceil(len(metrics) / rows)
        fig = _figure(2.2 + 3.4 * columns, 0.3 + rows * (0.8 + 0.34 * len(result["arms"])))
        axes = list(fig.subplots(rows, columns, squeeze=False, sharey=True).flat)
        for ax, metric in zip(axes, metrics, strict=False):
            _panel(ax, result, metric, LIGHT)
        for ax in axes[len(metrics) :]:
            ax.remove()
        fig.suptitle(f"{result['claim']}: {verdict(result)}", fontsize=10)
        return _save(fig, Path(path))


def _panel(ax: Axes, result: Result, metric: Mapping[str, Any], theme: Theme) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    arms = list(reversed(result["arms"]))
    named = {one["better"] for one in result["expectations"] if one["decides"]}
    factor = 100 if metric["unit"] == "share" else 1
    for y, arm in enumerate(arms):
        color = theme.best if arm["name"] in named else theme.other
        runs = [run for run in arm["runs"] if run["metrics"].get(metric["name"]) is not None]
        if metric["scale"] == "log":  # what is compared by ratio has no place at 0
            runs = [run for run in runs if run["metrics"][metric["name"]] > 0]
        values = [run["metrics"][metric["name"]] * factor for run in runs]
        if not values:
            continue
        offsets = [0.3 * (i - (len(values) - 1) / 2) / max(1, len(values) - 1) for i in range(len(values))]
        faces = [theme.paper if run["collapsed"] else color for run in runs]
        ax.scatter(values, [y - o for o in offsets], s=16, color=faces, edgecolor=color, lw=0.9, zorder=3)
        ax.plot([_mean(values, metric)] * 2, [y - 0.32, y + 0.32], color=color, lw=1.6, zorder=2)
    lost = {arm["name"]: sum(bool(run["collapsed"] or run["failed"]) for run in arm["runs"]) for arm in arms}
    labels = [name + (f" ({count} collapsed)" if count else "") for name, count in lost.items()]
    ax.set_yticks(range(len(arms)), labels=labels)
    ax.set_ylim(-0.6, len(arms) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    if metric["scale"] == "log":
        ax.set_xscale("log")
        reach = ax.get_xlim()[1] / ax.get_xlim()[0]
        if reach < 100:  # powers of ten would leave it with a tick or none
            ax.xaxis.set_major_locator(MaxNLocator(6) if reach < 10 else LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    ax.grid(axis="x", color=theme.line, lw=0.6)
    direction = f" ({metric['better']} is better)" if metric["better"] else ""
    ax.set_xlabel(textwrap.fill(f"{metric['label']}{_unit(metric)}{direction}", LABEL))


def _mean(values: Sequence[float], metric: Mapping[str, Any]) -> float:
    """The mean that differences are taken of: geometric where arms are compared by ratio."""
    if metric["scale"] == "log":
        return math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else math.nan
    return sum(values) / len(values)


def _judged_metrics(result: Result) -> list[Mapping[str, Any]]:
    named = {one["metric"] for one in result["expectations"]}
    return [metric for metric in result["metrics"] if metric["name"] in named]


def _lost(result: Result) -> str:
    return f"; collapsed: {found}" if (found := collapsed(result)) else ""


def _behind(margin: float, metric: Mapping[str, Any]) -> float:
    return 1 / margin if metric["scale"] == "log" else -margin


def _unit(metric: Mapping[str, Any]) -> str:
    unit = "%" if metric["unit"] == "share" else metric["unit"]
    return f", {unit}" if unit else ""


def _bare(value: float, metric: Mapping[str, Any]) -> str:
    """A value without its unit. Small shares that are compared by ratio keep digits that show it."""
    text = f"{value:.2f}"
    if metric["unit"] == "share":
        text = f"{100 * value:.{3 if metric['scale'] == 'log' and value < 0.01 else 1}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _compared(value: float, metric: Mapping[str, Any]) -> str:
    """A ratio or a difference without its unit."""
    return f"{value:.2f}" if metric["scale"] == "log" else _bare(value, metric)


def _amount(value: float, metric: Mapping[str, Any]) -> str:
    text, unit = _compared(value, metric), "points" if metric["unit"] == "share" else metric["unit"] or ""
    if metric["scale"] == "log":
        return f"{text}x"
    return f"{text if text.startswith('-') or float(text) == 0 else f'+{text}'} {unit}".rstrip()
