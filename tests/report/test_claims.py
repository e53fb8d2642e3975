from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from teloi.claims.claim import Arm, Claim, Expect, Outcome
from teloi.claims.running import outcome
from teloi.errors import TeloiError
from teloi.measure.summary import Metric
from teloi.report.claims import (
    BEGIN,
    END,
    claim_figure,
    collapsed,
    expectation,
    held,
    means,
    paragraphs,
    table,
    verdict,
    with_table,
)

NEW, OLD = [0.60, 0.61, 0.63, 0.60], [0.50, 0.50, 0.51, 0.49]
TIMES = [2.0, 2.2, 2.1, 1.9]


def made(recorded: bool = True, **more: Any) -> dict[str, Any]:
    """Results of a small claim, as `claims.running.run` gives them."""
    claim = Claim(
        slug="paper",
        statement="New is better than old.",
        setting="Random numbers.",
        metrics=[
            Metric("share", "right answers", "higher", "share", resolution=0.001),
            Metric("times", "ratio", "higher", scale="log"),
            Metric("other", "other"),
        ],
        arms=[Arm("new", ""), Arm("old", "")],
        expectations=[
            Expect("share", "new", "old", 0.05),
            Expect("times", "new", "old", 4.0),
            Expect("share", "new", "old", 0.15, "equivalent", decides=False),
        ],
        run=lambda run: Outcome({}),
    )
    records = [
        {"arm": arm, "seed": seed, "metrics": {"share": share, "times": times, "other": None},
         "details": {}, "collapsed": None, "failed": None, "seconds": 60.0}
        for arm, shares, ratio in (("new", NEW, TIMES), ("old", OLD, [1.0] * 4))
        for seed, (share, times) in enumerate(zip(shares, ratio, strict=True))
    ]  # fmt: skip
    records[1] |= more
    about = {
        "claim": "paper",
        "statement": claim.statement,
        "setting": claim.setting,
        "real_text": "",
        "seconds": 480.0,
    }
    return {**about, **outcome(claim, records, range(4), for_the_record=recorded)}


def test_in_words():
    result = made()
    assert verdict(result) == "not reproduced"
    assert held(result) == "1 of 2 hold, 1 contradicted"
    lines = [expectation(result, one) for one in result["expectations"]]
    # Differences 0.10, 0.11, 0.12, 0.11: mean 0.11, deviation 0.00816, t(3) = 3.182.
    assert lines[0] == "new against old, right answers: +11.0 points (9.7 to 12.3), expected above +5.0 points: holds"
    assert lines[1].endswith("expected above 4.00x: contradicted")
    assert lines[2].endswith("expected within -15.0 points and +15.0 points: holds")
    text = "\n".join(paragraphs(result))
    assert all(line in text for line in lines)
    assert "2 arms, 4 seeds, 8 minutes of one thread; on real text: not measured" in text


def test_ratios_of_shares_are_ratios():
    # Logarithms of 2.0, 2.2, 2.1, 1.9: mean 0.716, deviation 0.0631, t(3) = 3.182.
    result = made()
    rude = {**result["metrics"][1], "unit": "share"}
    one = result["expectations"][1]
    result["metrics"][1] = rude
    assert expectation(result, one).endswith("ratio: 2.05x (1.85 to 2.26), expected above 4.00x: contradicted")
    for arm in result["arms"]:
        for run in arm["runs"]:
            run["metrics"]["times"] /= 4000
    assert [row[2] for row in means(result)] == ["ratio, %", "0.051", "0.025"]


def test_a_trial_has_no_verdict():
    assert "no verdict" in verdict(made(recorded=False))


def test_failed_checks_are_named():
    result = made() | {"verdict": "invalid", "checks": [{"about": "it moved", "passed": False}]}
    assert verdict(result) == "invalid (failed: it moved)"
    assert "check FAILED: it moved" in paragraphs(result)


def test_lost_runs_are_counted():
    assert collapsed(made()) == ""
    babbles, broken = made(collapsed="it babbles"), made(failed="the loss is not finite", metrics={})
    assert collapsed(babbles) == collapsed(broken) == "1 of new"
    assert "collapsed runs: 1 of new" in paragraphs(broken)
    assert "1 seeds missing: open" in expectation(broken, broken["expectations"][0])


def test_means_by_hand():
    header, new, old = means(made())
    assert header == ("arm", "right answers, %", "ratio")
    assert new == ("new", "61.0", "2.05")
    assert old == ("old", "50.0", "1.00")


def test_table_and_its_place():
    made_table = table({"paper": made()}, lambda slug: f"[{slug}](somewhere)")
    header, rule, row = made_table.split("\n")
    assert header.count("|") == rule.count("|") == row.count("|")
    assert "[paper](somewhere)" in row
    assert "**not reproduced**" in row
    before = f"# Title\n{BEGIN}\nold | table\n{END}\nrest"
    after = with_table(before, made_table)
    assert after == f"# Title\n{BEGIN}\n{made_table}\n{END}\nrest"
    assert with_table(after, made_table) == after
    with pytest.raises(TeloiError, match="no place"):
        with_table("# Title", made_table)


def test_figure_shows_every_seed(tmp_path: Path):
    path = claim_figure(made(collapsed="it babbles"), tmp_path / "figure.svg")
    text = path.read_text()
    assert len(re.findall(r'<g id="PathCollection_\d+"', text)) == 4  # two arms in two panels
    assert text.count("<use ") >= 16
    assert "new (1 collapsed)" in text
    assert "not reproduced" in text


def test_a_ratio_of_nothing_is_not_drawn(tmp_path: Path):
    result = made()
    for one in result["arms"][1]["runs"]:
        one["metrics"]["times"] = 0.0
    text = claim_figure(result, tmp_path / "figure.svg").read_text()
    assert len(re.findall(r'<g id="PathCollection_\d+"', text)) == 3  # the panel of ratios has one arm


def test_a_figure_of_many_panels_has_rows(tmp_path: Path):
    result = made()
    share = result["metrics"][0]
    names = [f"share {i}" for i in range(5)]
    result["metrics"] = [{**share, "name": name, "label": name} for name in names]
    result["expectations"] = [{**result["expectations"][0], "metric": name} for name in names]
    for arm in result["arms"]:
        for one in arm["runs"]:
            one["metrics"] = dict.fromkeys(names, one["metrics"]["share"])
    text = claim_figure(result, tmp_path / "figure.svg").read_text()
    assert len(re.findall(r'<g id="axes_\d+"', text)) == 5
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size is not None
    assert float(size[1]) / 72 == pytest.approx(2.2 + 3 * 3.4)  # inches: three panels beside each other
