from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teloi.measure.summary import summarise
from teloi.report.curves import curve, quantities
from teloi.report.figures import figure, intervals, run_figure, svg, trade_offs

Make = Callable[..., dict[str, Any]]


def test_comparison_figure(make_results: Make, tmp_path: Path) -> None:
    path = figure(make_results(failed=[("kto", 0), ("kto", 1), ("kto", 2)]), tmp_path / "compare.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000
    assert [p.name for p in tmp_path.iterdir()] == ["compare.png"]


def test_the_drawing_shows_every_seed_and_arm(make_results: Make) -> None:
    from matplotlib.figure import Figure

    from teloi.report.figures import LIGHT

    summary = summarise(make_results(seeds=4))
    ax = Figure().subplots()
    intervals(summary)(ax, LIGHT)
    assert [label.get_text() for label in ax.get_yticklabels()] == [a.name for a in reversed(summary.arms)]
    drawn = sorted(float(x) for dots in ax.collections for x in np.asarray(dots.get_offsets())[:, 0])
    values = sorted(100 * v for a in summary.arms for v in a.cells["checks_satisfied"].values.values())
    assert drawn == pytest.approx(values)


def test_svg_takes_its_colours_from_the_page(make_results: Make) -> None:
    summary = summarise(make_results(arms=["base", "sft", "a<b>&$x$"], seeds=2))
    for panel in (intervals(summary), *(panel for _, panel in trade_offs(summary))):
        text = svg(panel, 4.0, 3.0, 'label "quoted" <b>')
        root = ET.fromstring(text)
        assert root.attrib["aria-label"] == 'label "quoted" <b>'
        assert "var(--best)" in text
        assert "a<b>&$x$" in "".join(root.itertext())
        assert "#0" not in text


def test_same_results_same_drawing(make_results: Make) -> None:
    summary = summarise(make_results())
    assert svg(intervals(summary), 4.0, 3.0, "x") == svg(intervals(summary), 4.0, 3.0, "x")


def test_run_figure(tmp_path: Path) -> None:
    records = [{"step": i, "tokens": 100 * i, "loss": 1 / i, "lr": 1e-4, "note": "x", "kl": None} for i in range(1, 9)]
    assert run_figure(records, tmp_path / "curves.png").stat().st_size > 5_000
    assert run_figure(records[:1], tmp_path / "one.png").exists()
    assert run_figure([], tmp_path / "none.png").exists()


def test_quantities() -> None:
    records: list[dict[str, Any]] = [{"step": 1, "kl": 0.1, "ok": True, "text": "a"}, {"step": 2, "loss": 1.0}]
    assert quantities(records) == ["loss", "kl"]


def test_curve_averages_runs_where_both_have_values() -> None:
    runs = [
        [{"tokens": t, "loss": float(t)} for t in range(0, 1001, 10)],
        [{"tokens": t, "loss": float(t + 4)} for t in range(100, 1201, 5)],
        [{"tokens": 3, "loss": float("nan")}],
    ]
    c = curve(runs, "loss", "tokens")
    assert c is not None
    assert c.seeds == 2
    np.testing.assert_allclose(c.mean, c.x + 2)
    np.testing.assert_allclose(c.high - c.low, 4)
    assert curve(runs, "kl", "tokens") is None


def test_curve_keeps_the_mean() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 6000)
    c = curve([[{"step": i, "loss": v} for i, v in enumerate(noise)]], "loss", "step")
    assert c is not None
    assert len(c.x) == 60
    assert c.mean.mean() == pytest.approx(noise.mean())
