"""The claim's own parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from teloi.claims import salt
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.engine.objective import Now
from teloi.methods.pretrain.salt import SALT


def one(arm: str | None = None, seed: int = 3, directory: Path = Path()) -> Run:
    return Run(arm, seed, True, directory)


def test_quick(tmp_path: Path):
    result = run("teloi.claims.salt", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    names = {metric["name"] for metric in result["metrics"]}
    found = {arm["name"]: arm["runs"][0] for arm in result["arms"]}
    assert all(run["metrics"].keys() == names for run in found.values())
    assert found["teacher"]["metrics"]["steps"] is None
    curves = {name: run["details"]["loss"] for name, run in found.items() if run["details"]}
    assert len(curves) == len(salt.ARMS) - 1
    assert all(len(losses) == salt.QUICK.steps // salt.QUICK.every for losses in curves.values())
    # The first fifth is the stage that distils; before the last fifth, late training is standard.
    assert curves["late"][:-1] == curves["standard"][:-1]
    assert curves["late"][-1] != curves["standard"][-1]
    assert curves["salt"][0] == curves["throughout"][0]
    assert len({tuple(losses) for losses in curves.values()}) == len(curves)


def test_late_distils_as_long_as_salt_and_at_the_end():
    late, early = (made(stage=0.2) for made in (salt.Late, SALT))
    weights = [[objective.distils(Now(step, 10)) for step in range(10)] for objective in (late, early)]
    assert weights[0] == weights[1][::-1] == [0.0] * 8 + [late.weight] * 2


@pytest.mark.parametrize(
    ("losses", "steps"), [((3.0, 2.0, 1.0), 20), ((3.0, 2.5, 1.5), 25), ((2.0, 1.0), 10), ((3.0, 2.5), 30)]
)
def test_steps_are_read_between_validations(losses, steps):
    assert salt.steps_to(2.0, losses, 10) == pytest.approx(steps)


def test_losses_are_the_models_by_part():
    base = salt.start(one(), salt.TEACHER)
    found = salt.tested(one(), base)
    tokenizer = base.processor.tokenizer
    losses: dict[str, list[float]] = {"easy": [], "hard": [], "other": []}
    assert len(salt.held_out(one())) == salt.QUICK.held_out
    for said, parts in salt.held_out(one()):
        ids = torch.tensor([[*tokenizer(" ".join(said))["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logps = base.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        for place, logp in enumerate(logps.tolist(), start=1):
            losses[parts[place] if place < len(parts) else "other"].append(-logp)
    everything = [value for some in losses.values() for value in some]
    assert found["loss"] == pytest.approx(sum(everything) / len(everything), rel=1e-5)
    for part in salt.PARTS:
        assert found[part] == pytest.approx(sum(losses[part]) / len(losses[part]), rel=1e-5)
