"""The claim's run in seconds, and the effects that it compares."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.claims.judged import run_in_seconds


def test_quick(tmp_path: Path) -> None:
    result = run_in_seconds("teloi.claims.dpo_ppo", tmp_path)
    measured = {arm["name"]: arm["runs"][0]["metrics"] for arm in result["arms"]}
    assert measured["sft"]["kl"] == 0
    worth = {name: metrics["worth"] for name, metrics in measured.items() if "worth" in metrics}
    assert measured["the other algorithm"]["gain"] == pytest.approx(worth["ppo"] - worth["dpo"])
    clean, flipped = (sum(worth[f"{arm}{quality}"] for arm in ("dpo", "ppo")) / 2 for quality in ("", ", flipped"))
    assert measured["better labels"]["gain"] == pytest.approx(clean - flipped)
    assert len({worth[arm] for arm in ("sft", "dpo", "ppo", "dpo, flipped", "ppo, flipped")}) == 5
