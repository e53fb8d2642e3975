"""Group-relative policy optimisation and REINFORCE leave-one-out: several samples of each prompt are each other's
baseline."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from teloi import losses
from teloi.engine.objective import Now, Term
from teloi.errors import UsageError
from teloi.methods.reinforce.online import Online

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.models.roles import Models


@dataclass(frozen=True)
class GroupObjective(Online, ABC):
    """Weighs the tokens of k completions of a prompt by their advantage within the group."""

    k: int = 8
    """Completions sampled of each prompt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 2:
            raise UsageError(f"k must be at least 2, not {self.k}: the samples of a prompt are each other's baseline")

    def rollout(self, models: Models, examples: Sequence[Tree], now: Now) -> Sequence[Tree]:
        from teloi.engine.rollout import with_advantages, with_old_logps

        trees = with_advantages(self.sampled(models, examples, now), self.advantages)
        return with_old_logps(models.policy, trees) if self.epochs * self.minibatches > 1 else trees

    @abstractmethod
    def advantages(self, rewards: Tensor) -> Tensor:
        """From rewards [groups, k] to the advantage of each completion."""

    def metrics(self, batch: TreeBatch, logps: Tensor) -> dict[str, Term]:
        """With the groups that teach nothing."""
        rewards = batch.columns["rewards"]
        equal = rewards.amax(1) == rewards.amin(1)
        return {
            **super().metrics(batch, logps),
            "reward_spread_zero": Term(equal.float(), per="trees", weight=0.0),
        }

    def averaged(self, values: Tensor, batch: TreeBatch, weight: float = 1.0) -> Term:
        """Values of tokens as a term of the loss: their mean over all tokens of the step."""
        return Term(values, per="tokens", weight=weight)

    def kl_terms(self, models: Models, batch: TreeBatch, logps: Tensor) -> dict[str, Term]:
        """The KL to the reference, a token; nothing where there is no reference."""
        if models.reference is None:
            return {}
        estimate = losses.kl_estimate(logps, models.reference.logps(batch), self.kl_estimator)
        return {"kl": self.averaged(estimate, batch, self.kl)}


@dataclass(frozen=True)
class GRPO(GroupObjective):
    """Group relative policy optimisation (Shao et al., 2024, eq. 3), with the choices that later work made options.

    Loss: -min(rho A, clip(rho, 1 - clip, 1 + clip_high) A) a token, A the completion's reward centred (and divided by
    the deviation) within its group, rho the ratio to the policy that sampled. `reduction` tokens: mean over all tokens
    of the step (DAPO); rows: mean over completions of their means (the paper); constant: sum over rows times the
    allowed length (Dr. GRPO). The KL is averaged alike.

    Use it when a program can say whether an answer is right. Not when rewards are all equal within most groups: then
    nothing is learnt (watch `reward_spread_zero`); start from a model that succeeds sometimes, as after sft."""

    clip: float = 0.2
    """Lower clip range of the ratio."""
    clip_high: float = 0.2
    """Upper clip range; 0.28 in DAPO."""
    scale: bool = True
    """Divide advantages by the standard deviation of their group."""
    reduction: Literal["tokens", "rows", "constant"] = "tokens"
    """How token losses are averaged."""

    def advantages(self, rewards: Tensor) -> Tensor:
        return losses.group_advantages(rewards, scale=self.scale)

    def averaged(self, values: Tensor, batch: TreeBatch, weight: float = 1.0) -> Term:
        if self.reduction == "rows":
            return Term(values / batch.lengths.clamp(min=1)[batch.branch], per="rows", weight=weight)
        if self.reduction == "constant":
            return Term(values / self.max_new_tokens, per="rows", weight=weight)
        return super().averaged(values, batch, weight)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        logps = models.policy.logps(batch)
        old = batch.tokens.get("old_logps", logps.detach())
        values = losses.clipped_surrogate(logps, old, batch.tokens["advantages"], self.clip, self.clip_high)
        return {
            "policy": self.averaged(values, batch),
            **self.kl_terms(models, batch, logps),
            "clipped": self.clipped(batch, logps, self.clip, self.clip_high),
            **self.metrics(batch, logps),
        }


@dataclass(frozen=True)
class RLOO(GroupObjective):
    """REINFORCE leave-one-out (Ahmadian et al., 2024, eq. 8): the baseline of a completion is the mean reward of the
    others.

    Loss: -A log p of the whole completion, mean over completions, A its reward minus the mean of the other k - 1.

    Use it as the plain alternative to grpo: one step on each sample, no clipping, no division by the deviation. Not
    with several steps on the same samples: it has no ratio that would correct for the policy having moved."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs * self.minibatches > 1:
            raise UsageError(
                "rloo makes one step on its samples: epochs and minibatches must be 1 (grpo corrects for more)"
            )

    def advantages(self, rewards: Tensor) -> Tensor:
        return losses.leave_one_out_advantages(rewards)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        logps = models.policy.logps(batch)
        return {
            "policy": Term(losses.reinforce(logps, batch.tokens["advantages"]), per="rows"),
            **self.kl_terms(models, batch, logps),
            **self.metrics(batch, logps),
        }
