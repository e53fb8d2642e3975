from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from teloi import losses
from teloi.batch.tree import Branch, Tree
from teloi.data.formats import PromptOnly
from teloi.engine.objective import Now
from teloi.engine.rollout import with_rewards
from teloi.methods.reinforce.ppo import PPO
from teloi.methods.reinforce.rlvr import RLVR
from tests.engine.conftest import tiny_models, tiny_processor


def test_right_wrong_and_unfinished_answers(monkeypatch):
    """10, 0, and -10 for an answer without an end, right or not: returns without critic and KL are these scores."""
    objective = RLVR(reward="10*gsm8k", kl=0.0, lam=1.0, whiten_advantages=False, k=4, epochs=1)
    models, tokenizer = tiny_models(objective), tiny_processor().tokenizer
    answers = [("so 7", True), ("so 8", True), ("so 7", False), ("so 8", False)]
    branches = tuple(Branch.scored(tokenizer(text)["input_ids"]) for text, _ in answers)
    columns = {"finished": np.asarray([ended for _, ended in answers])}
    source = PromptOnly("what?", columns={"ground_truth": "7"})
    tree = Tree(np.asarray(tokenizer("what?")["input_ids"], np.int32), branches, columns, source)

    def sampled(self, models, examples, now):
        from teloi.worlds.rewards import load_reward

        return with_rewards(models, examples, [load_reward(self.reward)])

    monkeypatch.setattr(PPO, "sampled", sampled)
    (found,) = objective.rollout(models, [replace(tree)], Now(0, 1))
    returns = [float(branch.columns["returns"][0]) for branch in found.branches]
    assert torch.allclose(torch.tensor(returns), torch.tensor([10.0, 0.0, -10.0, -10.0]), atol=1e-5)


def test_the_kl_is_paid_token_by_token():
    assert (RLVR().kl, RLVR().epochs, RLVR().lam, RLVR().gamma) == (0.05, 4, 0.95, 1.0)
    assert (RLVR().kl_estimator, RLVR().clip, RLVR().value_clip, RLVR().value_weight) == ("k1", 0.2, 0.2, 0.1)
    assert losses.unfinished(torch.tensor([10.0, 10.0]), torch.tensor([True, False]), -10.0).tolist() == [10.0, -10.0]
