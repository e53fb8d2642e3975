from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from teloi.measure.summary import summarise
from teloi.report.table import print_table

Make = Callable[..., dict[str, Any]]


def printed(results: dict[str, Any], **console: Any) -> list[str]:
    buffer = io.StringIO()
    print_table(summarise(results), Console(file=buffer, color_system=None, **console))
    return buffer.getvalue().splitlines()


def test_plain_has_one_line_an_arm(make_results: Make) -> None:
    lines = printed(make_results())
    assert [line.split()[0] for line in lines[:3]] == ["arm", "dpo", "simpo"]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[6].split()[-1] == "74.0"
    assert "baseline" in lines[6]
    assert "(95% " not in lines[0]
    assert lines[7].startswith("Intervals hold the truth 95 times in 100")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_terminal_shows_every_cell_at_any_width(make_results: Make, width: int) -> None:
    results = make_results()
    lines = printed(results, force_terminal=True, width=width)
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert "…" not in text
    for cell in printed(results)[1].split("  "):
        assert cell.strip() in text


def test_one_seed(make_results: Make) -> None:
    lines = printed(make_results(seeds=1))
    assert " to " not in lines[1]
    assert lines[-1].startswith("One seed: trained arms have no intervals")


def test_failures_and_missing_metrics(make_results: Make) -> None:
    lines = printed(make_results(failed=[("kto", 0), ("kto", 1), ("kto", 2)]))
    assert lines[6].split() == ["kto", *"--------"]
    assert lines[-1] == "kto: 3 of 3 runs failed: non-finite loss at step 3"


def test_names_are_no_markup(make_results: Make) -> None:
    assert any("[red]x" in line for line in printed(make_results(arms=["base", "[red]x"], seeds=2)))
