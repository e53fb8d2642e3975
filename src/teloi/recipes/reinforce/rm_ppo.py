"""RLHF on one set of comparisons: a reward model of them, then PPO against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from teloi.data.formats import Preference
from teloi.engine.recipe import Bench, Recipe, Stage, Train
from teloi.methods.reinforce.ppo import PPO
from teloi.methods.reinforce.reward_model import RewardModel


@dataclass(frozen=True)
class RMPPO(Recipe):
    """Reward model, then PPO (Stiennon et al., 2020, section 3; Ivison et al., 2024, section 2).

    Stage `reward` trains a reward model (rm) of the pairs. Stage `policy` trains the start model with ppo on the
    prompts of the same pairs against that reward; its critic starts from the reward model. A budget is shared by both.

    Use it to set PPO against dpo on one set of comparisons, or where the policy shall be trained on its own answers.
    Not on few or poor comparisons: PPO finds what the reward model has wrong, and dpo then does better."""

    reads = Preference
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-5, "batch_size": 16}

    reward_share: float = 0.25
    """Share of a budget that the reward model may spend; without a budget it sees the pairs once."""
    centring: float = 0.01
    """Weight of the square that holds rewards near 0."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""
    epochs: int = 4
    """Passes over the samples of a step."""
    minibatches: int = 1
    """Optimiser steps in each pass."""
    kl: float = 0.05
    """Weight of the KL to the start model in the rewards of tokens."""
    unfinished: float | None = None
    """Score of an answer without an end token, in place of its reward; None: the reward model reads it like another."""
    value_learning_rate: float | None = None
    """Learning rate of the critic. Default: the policy's."""

    def stages(self) -> Sequence[Stage]:
        return [
            Train(
                "reward",
                "a reward model of the pairs",
                "rm",
                lambda bench: RewardModel(centring=self.centring),
                share=self.reward_share,
            ),
            Train(
                "policy",
                "ppo on the prompts against it",
                "ppo",
                self.policy,
                share=1 - self.reward_share,
                settings={"lr_scheduler_type": "constant"},
            ),
        ]

    def policy(self, bench: Bench) -> PPO:
        """PPO whose reward and critic are those of the first stage."""
        reward = bench.model("reward")
        return PPO(
            reward=reward,
            value=reward,
            max_new_tokens=self.max_new_tokens,
            epochs=self.epochs,
            minibatches=self.minibatches,
            kl=self.kl,
            unfinished=self.unfinished,
            value_learning_rate=self.value_learning_rate,
        )
