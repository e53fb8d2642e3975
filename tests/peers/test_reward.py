"""The reward model against TRL's: the same pairs, the same sequence classifier, loss and gradients of a step."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from teloi.batch.tree import Kind
from teloi.methods.reinforce.reward_model import RewardModel
from teloi.models.roles import LanguageModel, Models
from tests.peers import rows
from tests.peers.conftest import LAYOUTS, Outcome, Peers, assert_same, take_step, theirs

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


def classifier(policy: LlamaForCausalLM) -> LlamaForSequenceClassification:
    """The policy's body under a head of one label, as TRL trains it."""
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    made = LlamaForSequenceClassification(config)
    made.model.load_state_dict(policy.model.state_dict())
    nn.init.normal_(made.score.weight)
    return made


def ours(both: Peers, objective: RewardModel, head: torch.Tensor, layout: Kind) -> Outcome:
    """Our step; the head's gradient is named as in the classifier."""
    parts = nn.Linear(head.shape[1], 1, bias=False)
    parts.weight.data.copy_(head)
    models = Models(LanguageModel(both.laid_out(both.policy, layout), layout), parts=parts)
    outcome = take_step(objective, models, both.encode(objective))
    assert parts.weight.grad is not None
    return Outcome(outcome.loss, outcome.gradients | {"score.weight": parts.weight.grad})


@pytest.mark.parametrize("kind", ["standard", "conversational"])
@pytest.mark.parametrize("margins", [False, True], ids=["plain", "margin"])
@pytest.mark.parametrize("centring", [0.0, 0.3], ids=["free", "centred"])
def test_reward_model(kind: str, margins: bool, centring: float, peers: Any) -> None:
    both = peers(rows.preference(kind))
    if margins:
        both = replace(both, rows=[{**row, "margin": 0.5 * number} for number, row in enumerate(both.rows)])
    start = classifier(both.policy)
    expected = theirs(both.trainer("Reward", model=start, center_rewards_coefficient=centring or None))
    for layout in LAYOUTS:
        assert_same(ours(both, RewardModel(margins=margins, centring=centring), start.score.weight, layout), expected)
