"""The DPO family, KTO and the losses without a reference against TRL's trainers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from teloi import catalogue
from teloi.methods.prefer.dpo import DPO
from teloi.methods.prefer.kto import KTO
from teloi.methods.prefer.reference_free import CPO, ORPO, SimPO
from teloi.models.attention import TREE
from teloi.models.roles import FrozenReference, LanguageModel, Models
from tests.peers import rows
from tests.peers.conftest import LAYOUTS, Peers, assert_same, take_step, theirs

# By TRL's `loss_type`, which is a name of the catalogue too. TRL's sigmoid and sigmoid_norm know no label smoothing;
# what ours do with it is compared in CPO's loss.
LOSSES: dict[str, dict[str, float]] = {
    "sigmoid": {"beta": 0.3},
    "sigmoid_norm": {"beta": 5.0},
    "ipo": {"beta": 0.2},
    "hinge": {"beta": 0.2},
    "robust": {"beta": 0.3, "label_smoothing": 0.2},
    "exo_pair": {"beta": 0.3, "label_smoothing": 0.01},
    "nca_pair": {"beta": 0.3},
    "bco_pair": {"beta": 0.3},
    "sppo_hard": {"beta": 0.2},
    "aot": {"beta": 0.3, "label_smoothing": 0.1},
    "aot_unpaired": {"beta": 0.3, "label_smoothing": 0.1},
    "apo_zero": {"beta": 0.3},
    "apo_down": {"beta": 0.3},
    "discopop": {"beta": 0.3, "discopop_tau": 0.2},
}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")

KINDS = ("standard", "conversational")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_dpo_family(loss_type, kind, peers) -> None:
    settings = LOSSES[loss_type]
    objective = catalogue.find(loss_type).load()(**{k.removeprefix("discopop_"): v for k, v in settings.items()})
    both = peers(rows.preference(kind))
    expected = theirs(both.trainer("DPO", loss_type=[loss_type], **settings))
    trees = both.encode(objective)
    for layout in LAYOUTS:
        assert_same(both.ours(objective, trees, layout), expected)


def test_a_prompt_that_stands_in_both_sides(peers) -> None:
    both = peers(rows.preference("implicit"))
    expected = theirs(both.trainer("DPO"))
    assert_same(both.ours(DPO(), both.encode(DPO()), "packed"), expected)


def test_the_reference_is_the_policy_without_its_adapter(peers) -> None:
    both = peers(rows.preference("standard"))
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = both.trainer("DPO", adapter, beta=0.3)
    model: Any = get_peft_model(copy.deepcopy(both.policy), adapter)
    torch.manual_seed(2)
    weights = {name: 0.1 * torch.randn_like(p) for name, p in model.named_parameters() if p.requires_grad}
    for tuned in (model, trainer.model):
        assert not tuned.load_state_dict(weights, strict=False).unexpected_keys
    model.set_attn_implementation(TREE)
    policy = LanguageModel(model, "packed")
    found = take_step(DPO(beta=0.3), Models(policy, FrozenReference(policy, model.disable_adapter)), both.encode(DPO()))
    assert_same(found, theirs(trainer))


@pytest.mark.parametrize("swapped", [False, True], ids=["baseline-clamped-at-0", "baseline"])
@pytest.mark.parametrize("kind", KINDS)
def test_kto(kind, swapped, peers) -> None:
    settings: dict[str, Any] = {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    objective = KTO(**settings)
    both = peers(rows.unpaired(kind))
    if swapped:
        both = replace(both, policy=both.reference, reference=both.policy)
    trainer = both.trainer("KTO", **settings)
    expected = theirs(trainer)
    (kl,) = trainer._metrics["train"]["kl"]
    assert (kl > 0.1) == swapped

    # Which prompt meets which completion in the baseline is a convention: ours are drawn once over the data set
    # (`KTO.prepare`), TRL's are the batch's own completions moved on by one.
    matched = both.encode(objective)
    trees = [
        replace(tree, branches=(*tree.branches, *other.branches))
        for tree, other in zip(matched, matched[-1:] + matched[:-1], strict=True)
    ]
    for layout in LAYOUTS:
        assert_same(both.ours(objective, trees, layout), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_simpo(kind, peers) -> None:
    """TRL's is CPO's trainer with another loss; its gamma is our margin."""
    objective = SimPO(beta=2.0, margin=0.7)
    both = peers(rows.preference(kind))
    trainer = both.trainer("CPO", loss_type="simpo", beta=2.0, simpo_gamma=0.7, cpo_alpha=0.0)
    expected = theirs(trainer)
    trees = both.encode(objective)
    for layout in LAYOUTS:
        assert_same(both.ours(objective, trees, layout), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_cpo(kind, peers) -> None:
    settings: dict[str, Any] = {"beta": 0.2, "label_smoothing": 0.1}
    objective = CPO(alpha=0.6, **settings)
    both = peers(rows.preference(kind))
    trainer = both.trainer("CPO", cpo_alpha=0.6, **settings)
    # TRL's likelihood term is a mean over the tokens of its batch, ours a mean over pairs of means over tokens: the
    # same for batches of one pair.
    expected = theirs(trainer, _one_by_one(both), share=1 / len(both.rows))
    trees = both.encode(objective)
    for layout in LAYOUTS:
        assert_same(both.ours(objective, trees, layout), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_orpo(kind, peers) -> None:
    objective = ORPO(beta=0.4)
    both = peers(rows.preference(kind))
    trainer = both.trainer("ORPO", beta=0.4)

    # TRL's likelihood term is that of prompt and chosen completion, ours that of the completion only: exchange it. What
    # was said of CPO's holds here too.
    def compute_loss(model: Any, batch: Any) -> torch.Tensor:
        def likelihood(labels: torch.Tensor) -> torch.Tensor:
            loss: torch.Tensor = model(input_ids=batch["chosen_input_ids"], labels=labels).loss
            return loss

        whole, completion = likelihood(batch["chosen_input_ids"]), likelihood(batch["chosen_labels"])
        loss: torch.Tensor = trainer.compute_loss(model, batch) - whole + completion
        return loss

    expected = theirs(trainer, _one_by_one(both), compute_loss, share=1 / len(both.rows))
    trees = both.encode(objective)
    for layout in LAYOUTS:
        assert_same(both.ours(objective, trees, layout), expected)


def _one_by_one(both: Peers) -> list[slice]:
    return [slice(i, i + 1) for i in range(len(both.rows))]
