"""What all objectives share that learn from rewards for what the policy samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from teloi.data.formats import PromptOnly
from teloi.engine.config import check_sampling
from teloi.engine.objective import Now, Objective, Phase, Term
from teloi.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class Online(Objective, ABC):
    """Samples k completions of each prompt and rewards them."""

    reads = PromptOnly
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-5, "batch_size": 8, "lr_scheduler_type": "constant"}

    reward: str = "checks"
    """Reward functions, joined by +: "checks", my_rewards.py:function or package.module:function, by TRL's convention,
    or the run of a reward model (rm)."""
    gold: str | None = None
    """What the reward stands for, in the same form: logged as `gold` and never learnt from. A reward that rises while
    it falls is warned of."""
    k: int = 1
    """Completions sampled of each prompt."""
    max_new_tokens: int = 64
    """Longest completion in tokens."""
    temperature: float = 1.0
    """Of sampling."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that hold this share."""
    top_k: int = 0
    """Sample from so many of the likeliest tokens; 0: from all."""
    epochs: int = 1
    """Passes over the samples of a step."""
    minibatches: int = 1
    """Optimiser steps in each pass."""
    kl: float = 0.0
    """Weight of the KL to the start model, estimated a token; at 0 no reference model is kept."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """How the KL is estimated."""

    def __post_init__(self) -> None:
        if min(self.k, self.epochs, self.minibatches, self.max_new_tokens) < 1:
            raise UsageError("k, epochs, minibatches and max_new_tokens must be at least 1")
        if self.kl < 0:
            raise UsageError("kl must not be negative")
        check_sampling(self.temperature, self.top_p, self.top_k)

    @property
    def roles(self) -> tuple[str, ...]:  # type: ignore[override]  # the reference only where its KL counts
        return ("policy", "reference") if self.kl else ("policy",)

    @property
    def phase(self) -> Phase:
        return Phase(self.epochs, self.minibatches)

    def encode(self, row: PromptOnly, processor: Processor) -> Tree:
        from teloi.data.encode import question

        return question(processor, row)

    def cost(self, example: Tree) -> int:
        return self.epochs * (example.size + self.k * self.max_new_tokens)

    @abstractmethod
    def rollout(self, models: Models, examples: Sequence[Tree], now: Now) -> Sequence[Tree]:
        """The samples, with what the loss reads of them; `advantages` among the branches' columns."""

    def sampled(self, models: Models, examples: Sequence[Tree], now: Now) -> list[Tree]:
        """The prompts with their samples as branches, and the rewards of these."""
        from teloi.engine.rollout import Sampling, sample_groups, with_rewards
        from teloi.worlds.rewards import load_rewards

        sampling = Sampling(self.k, self.max_new_tokens, self.temperature, self.top_p, self.top_k)
        trees = sample_groups(models, examples, sampling, now)
        if self.gold is not None:
            measured = with_rewards(models, trees, load_rewards(self.gold))
            golds = [one.columns["rewards"] for one in measured]
            trees = [
                replace(tree, columns={**tree.columns, "gold": gold}) for tree, gold in zip(trees, golds, strict=True)
            ]
        return with_rewards(models, trees, load_rewards(self.reward))

    def metrics(self, batch: TreeBatch, logps: Tensor) -> dict[str, Term]:
        """What one watches: reward; length and how many reached no end token; the entropy of the policy that sampled,
        estimated by its samples."""
        gold = batch.columns.get("gold")
        return {
            **({} if gold is None else {"gold": Term(gold, per="rows", weight=0.0)}),
            "reward": Term(batch.columns["rewards"], per="rows", weight=0.0),
            "length": Term(batch.lengths.float(), per="rows", weight=0.0),
            "truncated": Term((~batch.columns["finished"]).float(), per="rows", weight=0.0),
            "entropy": Term(-batch.tokens.get("old_logps", logps.detach()), per="tokens", weight=0.0),
        }

    def clipped(self, batch: TreeBatch, logps: Tensor, low: float, high: float) -> Term:
        """How many tokens the clip of the ratio keeps from moving further."""
        logps, advantages = logps.detach(), batch.tokens["advantages"]
        ratio = (logps - batch.tokens.get("old_logps", logps)).exp()
        held = ((advantages < 0) & (ratio < 1 - low)) | ((advantages > 0) & (ratio > 1 + high))
        return Term(held.float(), per="tokens", weight=0.0)
