"""The loop: accumulation changes nothing, a resumed run ends in the same bits, what is not finite stops it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from teloi.engine.loop import Hooks
from teloi.engine.objective import Now, Term
from teloi.errors import NonFinite
from teloi.methods.finetune.sft import SFT
from teloi.methods.prefer.dpo import DPO
from teloi.methods.reinforce.nash_md import Game
from tests.engine.conftest import OBJECTIVES, examples_for, gradients, make, make_trainer, random_trees


@pytest.mark.parametrize("method", OBJECTIVES, ids=lambda m: m.name)
def test_gradients_do_not_depend_on_micro_batches(method, models) -> None:
    """One micro-batch of 8 and several smaller ones give the same gradients; what is coupled is cut inside."""
    objective = make(method)
    examples = examples_for(objective, 8)
    found = []
    for micro_tokens in (10_000, 40):
        made = models(objective)
        if made.policy is not None:
            made.policy.chunk = micro_tokens if objective.coupled else None
        run = make_trainer(objective, made, examples, micro_tokens=micro_tokens, max_grad_norm=0.0)
        found.append(gradients(run))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)
    assert any(g.abs().max() > 1e-4 for g in found[0])


# Against an opponent nothing rises for sure in a dozen steps; tests/methods/reinforce/test_nash_md.py plays longer.
ALONE = [method for method in OBJECTIVES if not issubclass(method.load(), Game)]


@pytest.mark.parametrize("method", ALONE, ids=lambda m: m.name)
def test_the_loss_falls(method, models) -> None:
    objective = make(method)
    run = make_trainer(objective, models(objective), examples_for(objective, 8), epochs=12.0)
    records = list(run.run())
    assert len(records) == 12
    if "reward" in records[0]:
        assert records[-1]["reward"] > records[0]["reward"]
    else:
        assert records[-1]["loss"] < records[0]["loss"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("killed_after", [1, 4, 8])
def test_an_interrupted_run_ends_in_the_same_bits(dtype, killed_after, models, tmp_path) -> None:
    objective, examples = DPO(), random_trees(24, 2)
    whole = make_trainer(objective, models(objective, dtype), examples, tmp_path / "a", epochs=3.0)
    expected = list(whole.run())

    first = make_trainer(objective, models(objective, dtype), examples, tmp_path / "b", epochs=3.0, save_steps=2)
    for record in first.run():
        if record["step"] == killed_after:
            break
    second = make_trainer(objective, models(objective, dtype), examples, tmp_path / "b", epochs=3.0, save_steps=2)
    # The generator stops before the checkpoint of the step it yielded is written.
    assert second.resume() == (killed_after - 1) // 2 * 2
    found = list(second.run())
    assert found == expected[len(expected) - len(found) :]
    for a, b in zip(whole.step.parameters(), second.step.parameters(), strict=True):
        assert torch.equal(a, b)
    assert second.ledger.trained_tokens == whole.ledger.trained_tokens == whole.plan.tokens


@pytest.mark.parametrize("method", OBJECTIVES, ids=lambda m: m.name)
def test_whatever_an_objective_draws_or_keeps_is_taken_up_where_it_was(method, models, tmp_path) -> None:
    """Weights, and the state of the objective's own parts, interrupted in the second of two epochs."""
    objective = make(method)
    examples = examples_for(objective, 16)
    whole = make_trainer(objective, models(objective), examples, tmp_path / "a", epochs=2.0)
    expected = list(whole.run())
    first = make_trainer(objective, models(objective), examples, tmp_path / "b", epochs=2.0, save_steps=1)
    for record in first.run():
        if record["step"] == 3:
            break
    second = make_trainer(objective, models(objective), examples, tmp_path / "b", epochs=2.0, save_steps=1)
    assert second.resume() == 2
    assert list(second.run()) == expected[2:]
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_master_weights_keep_what_bfloat16_would_lose(models) -> None:
    """A hundred steps of 1e-4: each is less than half a unit in the last place of a bfloat16 weight of 1."""
    objective, examples = SFT(), random_trees(8, 1)
    run = make_trainer(objective, models(objective, torch.bfloat16), examples, epochs=100.0)
    run.peak_rates = [1e-4]
    norm = next(p for n, p in run.step.named_parameters() if n.endswith("input_layernorm.weight"))
    master = next(m for p, m in zip(run.masters.parameters, run.masters.tensors, strict=True) if p is norm)
    list(run.run())
    assert master.dtype == torch.float32
    assert (master - 1).abs().max() > 2e-3
    assert torch.equal(norm, master.bfloat16())


@dataclass(frozen=True)
class Broken(SFT):
    """Finite at first, then not a number."""

    def loss(self, models, batch, now: Now) -> dict[str, Term]:
        terms = super().loss(models, batch, now)
        return {"nll": Term(terms["nll"].values * (float("nan") if now.step == 2 else 1.0), per="tokens")}


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_weights(models) -> None:
    seen = []

    def keep(step, trees) -> str:
        seen.append((step, len(trees)))
        return "batch.safetensors"

    hooks = Hooks(failed=keep)
    made = models(Broken())
    run = make_trainer(Broken(), made, random_trees(40, 1), hooks=hooks)
    steps = run.run()
    next(steps)
    next(steps)
    before = [p.clone() for p in made.policy.model.parameters()]
    with pytest.raises(NonFinite, match=r"loss is not finite at step 3; its batch is saved as batch.safetensors"):
        next(steps)
    assert seen == [(2, 8)]
    assert all(torch.equal(a, b) for a, b in zip(before, made.policy.model.parameters(), strict=True))


def test_randomness_is_keyed_by_name_step_and_seed() -> None:
    now = Now(step=3, total=10, seed=1)
    draw = lambda n, name="mask": n.rng(name).random()  # noqa: E731
    assert draw(now) == draw(Now(step=3, total=10, seed=1))
    others = [draw(now, "other"), draw(Now(4, 10, seed=1)), draw(Now(3, 10, seed=2)), draw(Now(3, 10, seed=1, micro=1))]
    assert len({draw(now), *others}) == 5
