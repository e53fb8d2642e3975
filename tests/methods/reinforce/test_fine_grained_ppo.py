"""Fine-grained PPO: the released code's numbers, what a step looks like from rewards to advantages, and that it
learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi import losses
from teloi.batch.tree import Branch, Tree
from teloi.data.formats import PromptOnly
from teloi.engine.objective import Now
from teloi.methods.reinforce.fine_grained_ppo import FineGrainedPPO
from teloi.models.roles import Models
from teloi.worlds.fine_grained import FineGrained
from tests.engine.conftest import make_trainer, tiny_model, tiny_models

CASES = Path(__file__).parents[2] / "golden" / "cases" / "fgrlhf"


@pytest.mark.parametrize("name", ["fine_grained_ppo", "holistic_ppo"])
def test_the_released_codes_numbers(name: str) -> None:
    """A rollout with the vectors' log-probabilities, values and rewards is credited as the released code does it."""
    params = json.loads((CASES / f"{name}.json").read_text())["params"]
    arrays = np.load(CASES / f"{name}.npz")
    objective = FineGrainedPPO(
        whitening="fgrlhf", kl=params["kl_coef"], lam=params["lam"], whiten_rewards=params["whiten_rewards"]
    )
    lengths = torch.as_tensor(arrays["lengths"])
    rows, ends, weights, rewards = torch.as_tensor(arrays["segment_rewards"]).unbind(1)
    located = losses.scores_at_segments(rows.long(), ends.long(), weights * rewards, lengths, arrays["values"].shape[1])
    read = {"old_logps": "logprobs", "reference_logps": "ref_logprobs", "values": "values"}
    trees = []
    for i, n in enumerate(lengths.tolist()):
        columns = {ours: arrays[theirs][i, :n] for ours, theirs in read.items()}
        columns["token_rewards"] = located[i, :n].numpy()
        trees.append(Tree(np.array([1], np.int32), (Branch(np.ones(n, np.int32), np.ones(n, np.float32), columns),)))
    models = Models(None)  # type: ignore[arg-type]  # what is credited has been read
    models.parts = tiny_model()
    for i, tree in enumerate(objective.credited(models, trees, Now(0, 1))):
        (branch,) = tree.branches
        for ours, theirs in (("advantages", "out_advantages"), ("returns", "out_returns")):
            np.testing.assert_allclose(branch.columns[ours], arrays[theirs][i, : len(branch.ids)], rtol=1e-5, atol=1e-6)


def letters(completions: Any, **columns: Any) -> list[float]:
    return [sum(character.isalpha() for character in text) / (len(text) + 1) for text in completions]


BY_SENTENCE = FineGrained(letters, "sentence", per="completion")


def test_it_learns_from_segments() -> None:
    objective = FineGrainedPPO(
        reward="tests.methods.reinforce.test_fine_grained_ppo:BY_SENTENCE", k=4, max_new_tokens=6, kl=0.01
    )
    trees = [Tree(np.array([3 + i, 4], np.int32), (), source=PromptOnly("a prompt")) for i in range(8)]
    rewards = [record["reward"] for record in make_trainer(objective, tiny_models(objective), trees, epochs=20.0).run()]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:2]) + 0.05
