from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from teloi.claims.claim import (
    Arm,
    Check,
    Claim,
    Control,
    Expect,
    Finding,
    Kind,
    Outcome,
    Run,
    judge,
    place,
    region,
    verdict,
    weigh,
)
from teloi.measure.summary import Metric

SHARE = Metric("share", "share", "higher", resolution=0.01)
COST = Metric("cost", "cost", "lower")
RATIO = Metric("ratio", "ratio", "higher", scale="log")
BITS = Metric("bits", "bits", "lower", scale="log")
METRICS = {metric.name: metric for metric in (SHARE, COST, RATIO, BITS)}
KINDS: tuple[Kind, ...] = ("superior", "noninferior", "equivalent")


def values(
    metric: str, better: list[float | None], worse: list[float | None]
) -> dict[str, dict[int, dict[str, float]]]:
    return {
        name: {seed: {metric: x} for seed, x in enumerate(numbers) if x is not None}
        for name, numbers in (("new", better), ("old", worse))
    }


def expect(metric: str, margin: float, kind: Kind = "superior", **more: Any) -> Expect:
    return Expect(metric, "new", "old", margin, kind, **more)


# -- where an interval lies


def is_right(kind: Kind, margin: float, effect: float) -> bool:
    """The definition of an expectation for a known true effect."""
    return {"superior": effect > margin, "noninferior": effect > -margin, "equivalent": abs(effect) < margin}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_region_of_interval_against_margin(kind: Kind):
    """Brute force: what is right for every effect of the interval holds, for none is contradicted, else is open."""
    margin, grid = 2.0, [x / 2 for x in range(-9, 10)]
    seen: set[Finding] = set()
    for low, high in itertools.combinations_with_replacement([x + 0.25 for x in grid], 2):
        effects = [low + i * 0.25 for i in range(round((high - low) / 0.25) + 1)]
        right = [is_right(kind, margin, effect) for effect in effects]
        wanted: Finding = "holds" if all(right) else "open" if any(right) else "contradicted"
        found = place((low, high), region(expect("share", margin, kind), SHARE))
        assert found == wanted, (low, high)
        seen.add(found)
    assert len(seen) == 3


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0.01, 3), st.sampled_from(KINDS), st.floats(0, 3))
def test_a_wider_interval_never_says_more(middle: float, half: float, margin: float, kind: Kind, extra: float):
    inside = region(expect("share", margin, kind), SHARE)
    narrow = place((middle - half, middle + half), inside)
    wide = place((middle - half - extra, middle + half + extra), inside)
    assert wide in (narrow, "open")


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0.01, 3))
def test_kinds_imply_each_other(middle: float, half: float, margin: float):
    found = {k: place((middle - half, middle + half), region(expect("share", margin, k), SHARE)) for k in KINDS}
    if found["superior"] == "holds" or found["equivalent"] == "holds":
        assert found["noninferior"] == "holds"
    if found["superior"] == "holds":
        assert found["equivalent"] == "contradicted"
    if found["noninferior"] == "contradicted":
        assert {found["superior"], found["equivalent"]} == {"contradicted"}


# -- from numbers to a finding

numbers = st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=2, max_size=6)


@given(numbers, st.sampled_from(sorted(METRICS)), st.sampled_from(KINDS), st.floats(1.05, 3))
def test_a_finding_is_the_t_interval_against_the_margin(
    pairs: list[tuple[float, float]], name: str, kind: Kind, margin: float
):
    metric = METRICS[name]
    new, old = ([pair[side] for pair in pairs] for side in (0, 1))
    sign = 1 if metric.better == "higher" else -1
    to_scale = np.log if metric.scale == "log" else np.asarray
    gains = sign * (to_scale(new) - to_scale(old))
    deviation = max(float(np.std(gains, ddof=1)), metric.resolution)
    half = stats.t.ppf(0.975, len(gains) - 1) * deviation / math.sqrt(len(gains))
    low, high = float(gains.mean() - half), float(gains.mean() + half)
    edge = math.log(margin) if metric.scale == "log" else margin
    least, most = {"superior": (edge, math.inf), "noninferior": (-edge, math.inf), "equivalent": (-edge, edge)}[kind]
    if min(abs(a - b) for a in (low, high) for b in (least, most)) < 1e-9:
        return
    inside, outside = least < low and high < most, high < least or low > most
    found = weigh(expect(name, margin, kind), metric, values(name, [*new], [*old]), range(len(pairs)))
    assert found.finding == ("holds" if inside else "contradicted" if outside else "open")
    assert found.missing == []


def test_seeds_that_agree_by_rounding_are_no_certainty():
    same = values("share", [0.52] * 3, [0.50] * 3)
    # t(2) = 4.30, so the half-width at a deviation of one step of 0.01 is 0.0248.
    assert weigh(expect("share", 0.0), SHARE, same, range(3)).finding == "open"
    assert weigh(expect("share", 0.0), replace(SHARE, resolution=0.001), same, range(3)).finding == "holds"


@pytest.mark.parametrize("broken", [None, math.nan, math.inf])
def test_a_missing_seed_never_helps(broken: float | None):
    found = weigh(expect("share", 0.1), SHARE, values("share", [0.9, 0.91, 0.9, broken], [0.1] * 4), range(4))
    assert (found.finding, found.missing) == ("open", [3])
    found = weigh(expect("share", 0.1), SHARE, values("share", [0.1, 0.11, 0.1, broken], [0.5] * 4), range(4))
    assert (found.finding, found.missing) == ("contradicted", [3])
    nothing = weigh(expect("share", 0.1), SHARE, {}, range(4))
    assert (nothing.estimate, nothing.finding) == (None, "open")


def test_one_seed_shows_nothing():
    assert weigh(expect("share", 0.1), SHARE, values("share", [0.9], [0.1]), [0]).finding == "open"


def test_what_cannot_be_a_ratio_is_missing():
    found = weigh(expect("ratio", 1.1), RATIO, values("ratio", [2, 2.1, 0], [1, 1, 1]), range(3))
    assert found.missing == [2]


@pytest.mark.parametrize(
    ("metric", "margin", "kind"),
    [("share", -0.1, "superior"), ("ratio", 0.9, "superior"), ("share", 0.0, "equivalent"), ("ratio", 1, "noninferior"),
     ("share", math.inf, "superior"), ("share", math.nan, "superior")]
)  # fmt: skip
def test_margins_that_mean_nothing(metric: str, margin: float, kind: Kind):
    with pytest.raises(ValueError, match="margin must be"):
        region(expect(metric, margin, kind), METRICS[metric])


# -- from findings to a verdict


def test_verdict_by_all_combinations():
    kinds: tuple[Finding, ...] = ("holds", "contradicted", "open")
    for findings in itertools.chain.from_iterable(itertools.product(kinds, repeat=n) for n in (1, 2, 3)):
        assert verdict(findings, [True, False]) == verdict(findings, [False]) == "invalid"
        found = verdict(findings, [True])
        assert (found == "reproduced") == all(f == "holds" for f in findings)
        assert (found == "not reproduced") == ("contradicted" in findings)
        assert found in ("reproduced", "not reproduced", "inconclusive")


def claim(**more: Any) -> Claim:
    settings: dict[str, Any] = {
        "slug": "paper",
        "statement": "New is better than old.",
        "setting": "none",
        "metrics": list(METRICS.values()),
        "arms": [Arm("new", ""), Arm("old", "")],
        "expectations": [expect("share", 0.05), expect("share", 0.5, decides=False)],
        "run": lambda run: Outcome({}),
    }
    return Claim(**(settings | more))


GOOD = values("share", [0.60, 0.61, 0.63], [0.50, 0.50, 0.51])


def test_only_deciding_expectations_decide():
    judgement = judge(claim(), GOOD, range(3))
    assert judgement.verdict == "reproduced"
    assert [one.finding for one in judgement.expectations] == ["holds", "contradicted"]


@pytest.mark.parametrize(("least", "most", "passed"), [(0.5, 1.0, True), (0.605, 1.0, False), (0.0, 0.62, False)])
def test_a_check_looks_at_every_seed(least: float, most: float, passed: bool):
    judgement = judge(claim(checks=[Check("it moved", "share", "new", least, most)]), GOOD, range(3))
    assert [one.passed for one in judgement.checks] == [passed]
    assert judgement.verdict == ("reproduced" if passed else "invalid")


def test_a_check_without_a_number_fails():
    assert judge(claim(checks=[Check("it moved", "cost", "new")]), GOOD, range(3)).verdict == "invalid"
    assert judge(claim(checks=[Check("it moved", "share", "new")]), GOOD, range(4)).verdict == "invalid"


def test_a_control_must_not_show_the_effect():
    shown = Control("noise teaches nothing", expect("share", 0.05))
    absent = Control("noise teaches nothing", expect("share", 0.3))
    assert judge(claim(controls=[shown]), GOOD, range(3)).verdict == "invalid"
    assert judge(claim(controls=[absent]), GOOD, range(3)).verdict == "reproduced"
    gone = {"new": GOOD["new"], "old": {0: GOOD["old"][0]}}
    assert judge(claim(controls=[absent]), gone, range(3)).verdict == "invalid"


@pytest.mark.parametrize(
    "more",
    [
        {"expectations": [Expect("share", "newer", "old", 0.1)]},
        {"expectations": [Expect("shares", "new", "old", 0.1)]},
        {"expectations": [expect("share", 0.1, decides=False)]},
        {"expectations": []},
        {"checks": [Check("", "share", "newer")]},
        {"controls": [Control("", Expect("share", "new", "older", 0.1))]},
        {"arms": [Arm("new", ""), Arm("old", ""), Arm("old", "")]},
        {"seeds": (0, 0)},
    ],
)
def test_a_claim_that_does_not_fit_together(more: dict[str, Any]):
    with pytest.raises(ValueError, match="paper"):
        claim(**more)


def test_streams_are_shared_by_name_and_not_by_arm():
    new, old, other = (Run(arm, seed, False, Path()) for arm, seed in (("new", 0), ("old", 0), ("new", 1)))
    assert new.rng("test").random() == old.rng("test").random()
    assert new.rng("test").random() != new.rng("train").random()
    assert new.rng("test").random() != other.rng("test").random()
