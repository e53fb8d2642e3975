"""GRPO and RLOO against TRL's trainers: the same prompts, completions, rewards, sampler, policy and reference.

Nothing is sampled: both libraries get the same completions where they would generate. From there each goes its own way,
through rewards, advantages and the sampler's log-probabilities to the loss of a policy that has moved since.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from teloi.batch.tree import Kind
from teloi.data.formats import PromptOnly
from teloi.data.processor import Processor
from teloi.engine.objective import Now
from teloi.generate.local import Sample
from teloi.methods.reinforce.grpo import GRPO, RLOO, GroupObjective
from teloi.models.attention import TREE
from teloi.models.roles import FrozenReference, LanguageModel, Models
from tests.peers.conftest import LAYOUTS, Outcome, assert_same, take_step
from tests.peers.rows import PAIRS

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")

LIMIT = 40
"""Tokens allowed to a completion; none is as long, so that all end by themselves."""

# By TRL's `loss_type`, which fixes the reduction.
REDUCTIONS: dict[str, dict[str, Any]] = {
    "grpo": {"reduction": "rows"},
    "bnpo": {"reduction": "tokens"},
    "dapo": {"reduction": "tokens", "clip_high": 0.28},
    "dr_grpo": {"reduction": "constant", "scale": False},
}


def brevity(completions: Sequence[str], **columns: Any) -> list[float]:
    """A reward by TRL's convention: few words. In one of the groups all completions have one."""
    return [-float(len(text.split())) for text in completions]


REWARD = f"{__name__}:brevity"


@dataclass(frozen=True)
class Found:
    """What a step comes to: the advantages [prompts, 3], loss and gradients, and the share of tokens that clipping
    keeps from having one."""

    advantages: torch.Tensor
    outcome: Outcome
    clipped: float


@dataclass(frozen=True)
class Run:
    """One step of both libraries: three completions of each prompt, from the sampler; then the policy's loss."""

    tokenizer: PreTrainedTokenizerFast
    sampler: LlamaForCausalLM
    policy: LlamaForCausalLM
    reference: LlamaForCausalLM
    directory: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def completions(self) -> list[list[list[int]]]:
        """By prompt: the better and the worse reply, and the worse one to another prompt."""
        others = [*PAIRS[1:], PAIRS[0]]
        replies = [(c, r, other[2]) for (_, c, r), other in zip(PAIRS, others, strict=True)]
        return [[self.tokenizer(text)["input_ids"] for text in three] for three in replies]

    def ours(self, objective: GroupObjective, layout: Kind) -> Found:
        groups = [[Sample(ids, finished=True) for ids in group] for group in self.completions]
        self.monkeypatch.setattr("teloi.engine.rollout.sample", lambda *given, **settings: groups)
        processor = Processor(self.tokenizer)
        examples = [objective.encode(PromptOnly.parse({"prompt": prompt}), processor) for prompt, _, _ in PAIRS]
        sampler = Models(self._role(self.sampler, layout), processor=processor)
        trees = objective.rollout(sampler, examples, Now(0, 1))
        models = Models(self._role(self.policy, layout))
        if "reference" in objective.roles:
            models.reference = FrozenReference(self._role(self.reference, layout))
        outcome = take_step(objective, models, trees)
        terms = objective.loss(models, objective.collate(trees, Now(0, 1), "cpu"), Now(0, 1))
        clipped = float(terms["clipped"].values.mean()) if "clipped" in terms else 0.0
        advantages = [[branch.columns["advantages"][0] for branch in tree.branches] for tree in trees]
        return Found(torch.tensor(np.asarray(advantages)), outcome, clipped)

    def theirs(self, trainer_class: Any, config_class: Any, **settings: Any) -> Found:
        end = self.tokenizer.eos_token_id
        prompts = [{"prompt": prompt} for prompt, _, _ in PAIRS for _ in range(3)]
        self.reference.save_pretrained(self.directory / "reference")
        model: Any = copy.deepcopy(self.sampler)
        model.config._name_or_path = str(self.directory / "reference")  # where TRL looks for the reference
        trainer = trainer_class(
            model=model,
            reward_funcs=brevity,
            args=config_class(
                output_dir=self.directory / "trl",
                report_to="none",
                use_cpu=True,
                bf16=False,
                disable_tqdm=True,
                per_device_train_batch_size=len(prompts),
                num_generations=3,
                max_completion_length=LIMIT,
                **settings,
            ),
            train_dataset=Dataset.from_list(prompts),
            processing_class=self.tokenizer,
        )
        drawn = [[*ids, end] for group in self.completions for ids in group]
        trainer._generate_single_turn = lambda *given: (drawn, None) if trainer_class is GRPOTrainer else drawn
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        inputs = trainer._generate_and_score_completions(prompts)
        trainer.model.load_state_dict(self.policy.state_dict())
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        (clipped,) = trainer._metrics["train"]["clip_ratio/region_mean"]
        return Found(inputs["advantages"].view(-1, 3), Outcome.of(trainer.model, loss.item()), clipped)

    @staticmethod
    def _role(model: LlamaForCausalLM, layout: Kind) -> LanguageModel:
        made: Any = copy.deepcopy(model)
        if layout == "packed":
            made.set_attn_implementation(TREE)
        return LanguageModel(made, layout)


@pytest.fixture
def run(tokenizer, start, policy, tmp_path, monkeypatch) -> Run:
    """The sampler stands half-way between reference and policy: ratios that are clipped on either side, and others."""
    sampler = copy.deepcopy(start)
    with torch.no_grad():
        for half, whole in zip(sampler.parameters(), policy.parameters(), strict=True):
            half.lerp_(whole, 0.5)
    return Run(tokenizer, sampler, policy, start, tmp_path, monkeypatch)


def assert_same_advantages(ours: Found, theirs: Found) -> None:
    assert (theirs.advantages == 0).all(1).sum() == 1  # the group of equal rewards
    torch.testing.assert_close(ours.advantages, theirs.advantages, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("loss_type", REDUCTIONS)
def test_grpo(loss_type: str, kl: float, run: Run) -> None:
    objective = GRPO(REWARD, k=3, max_new_tokens=LIMIT, epochs=2, kl=kl, **REDUCTIONS[loss_type])
    theirs = run.theirs(
        GRPOTrainer,
        GRPOConfig,
        loss_type=loss_type,
        beta=kl,
        epsilon=objective.clip,
        epsilon_high=objective.clip_high,
        scale_rewards="group" if objective.scale else "none",
        num_iterations=objective.epochs,
        # Weighs the estimate by the ratio to the sampler, which the paper does not.
        use_bias_correction_kl=False,
    )
    for layout in LAYOUTS:
        ours = run.ours(objective, layout)
        assert_same_advantages(ours, theirs)
        assert_same(ours.outcome, theirs.outcome)
        assert ours.clipped == pytest.approx(theirs.clipped) != 0


def test_rloo(run: Run) -> None:
    """TRL writes the loss with the ratio to the sampler, ours is REINFORCE's: where the policy has not moved, another
    value with the same gradient."""
    at_the_sampler = Run(**{**vars(run), "policy": run.sampler})
    theirs = at_the_sampler.theirs(RLOOTrainer, RLOOConfig, beta=0.0)
    for layout in LAYOUTS:
        ours = at_the_sampler.ours(RLOO(REWARD, k=3, max_new_tokens=LIMIT), layout)
        assert_same_advantages(ours, theirs)
        assert_same(Outcome(theirs.outcome.loss, ours.outcome.gradients), theirs.outcome)
