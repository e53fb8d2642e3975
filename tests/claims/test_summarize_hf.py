"""The claim's run in seconds, and what its reward models have seen."""

from __future__ import annotations

from pathlib import Path

from teloi.claims import summarize_hf
from tests.claims.judged import run_in_seconds


def test_quick(tmp_path: Path) -> None:
    result = run_in_seconds("teloi.claims.summarize_hf", tmp_path)
    measured = {arm["name"]: arm["runs"][0]["metrics"] for arm in result["arms"]}
    assert measured["sft"]["kl"] == 0
    assert all((metrics["kl"] is None) == (arm == "best of 16") for arm, metrics in measured.items() if "kl" in metrics)
    assert all(abs(measured[arm]["kl"]) > 0 for arm in summarize_hf.PPO)
    assert measured["best of 16"]["learned"] > measured["sft"]["learned"]
    weak = [measured[arm] for arm in summarize_hf.PPO if "weak" in arm]
    assert weak[0]["agreement"] == weak[1]["agreement"]
    assert weak[0]["learned"] != weak[1]["learned"] != measured["ppo"]["learned"]
