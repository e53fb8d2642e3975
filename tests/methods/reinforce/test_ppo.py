"""PPO: what a rollout records, where rewards stand, whose value the critic says."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.formats import PromptOnly
from teloi.engine.objective import Now
from teloi.errors import ModelError, UsageError
from teloi.methods.reinforce.grpo import GRPO
from teloi.methods.reinforce.online import Online
from teloi.methods.reinforce.ppo import PPO
from teloi.models.roles import FrozenReference, LanguageModel, Models, evaluation
from teloi.models.scalar import save_scalar, scalar_head
from tests.engine.conftest import examples_for, make_trainer, tiny_model, tiny_models, tiny_processor

NOW = Now(0, 1, places=tuple(range(6)))


def late(prompts, completions, completion_ids, **columns) -> list[Any]:
    """A number for some completions, two places for the others, one of them past the end."""
    return [float(len(ids)) if i % 2 else [(0, 0.5), (99, -1.0)] for i, ids in enumerate(completion_ids)]


def made(**settings: Any) -> PPO:
    return PPO(**{"reward": "tests.methods.reinforce.test_ppo:late", "k": 2, "max_new_tokens": 5, **settings})


def rolled(objective: Online, models: Models) -> list[Tree]:
    with evaluation(*models.trained):
        return list(objective.rollout(models, examples_for(objective, 6), NOW))


def branches(trees: list[Tree]) -> list[Branch]:
    return [branch for tree in trees for branch in tree.branches]


def test_nothing_has_moved_at_the_first_step() -> None:
    objective = made()
    models = tiny_models(objective)
    trees = rolled(objective, models)
    assert all((branch.columns["old_logps"] == branch.columns["reference_logps"]).all() for branch in branches(trees))
    terms = objective.loss(models, objective.collate(trees, NOW, "cpu"), NOW)
    assert float(terms["kl"].values.abs().max()) == 0
    assert float(terms["clipped"].values.sum()) == 0


def test_advantages_are_those_of_the_definition() -> None:
    objective = made(kl=0.3, gamma=0.9, lam=0.8, unfinished=-3.0, whiten_advantages=False)
    models = tiny_models(objective)
    other = LanguageModel(tiny_model(seed=5), "packed")
    models.reference = FrozenReference(other)
    trees = rolled(objective, models)
    finished = np.concatenate([tree.columns["finished"] for tree in trees])
    assert 0 < finished.sum() < len(finished)
    for row, (branch, end) in enumerate(zip(branches(trees), finished, strict=True)):
        columns, n = branch.columns, len(branch.ids)
        rewards = np.zeros(n)
        if not end:
            rewards[-1] = -3.0
        elif row % 2:
            rewards[-1] = n
        else:
            rewards[0] += 0.5
            rewards[-1] -= 1.0
        rewards -= 0.3 * (columns["old_logps"] - columns["reference_logps"])
        value = [*columns["values"], 0.0]
        delta = [rewards[i] + 0.9 * value[i + 1] - value[i] for i in range(n)]
        wanted = [sum((0.9 * 0.8) ** (j - i) * delta[j] for j in range(i, n)) for i in range(n)]
        np.testing.assert_allclose(columns["advantages"], wanted, atol=1e-4)
        np.testing.assert_allclose(columns["returns"], columns["advantages"] + columns["values"], atol=1e-5)


def test_advantages_are_whitened_over_the_step() -> None:
    objective = made()
    advantages = np.concatenate([b.columns["advantages"] for b in branches(rolled(objective, tiny_models(objective)))])
    assert abs(advantages.mean()) < 1e-5
    assert abs(advantages.std(ddof=1) - 1) < 1e-3


def test_the_sum_of_located_rewards_is_what_a_group_is_compared_by() -> None:
    objective = GRPO(reward="tests.methods.reinforce.test_ppo:late", k=2, max_new_tokens=5)
    trees = rolled(objective, tiny_models(objective))
    for tree in trees:
        assert tree.columns["rewards"].tolist() == [-0.5, len(tree.branches[1].ids)]


@pytest.mark.parametrize("value", ["policy", "head"])
def test_the_critic_reads_the_states_before_the_tokens(value: str) -> None:
    objective = made(value=value)
    models = tiny_models(objective)
    tree = rolled(objective, models)[0]
    branch = tree.branches[0]
    ids = torch.as_tensor(np.concatenate([tree.prompt, branch.ids]), dtype=torch.int64)[None]
    model: Any = copy.deepcopy(models.policy.model)
    model.set_attn_implementation("eager")
    parts: Any = models.parts
    head = parts if value == "head" else parts.head
    with torch.no_grad():
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        wanted = head(states[len(tree.prompt) - 1 : -1])[:, 0]
    np.testing.assert_allclose(branch.columns["values"], wanted, atol=1e-5)


def test_a_critic_that_was_a_reward_model_says_its_rewards(tmp_path: Path) -> None:
    torch.manual_seed(3)
    rewarding = LanguageModel(tiny_model(seed=2), "packed")
    head = scalar_head(rewarding)
    save_scalar(rewarding, head, tiny_processor().tokenizer, tmp_path)
    objective = made(value=str(tmp_path))
    models = tiny_models(objective)
    prompt = np.array([5, 6, 7], np.int32)
    trees = [Tree(prompt, (Branch.scored([8, 9]),)), Tree(prompt, (Branch.scored([8]),))]
    with torch.no_grad():
        values = objective.said(models, TreeBatch(trees[:1]))[1]
        ends = head(rewarding.ends(TreeBatch(trees[1:])))[:, 0]
    torch.testing.assert_close(values[1:], ends, atol=1e-5, rtol=1e-4)
    with pytest.raises(ModelError, match="holds no reward model"):
        tiny_models(replace(objective, value=str(tmp_path / "none")))


def test_a_policy_learns_what_is_rewarded() -> None:
    objective = PPO(reward="tests.engine.conftest:length_reward", k=4, max_new_tokens=6, kl=0.01, value_weight=1.0)
    trees = [Tree(np.array([3 + i, 4], np.int32), (), source=PromptOnly("a prompt")) for i in range(8)]
    run = make_trainer(objective, tiny_models(objective), trees, epochs=25.0, lr_scheduler_type="constant")
    rewards = [record["reward"] for record in run.run()]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.15


def test_the_critic_has_a_rate_of_its_own() -> None:
    objective = made(value_learning_rate=0.5)
    run = make_trainer(objective, tiny_models(objective), examples_for(objective, 8))
    assert run.peak_rates == [1e-2, 0.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "must be at least 1"),
        ({"lam": 1.5}, "lam must lie between 0 and 1"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"kl": -1.0}, "kl must not be negative"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        made(**settings)
