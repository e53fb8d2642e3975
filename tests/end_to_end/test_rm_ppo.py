"""A reward model and PPO against it as one method, alone and as an arm that shares a budget."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.end_to_end.conftest import Teloi

SMALL = ("--model", "scratch:tiny", "--batch-size", "4")


def test_the_policy_is_trained_against_the_reward_of_the_same_pairs(data: Path, tmp_path: Path, teloi: Teloi) -> None:
    out = tmp_path / "out"
    words = ("train", "rm-ppo", "--data", data, "--output-dir", out, *SMALL, "--max-new-tokens", "4")
    assert teloi(*words, "--budget", "16 rows").status == 0
    reward, policy = (yaml.safe_load((out / "stages" / name / "run.yaml").read_text()) for name in ("reward", "policy"))
    assert (reward["method"], policy["method"]) == ("rm", "ppo")
    assert policy["objective"]["reward"] == policy["objective"]["value"] == str(out / "stages" / "reward")
    assert (reward["done"]["rows"], policy["done"]["rows"]) == (4, 12)


def test_it_is_an_arm_like_another_and_a_reward_model_alone_is_none(data: Path, tmp_path: Path, teloi: Teloi) -> None:
    words = ("--data", data, "--eval-limit", "4", "--generate", "0", "--jobs", "1", *SMALL)
    arms = ("dpo", "rm-ppo:max_new_tokens=4,reward_share=0.5")
    out = tmp_path / "compared"
    assert teloi("compare", *arms, *words, "--budget", "16 rows", "--seeds", "1", "--output-dir", out).status == 0
    found = {arm["name"]: arm["runs"] for arm in json.loads((out / "results.json").read_text())["arms"]}
    for arm in arms:
        (run,) = found[arm]
        assert run["failed"] is None
        assert run["ledger"]["rows"] == 16
        assert 0 <= run["metrics"]["preference_accuracy"] <= 1
    refused = teloi("compare", "dpo", "rm", *words, "--output-dir", tmp_path / "refused")
    assert "rm leaves a model that judges answers and writes none" in refused.error
