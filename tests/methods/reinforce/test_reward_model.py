"""A reward model: read at the last token whatever the layout, saved as others read it, a reward for what samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.formats import Preference
from teloi.engine.objective import Now
from teloi.errors import DataError, ModelError, RowError, UsageError
from teloi.methods.reinforce.reward_model import PreferenceModel, RewardModel
from teloi.models.roles import LanguageModel, Models
from teloi.models.scalar import load_scalar, save_scalar, scalar_head
from teloi.worlds.judges import load_judge
from teloi.worlds.rewards import load_reward
from tests.engine.conftest import tiny_model, tiny_processor

ROWS = [("the cat", " sat on the mat", " sat"), ("the", " mat", " cat sat on"), ("on the mat", " sat", " the the")]


@pytest.fixture
def models() -> Models:
    torch.manual_seed(0)
    policy = LanguageModel(tiny_model(), "packed")
    return Models(policy, parts=scalar_head(policy), processor=tiny_processor())


def trees() -> list[Tree]:
    return [RewardModel().encode(Preference(*row), tiny_processor()) for row in ROWS]


def alone(models: Models, tree: Tree, branch: Branch) -> float:
    """The reward of one answer behind its prompt, in a row of its own."""
    ids = torch.as_tensor(np.concatenate([tree.prompt, branch.ids]), dtype=torch.int64)[None]
    model: Any = models.policy.model
    model.set_attn_implementation("eager")
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    model.set_attn_implementation("teloi_tree")
    assert models.parts is not None
    return float(models.parts(states[0, -1]))


@pytest.mark.parametrize("kind", ["packed", "padded"])
def test_a_reward_is_read_at_the_last_token(models: Models, kind: Any) -> None:
    made = [*trees(), Tree(np.array([5, 6], np.int32), (Branch.scored([7, 8]), Branch.scored([])), {"margin": 0.0})]
    if kind == "padded":
        models.policy.model.set_attn_implementation("eager")
    models.policy.layout = kind
    head: Any = models.parts
    with torch.no_grad():
        found = head(models.policy.ends(TreeBatch(made))).squeeze(1)
        wanted = [alone(models, tree, branch) for tree in made for branch in tree.branches]
    torch.testing.assert_close(found, torch.tensor(wanted), atol=1e-5, rtol=1e-4)


def test_the_loss_is_that_of_the_difference(models: Models) -> None:
    with torch.no_grad():
        terms = RewardModel(centring=0.1).loss(models, TreeBatch(trees()), Now(0, 1))
        pairs = [[alone(models, tree, branch) for branch in tree.branches] for tree in trees()]
    wanted = [np.log1p(np.exp(low - high)) + 0.1 * (high + low) ** 2 for high, low in pairs]
    np.testing.assert_allclose(terms["preference"].values, wanted, atol=1e-5)
    assert terms["accuracy"].values.tolist() == [float(high > low) for high, low in pairs]


def test_what_is_saved_rewards_alike(models: Models, tmp_path: Path) -> None:
    with torch.no_grad():
        wanted = [alone(models, tree, branch) for tree in trees() for branch in tree.branches]
    assert models.parts is not None
    models.policy.model.set_attn_implementation("sdpa")
    tiny_processor().tokenizer.save_pretrained(tmp_path)
    save_scalar(models.policy, models.parts, tiny_processor().tokenizer, tmp_path)
    reward = load_reward(str(tmp_path))
    prompts = [row[0] for row in ROWS for _ in range(2)]
    found: Any = reward(prompts=prompts, completions=[text for row in ROWS for text in row[1:]], anything=[None] * 6)
    np.testing.assert_allclose(np.array(found), np.array(wanted), atol=1e-5)


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    model = tiny_model()
    model.set_attn_implementation("sdpa")
    model.save_pretrained(tmp_path)
    tiny_processor().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="tells 2 classes apart"):
        load_scalar(tmp_path)
    with pytest.raises(ModelError, match="holds no reward model"):
        load_scalar(tmp_path / "nothing")


def test_margins_must_be_there() -> None:
    row = Preference("the", " cat", " mat", columns={"margin": 0.5})
    assert RewardModel(margins=True).encode(row, tiny_processor()).columns["margin"] == 0.5
    with pytest.raises(RowError, match="column `margin`"):
        RewardModel(margins=True).encode(Preference("the", " cat", " mat"), tiny_processor())
    with pytest.raises(UsageError, match="must not be negative"):
        RewardModel(centring=-1.0)


def test_rewards_are_shifted_so_that_references_have_a_mean_of_0(models: Models, tmp_path: Path) -> None:
    references = tmp_path / "references.jsonl"
    references.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c, _ in ROWS))
    models.policy.model.set_attn_implementation("sdpa")
    for name, objective in (("plain", RewardModel()), ("shifted", RewardModel(references=str(references)))):
        tiny_processor().tokenizer.save_pretrained(tmp_path / name)
        objective.export(models, tmp_path / name)
    plain, shifted = (
        np.array(load_scalar(tmp_path / name)([p for p, _, _ in ROWS], [c for _, c, _ in ROWS]))
        for name in ("plain", "shifted")
    )
    assert abs(plain.mean()) > 1e-3
    np.testing.assert_allclose(shifted, plain - plain.mean(), atol=1e-5)


def test_references_that_cannot_be_read_stop_a_run_before_its_first_step(models: Models, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        RewardModel(references=str(tmp_path / "none.jsonl")).build(models)


def test_a_preference_model_sees_both_answers_in_both_orders(models: Models) -> None:
    tree = PreferenceModel().encode(Preference(*ROWS[0]), tiny_processor())
    chosen, rejected = (branch.ids.tolist() for branch in trees()[0].branches)
    assert [branch.ids.tolist() for branch in tree.branches] == [chosen + rejected, rejected + chosen]
    with torch.no_grad():
        terms = PreferenceModel().loss(models, TreeBatch([tree]), Now(0, 1))
        there, back = (alone(models, tree, branch) for branch in tree.branches)
    wanted = (np.log1p(np.exp(-there)) + np.log1p(np.exp(back))) / 2
    np.testing.assert_allclose(terms["preference"].values, [wanted], atol=1e-5)
    assert terms["accuracy"].values.tolist() == [float(there > back)]


def test_a_preference_model_that_is_saved_judges_and_rewards_nothing(models: Models, tmp_path: Path) -> None:
    pairs = [PreferenceModel().encode(Preference(*row), tiny_processor()) for row in ROWS]
    with torch.no_grad():
        odds = np.array([[alone(models, tree, branch) for branch in tree.branches] for tree in pairs])
    models.policy.model.set_attn_implementation("sdpa")
    tiny_processor().tokenizer.save_pretrained(tmp_path)
    PreferenceModel().export(models, tmp_path)
    judge = load_judge(str(tmp_path))
    found = judge.preferences([row[0] for row in ROWS], [(row[1], row[2]) for row in ROWS], {})
    there, back = 1 / (1 + np.exp(-odds.T))
    np.testing.assert_allclose(np.array(found), (there + 1 - back) / 2, atol=1e-5)
    with pytest.raises(ModelError, match="is a preference model"):
        load_reward(str(tmp_path))
