"""The claim's own parts, and its run in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from teloi.claims import counting, fgrlhf, marlhf
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run

QUICK = Run("5 tokens", 3, True, Path())


@pytest.mark.parametrize("slug", ["marlhf", "fgrlhf"])
def test_quick(slug: str, tmp_path: Path):
    result = run(f"teloi.claims.{slug}", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    names = {metric["name"] for metric in result["metrics"]}
    assert all(arm["runs"][0]["metrics"].keys() == names for arm in result["arms"])
    assert not [arm["name"] for arm in result["arms"] if arm["runs"][0]["failed"]]


@pytest.mark.parametrize("claim", [marlhf, fgrlhf])
def test_every_arm_is_told_and_trained(claim):
    trained = claim.ARMS if claim is marlhf else claim.REWARDS
    assert list(claim.ABOUT) == [claim.START, *trained]


def test_updates_are_counted_to_the_end_of_the_window_that_reaches():
    full = Run("5 tokens", 3, False, Path())
    assert counting.sizes(full).window == 3
    assert counting.reached(full, [0, 6, 6, 6, 6], 6.0) == 4
    assert counting.reached(full, [9, 9, 0, 0, 0], 6.0) == 3
    assert counting.reached(full, [0, 6, 5, 6, 6], 6.0) == 6  # never: one more than there were


def test_all_arms_of_a_seed_start_alike_and_meet_the_same_prompts():
    one, other = (counting.start(run, 6) for run in (QUICK, Run("whole", 3, True, Path())))
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert (a == b).all()
    asked, said = counting.said(QUICK, one, 6)
    assert (asked, said) == counting.said(QUICK, other, 6)
    assert len(asked) == 20
    assert max(len(text.split()) for text in said) <= 6
