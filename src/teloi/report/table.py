"""The comparison as a table for the terminal; aligned plain text where there is none."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from teloi.measure.summary import Arm, Summary
from teloi.measure.wording import Style, count, duration, interval_note, style

if TYPE_CHECKING:
    from rich.console import Console

Row = Sequence[str]


def print_table(summary: Summary, console: Console | None = None) -> None:
    """Print what each arm reached, its difference to the baseline, and what it cost.

    In a terminal the columns that do not fit go to a second table. Elsewhere every arm is one line.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    columns = _columns(summary)
    if not console.is_terminal:
        for line in _plain(columns):
            console.print(Text(line), soft_wrap=True)
    else:
        for part in _fitting(columns, console.width):
            _print_rich(part, summary, console)
    for line in [interval_note(summary), *summary.empty, *failures(summary)]:
        console.print(Text(line, style="dim"), soft_wrap=not console.is_terminal)


def failures(summary: Summary) -> list[str]:
    """A line for each arm with failed runs: how many, and why."""
    lines = []
    for arm in summary.arms:
        if arm.failures:
            reasons = dict.fromkeys(failure.reason for failure in arm.failures)
            lines.append(f"{arm.name}: {len(arm.failures)} of {arm.runs} runs failed: {'; '.join(reasons)}")
    return lines


def _columns(summary: Summary) -> list[list[str]]:
    """Columns of text, the header first: arm, primary metric, difference, cost, then the other metrics."""
    primary = style(summary, summary.primary)
    columns = [["arm", *(arm.name for arm in summary.arms)], _values(summary, primary)]
    if summary.baseline is not None:
        unit = f" ({primary.difference_unit})" if primary.difference_unit else ""
        columns.append([f"against {summary.baseline}{unit}", *(_change(arm, primary) for arm in summary.arms)])
    columns.append(["tokens", *(_ledger(arm, "trained_tokens") for arm in summary.arms)])
    times = ["-" if a.mean_seconds is None else duration(a.mean_seconds) for a in summary.arms]
    columns.append(["time a run", *times])
    columns += [_values(summary, style(summary, metric)) for metric in summary.metrics[1:]]
    return columns


def _values(summary: Summary, how: Style) -> list[str]:
    header = how.metric.label + (f" ({how.unit})" if how.unit else "")
    column = [header]
    for arm in summary.arms:
        cell = arm.cells.get(how.metric.name)
        if cell is None:
            column.append("-")
        elif how.metric.primary or how.metric is summary.primary:
            interval = how.interval(cell.estimate)
            column.append(how.number(cell.estimate.mean) + (f" ({interval})" if interval else ""))
        else:
            column.append(how.number(cell.estimate.mean))
    return column


def _change(arm: Arm, how: Style) -> str:
    cell = arm.cells.get(how.metric.name)
    if cell is None or cell.difference is None:
        return "baseline" if arm.baseline else "-"
    interval = how.interval(cell.difference)
    return how.change(cell.difference) + (f" ({interval})" if interval else "")


def _ledger(arm: Arm, key: str) -> str:
    return count(arm.ledger[key]) if arm.ledger.get(key) else "-"


def _plain(columns: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in zip(*columns, strict=True):
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]))
    return lines


def _fitting(columns: list[list[str]], width: int) -> list[list[list[str]]]:
    """Split the columns so that each part, the arms' names repeated, fits; headers break at blanks."""
    parts: list[list[list[str]]] = []
    free = -1
    for column in columns[1:]:
        need = max(10, *map(len, column[1:]), *map(len, column[0].split()))
        if need + 2 > free:
            parts.append([columns[0]])
            free = width - max(map(len, columns[0]))
        parts[-1].append([textwrap.fill(column[0], need, break_long_words=False), *column[1:]])
        free -= need + 2
    return parts


def _print_rich(columns: Sequence[Row], summary: Summary, console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for i, column in enumerate(columns):
        side: Literal["left", "right"] = "left" if i == 0 else "right"
        table.add_column(Text(column[0]), justify=side, vertical="bottom", no_wrap=True)
    for arm, row in zip(summary.arms, list(zip(*columns, strict=True))[1:], strict=True):
        look = {"best": "bold", "baseline": "dim"}.get(arm.standing, "")
        table.add_row(*(Text(cell) for cell in row), style=look)
    console.print(table)
    console.print()
