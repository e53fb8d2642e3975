"""Nash learning from human feedback: an answer is raised as far as a judge prefers it to an opponent's, until no other
policy is preferred to the policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from teloi import losses
from teloi.data.formats import PromptOnly
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.engine.rollout import Sampling
    from teloi.models.roles import Models
    from teloi.worlds.judges import Judge


@dataclass(frozen=True)
class Game(Objective, ABC):
    """One answer of the policy and one of an opponent to each prompt, at temperature 1; the first is trained on."""

    reads = PromptOnly
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-5, "batch_size": 16, "lr_scheduler_type": "constant"}

    judge: str = "checks"
    """Who says which of two answers is better: "checks", my_judge.py:function or package.module:function, by TRL's
    convention for pairwise judges, or the run of a preference model (pm) or a reward model (rm). It sees each pair in
    both orders."""
    tau: float = 0.008
    """Weight of the KL to the start model (beta in TRL, 0.1 there); at 0 an objective may keep none."""
    kl_credit: Literal["to_go", "token", "sequence"] = "to_go"
    """The KL that a token answers for: its own and all behind it (the paper), its own alone (TRL; biased), or that of
    the whole answer."""
    unfinished: float = 0.0
    """Log-odds that an answer without an end token loses against one with it."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        for name in ("tau", "unfinished"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)}")

    @property
    def roles(self) -> tuple[str, ...]:  # type: ignore[override]  # the reference only where it counts
        return ("policy", "reference") if self.tau else ("policy",)

    def encode(self, row: PromptOnly, processor: Processor) -> Tree:
        from teloi.data.encode import question

        return question(processor, row)

    def cost(self, example: Tree) -> int:
        return int(example.size) + self.max_new_tokens

    def rollout(self, models: Models, examples: Sequence[Tree], now: Now) -> Sequence[Tree]:
        from teloi.engine.rollout import Sampling, sample_groups, with_preferences

        sampling = Sampling(1, self.max_new_tokens)
        answers = sample_groups(models, examples, sampling, now)
        return with_preferences(models, answers, self.opponents(models, examples, sampling, now), self.referee())

    def referee(self) -> Judge:
        """Who judges."""
        from teloi.worlds.judges import load_judge

        return load_judge(self.judge)

    @abstractmethod
    def opponents(self, models: Models, examples: Sequence[Tree], sampling: Sampling, now: Now) -> list[Tree]:
        """The prompts with the opponent's answers, drawn independently of the policy's."""

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        logps = models.policy.logps(batch)
        reference = models.reference.logps(batch) if models.reference is not None else logps.detach()
        rows, others = batch.by_row(logps), batch.by_row(reference)
        said, finished, opposed = (
            batch.columns[name].flatten() for name in ("preference", "finished", "opponent_finished")
        )
        preference = losses.penalised_preference(said, finished, opposed, self.unfinished)
        real = losses.real(batch.lengths, rows.shape[1])
        return {
            "policy": Term(losses.nash_md(rows, others, real, preference, self.tau, self.kl_credit), per="rows"),
            "win_rate": Term(preference, per="rows", weight=0.0),
            "kl": Term((rows - others).detach().sum(1), per="rows", weight=0.0),
            "length": Term(batch.lengths.float(), per="rows", weight=0.0),
            "truncated": Term((~finished).float(), per="rows", weight=0.0),
            "unjudged": Term((~batch.columns["judged"]).float(), per="rows", weight=0.0),
        }


@dataclass(frozen=True)
class NashMD(Game):
    """Nash-MD-PG (Munos et al., 2024, section 7): plays against a mixture of policy and start model.

    Loss: -sum_t log p_t (P(y > y') - 1/2 - tau KL_t), mean over answers. y is the policy's; y' is drawn token by token
    from logits (1 - mixture) policy + mixture start model; P is the judge's. No gradient flows through y', P or KL_t.
    With mixture 0 it is self-play, with 1 a best response to the start model.

    Use it with a judge that sees both answers, where preferences go round in circles or come from people who differ.
    Not with a scalar reward: its preferences are transitive, there the game has nothing to add, and grpo learns more
    from as many samples. Watch `win_rate`: near 1/2 in self-play it says nothing of progress."""

    mixture: float = 0.125
    """Share of the start model's logits in the opponent's (beta in the paper, where 0.125 was best; 0.5 in TRL)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mixture <= 1:
            raise UsageError(f"mixture must lie between 0 and 1, not {self.mixture}")

    @property
    def roles(self) -> tuple[str, ...]:  # type: ignore[override]  # as in the class above
        return ("policy", "reference") if self.tau or self.mixture else ("policy",)

    def opponents(self, models: Models, examples: Sequence[Tree], sampling: Sampling, now: Now) -> list[Tree]:
        from teloi.engine.rollout import beside_reference, sample_groups

        def mix(policy: Any, reference: Any) -> Any:
            return losses.mixture_logps(policy.float(), reference.float(), self.mixture)

        beside = beside_reference(models, mix) if self.mixture else None
        return sample_groups(models, examples, sampling, now, "opponent", beside)


@dataclass(frozen=True)
class NashEMA(Game):
    """Nash-EMA-PG (Munos et al., 2024, section 7): plays against the moving average of its own weights.

    Loss: as nash-md's. The opponent's weights are momentum * average + (1 - momentum) * policy after each step; they
    are part of every checkpoint, in float32, and only what is trained has an average.

    Use it where a mixture with the start model would hold the policy back for too long. Not on short runs: the average
    takes 1 / (1 - momentum) steps to follow."""

    momentum: float = 0.999
    """How much of itself the average keeps in each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"momentum must lie between 0 and 1, not {self.momentum}")

    def build(self, models: Models) -> nn.Module:
        from teloi.models.momentum import Average

        return Average(models.policy.model)

    def opponents(self, models: Models, examples: Sequence[Tree], sampling: Sampling, now: Now) -> list[Tree]:
        from teloi.engine.rollout import sample_groups

        average: Any = models.parts
        with average.instead(models.policy.model):
            return sample_groups(models, examples, sampling, now, "opponent")

    def after_step(self, models: Models, batches: Sequence[TreeBatch], now: Now) -> None:
        from teloi.engine.sharding import whole
        from teloi.models.momentum import trainable

        average: Any = models.parts
        average.follow((whole(weight.detach()) for weight in trainable(models.policy.model)), self.momentum)
