from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from teloi.measure.summary import summarise
from teloi.report.html import facts, minus, render_html

Make = Callable[..., dict[str, Any]]
VOID = {"meta", "br", "img", "link", "hr", "input"}
HOSTILE = "</div></main><script>alert('x')</script><img src=https://evil.example/x.png onerror=alert(1)> & \"q\" $a_b$"


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text outside of `style`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def page(results: dict[str, Any], tmp_path: Path) -> Page:
    return Page(render_html(results, tmp_path / "report.html").read_text("utf-8"))


def assert_self_contained(read: Page) -> None:
    assert not read.tags & {"script", "img", "link", "iframe", "object"}
    for name, value in read.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href"):
            assert (value or "").startswith("#")


def test_every_arm_and_section_appears(make_results: Make, tmp_path: Path) -> None:
    results = make_results()
    read = page(results, tmp_path)
    for arm in results["arms"]:
        assert read.text.count(arm["name"]) >= 4
    for metric in results["metrics"]:
        assert metric["about"] in read.text
    for sample in results["samples"]:
        assert sample["prompt"] in read.text
    assert results["command"] in read.text
    assert results["notes"][1] in read.text
    assert "higher is better" in read.text
    assert read.text.count("Intervals hold the truth") == 1
    assert_self_contained(read)


def test_first_screen_answers(make_results: Make) -> None:
    which, much, sure, cost = facts(summarise(make_results()))
    assert which.answer == "dpo"
    assert re.fullmatch(r"\+\d+ points", much.answer)
    assert re.fullmatch(r"checks satisfied \d+% → \d+%", much.behind)
    assert re.fullmatch(r"\d+ to \d+ points", sure.answer)
    assert sure.behind == "95% interval, 3 seeds, 200 test items"
    assert re.fullmatch(r"\d+ s a run", cost.answer)
    assert re.match(r"1\.\dx the time of sft, \d+k tokens trained, KL from base ", cost.behind)


def test_hostile_text_stays_text(make_results: Make, tmp_path: Path) -> None:
    results = make_results(arms=["base", "sft", HOSTILE], seeds=2, prompts=30, samples=1)
    results["samples"][0]["prompt"] = HOSTILE
    results["samples"][0]["replies"]["sft"]["text"] = HOSTILE + "\ud800"
    results["samples"][0]["checks"] = [HOSTILE]
    results["notes"] = [HOSTILE]
    results["command"] = results["model"] = results["data"]["train"] = HOSTILE
    results["arms"][1]["settings"]["template"] = HOSTILE
    results["arms"][1]["runs"][0]["failed"] = HOSTILE
    results["metrics"] = [{**metric, "label": HOSTILE, "about": HOSTILE} for metric in results["metrics"]]
    read = page(results, tmp_path)
    assert_self_contained(read)
    assert "<script>alert('x')</script>" in read.text


def test_one_seed_says_so(make_results: Make, tmp_path: Path) -> None:
    read = page(make_results(seeds=1, samples=0), tmp_path)
    assert "One seed: trained arms have no intervals" in read.text
    assert "unknown" in read.text
    assert "Replies side by side" not in read.text


def test_failed_runs_are_counted_and_explained(make_results: Make, tmp_path: Path) -> None:
    failed = [("kto", 1), *(("ipo", seed) for seed in range(3))]
    read = page(make_results(failed=failed), tmp_path)
    assert "kto: 1 of 3 runs failed: non-finite loss at step 3" in read.text
    assert "ipo: 3 of 3 runs failed" in read.text
    assert "2 of 3 runs" in read.text
    assert "no result" in read.text


def test_nothing_but_failures(make_results: Make, tmp_path: Path) -> None:
    results = make_results(arms=["base", "sft"], seeds=2, failed=[(a, s) for a in ("base", "sft") for s in (0, 1)])
    assert "No result: all 4 runs failed." in page(results, tmp_path).text


def test_bare_results(tmp_path: Path) -> None:
    """No items, samples, curves, ledger, notes, budget or baseline."""
    results = {
        "metrics": [{"name": "loss", "better": "lower"}],
        "arms": [
            {"name": n, "method": n, "runs": [{"seed": 0, "metrics": {"loss": v}}]} for n, v in (("a", 1.0), ("b", 2.0))
        ],
        "model": "M",
        "data": {"train": "D"},
        "created": "2026-01-01",
    }
    read = page(results, tmp_path)
    assert "a has the lowest loss" in read.text


def test_twenty_arms(make_results: Make, tmp_path: Path) -> None:
    names = ["base", *(f"variant-{i:02}" for i in range(19))]
    results = make_results(arms=names, seeds=2, prompts=40, samples=1)
    for arm in results["arms"]:
        for run in arm["runs"]:
            run["curve"] = [{"step": p["step"], "loss": p["loss"]} for p in run["curve"][:10]]
    read = page(results, tmp_path)
    assert all(read.text.count(name) >= 4 for name in names)


def test_a_report_is_replaced_whole(make_results: Make, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    results = make_results(arms=["base", "sft"], seeds=2, prompts=30)
    render_html(results, path)
    before = path.read_text("utf-8")
    del results["arms"]
    with pytest.raises(Exception, match="arms"):
        render_html(results, path)
    assert path.read_text("utf-8") == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_importing_the_report_is_cheap() -> None:
    modules = "teloi.report.html, teloi.report.card, teloi.report.table, teloi.report.figures"
    code = f"import sys, {modules}; print({{'matplotlib', 'jinja2', 'rich', 'torch', 'yaml'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_minus() -> None:
    assert minus("-3.0 to -1.2") == "−3.0 to −1.2"
    assert minus("variant-3 and 1e-5") == "variant-3 and 1e-5"
