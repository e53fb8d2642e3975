"""Preference losses without a reference model: a margin on the policy's own log-probabilities, or a likelihood term as
the anchor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from teloi import losses
from teloi.engine.objective import Term
from teloi.methods.prefer.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimPO(PairObjective):
    """Simple preference optimisation (Meng et al., 2024, eq. 6): the reward is beta times the mean log-probability
    of a token.

    Loss: -log sigmoid(reward of chosen - reward of rejected - margin).

    Use it when memory has no room for a reference pass, or when dpo makes replies longer. Not for long runs or high
    learning rates: nothing else holds the policy near its start; watch the KL.
    """

    roles = ("policy",)
    reference_sums = False
    beta: float = 2.0
    """Scale of the reward."""
    margin: float = 1.0
    """The reward difference to reach (gamma in the paper; gamma / beta = 0.5 is its advice)."""

    def rewards(self, pairs: Pairs) -> Tensor:
        return self.beta * pairs.policy_means

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.policy_means
        return losses.simpo(chosen, rejected, self.beta, self.margin)


@dataclass(frozen=True)
class ORPO(PairObjective):
    """Odds ratio preference optimisation (Hong et al., 2024, eq. 6-7): fine-tuning and preference in one stage.

    Loss: mean NLL of the chosen completion + beta * -log sigmoid(log odds of chosen - log odds of rejected), where
    the odds are those of the mean token probability, p / (1 - p).

    Use it from a base model, instead of sft followed by dpo. Not after fine-tuning on the same answers: most of its
    gradient is that of sft.
    """

    roles = ("policy",)
    reference_sums = False
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-5}

    beta: float = 0.1
    """Weight of the odds ratio (lambda in the paper)."""

    def rewards(self, pairs: Pairs) -> Tensor:
        return self.beta * pairs.policy_means

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.policy_means
        return self.beta * losses.orpo(chosen, rejected)

    def terms(self, pairs: Pairs) -> dict[str, Term]:
        return {**super().terms(pairs), "nll": Term(-pairs.policy_means[0], per="trees")}


@dataclass(frozen=True)
class CPO(PairObjective):
    """Contrastive preference optimisation (Xu et al., 2024, eq. 5-6): dpo with a uniform reference, anchored by
    likelihood.

    Loss: -log sigmoid(beta * (log p of chosen - log p of rejected)) + alpha * mean NLL of the chosen completion.

    Use it for tasks with nearly right answers, such as translation, when the chosen ones are good enough to
    imitate. Not when completions differ much in length: sums favour the shorter one.
    """

    roles = ("policy",)
    reference_sums = False
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-5}

    beta: float = 0.1
    """Scale of the log-probability difference."""
    alpha: float = 1.0
    """Weight of the likelihood of the chosen completion."""
    label_smoothing: float = 0.0
    """Assumed share of wrong labels, in [0, 0.5)."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.policy
        return losses.cpo(chosen, rejected, self.beta, self.label_smoothing)

    def terms(self, pairs: Pairs) -> dict[str, Term]:
        return {**super().terms(pairs), "nll": Term(-pairs.policy_means[0], per="trees", weight=self.alpha)}
