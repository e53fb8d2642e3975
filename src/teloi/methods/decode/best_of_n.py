"""Several answers are sampled, and the best one is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from teloi.engine.config import check_sampling
from teloi.engine.decoder import Decoder
from teloi.engine.objective import Now
from teloi.errors import UsageError

if TYPE_CHECKING:
    from teloi.batch.tree import Tree
    from teloi.models.roles import Models


@dataclass(frozen=True)
class BestOfN(Decoder):
    """Best of n: sample n answers, give the one with the highest reward (Stiennon et al., 2020, section 4.3).

    The answers are distributed as the model's own, moved towards the reward: the KL from the model is at most log n -
    (n - 1) / n nats an answer, whatever the reward.

    Use it as the yardstick of any training against the same reward: it needs none. Or to make sft rows of the best
    answers. Not where every answer costs: it writes n times as much."""

    reward: str = "checks"
    """Reward functions, joined by +: "checks", my_rewards.py:function or package.module:function, by TRL's convention,
    or the run of a reward model (rm)."""
    n: int = 16
    """Answers sampled of each prompt."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""
    temperature: float = 1.0
    """Of sampling."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that hold this share."""
    top_k: int = 0
    """Sample from so many of the likeliest tokens; 0: from all."""
    unfinished: float | None = None
    """Score of an answer without an end token, in place of its reward; None: as the reward function says."""

    def __post_init__(self) -> None:
        if min(self.n, self.max_new_tokens) < 1:
            raise UsageError("n and max_new_tokens must be at least 1")
        check_sampling(self.temperature, self.top_p, self.top_k)

    def decode(self, models: Models, prompts: Sequence[Tree], now: Now) -> list[Tree]:
        """The best answer of each prompt, with columns `reward`, its own, and `mean_reward`, that of all n."""
        from teloi.engine.rollout import Sampling, sample_groups, with_rewards
        from teloi.worlds.rewards import load_rewards

        sampling = Sampling(self.n, self.max_new_tokens, self.temperature, self.top_p, self.top_k)
        trees = sample_groups(models, prompts, sampling, now)
        return [self.best(tree) for tree in with_rewards(models, trees, load_rewards(self.reward))]

    def best(self, tree: Tree) -> Tree:
        """A group cut down to its best answer; of equals the first."""
        rewards, finished = tree.columns["rewards"], tree.columns["finished"]
        if self.unfinished is not None:
            rewards = np.where(finished, rewards, np.float32(self.unfinished))
        place = int(rewards.argmax())
        columns = {
            "finished": finished[place : place + 1],
            "reward": rewards[place : place + 1],
            "mean_reward": rewards.mean(keepdims=True),
        }
        return replace(tree, branches=(tree.branches[place],), columns=columns)
