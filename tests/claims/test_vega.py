"""The claim's own parts, and its run in seconds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from teloi.claims import encoders, vega
from teloi.claims.claim import Run
from tests.claims.judged import run_in_seconds


def test_quick(tmp_path: Path) -> None:
    run_in_seconds("teloi.claims.vega", tmp_path)


def test_a_quarter_of_the_labels_is_flipped_the_same_ones_in_every_arm() -> None:
    plain, calibrated = (Run(arm, 3, True, Path()) for arm in ("plain", "calibrated"))
    right, _ = encoders.reviews(plain, 12)
    found = vega.flipped(plain, right)
    assert found == vega.flipped(calibrated, right)
    assert [row["text"] for row in found] == [row["text"] for row in right]
    assert Counter(a["label"] == b["label"] for a, b in zip(found, right, strict=True)) == {True: 9, False: 3}


def test_test_inputs_are_drawn_by_the_seed_alone() -> None:
    _, test = encoders.reviews(Run("plain", 3, True, Path()), 0)
    one, same, other = (
        [row["text"] for row in vega.inputs(Run(arm, seed, True, Path()), test)]
        for arm, seed in (("plain", 3), ("pseudo-labels", 3), ("plain", 4))
    )
    assert one == same != other
