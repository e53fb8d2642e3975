"""Terms of a step and of held-out rows: metrics with their own denominator, and what is made anew in a rollout."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from teloi.engine.config import TrainConfig
from teloi.engine.evaluate import mean_terms
from teloi.engine.objective import Now, Term
from teloi.methods.finetune.sft import SFT
from teloi.methods.pretrain.denoise import UL2
from teloi.methods.pretrain.substitution import MLM
from tests.engine.conftest import examples_for, make_trainer, random_trees, tiny_models


@dataclass(frozen=True)
class Measuring(SFT):
    """SFT with the mean of -log p over tokens of even number, and over none at all."""

    def loss(self, models, batch, now: Now) -> dict[str, Term]:
        nll = -models.policy.logps(batch)
        even = (batch.target % 2 == 0).float()
        terms = {"nll": Term(nll, per="tokens"), "even": Term(nll.detach() * even, per=even, weight=0.0)}
        return {**terms, "never": Term(nll.detach() * 0, per=even * 0, weight=0.0)}


def test_a_metric_with_its_own_denominator_is_a_ratio_of_sums() -> None:
    found = []
    for micro_tokens in (10_000, 20):
        run = make_trainer(Measuring(), tiny_models(Measuring()), random_trees(8, 1), micro_tokens=micro_tokens)
        (record,) = run.run()
        assert "never" not in record, "there was nothing to average"
        found.append(record)
    assert found[0]["even"] == pytest.approx(found[1]["even"], rel=1e-4)
    models = tiny_models(Measuring())
    held_out = mean_terms(Measuring(), models, random_trees(8, 1), TrainConfig(micro_tokens=20))
    assert held_out["even"] == pytest.approx(found[0]["even"], rel=1e-4)
    assert "never" not in held_out


@dataclass(frozen=True)
class Weighing(SFT):
    """A loss that may not choose its own denominator."""

    def loss(self, models, batch, now: Now) -> dict[str, Term]:
        nll = -models.policy.logps(batch)
        return {"nll": Term(nll, per=torch.ones_like(nll))}


def test_a_loss_is_averaged_over_counts_only() -> None:
    with pytest.raises(TypeError, match="only a metric"):
        list(make_trainer(Weighing(), tiny_models(Weighing()), random_trees(8, 1)).run())


@pytest.mark.parametrize("objective", [MLM(), UL2(long_span=8)])
def test_held_out_corruption_is_the_same_at_every_evaluation(objective) -> None:
    models, examples = tiny_models(objective), examples_for(objective, 12)
    found = [mean_terms(objective, models, examples, TrainConfig(micro_tokens=m)) for m in (10_000, 10_000, 60)]
    assert found[0] == found[1]
    assert found[0]["loss"] == pytest.approx(found[2]["loss"], rel=1e-5)
    other = mean_terms(objective, models, examples, TrainConfig(seed=1))
    assert other["loss"] != pytest.approx(found[0]["loss"], rel=1e-5)
