"""What every loss on a pair of completions shares: one tree a pair, the prompt encoded once; sums, lengths and
log-ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from teloi.data.formats import Preference
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class Pairs:
    """Log-probabilities of a batch of pairs; every tensor is [2, pairs], chosen first."""

    policy: Tensor
    """Sums over the completion's tokens under the policy."""
    reference: Tensor
    """Sums under the reference; zeros for a loss without one."""
    lengths: Tensor
    """Tokens of each completion."""

    @property
    def ratios(self) -> Tensor:
        """Log-ratio of policy to reference, summed."""
        return self.policy - self.reference

    @property
    def mean_ratios(self) -> Tensor:
        """Log-ratio a token; an empty completion gives 0."""
        return self.ratios / self.lengths.clamp(min=1)

    @property
    def policy_means(self) -> Tensor:
        """Log-probability a token under the policy."""
        return self.policy / self.lengths.clamp(min=1)


class PairObjective(Objective):
    """An objective on preference pairs. A subclass gives `pair_loss`; `rewards` if its implicit reward is not beta *
    log-ratio."""

    reads = Preference
    roles: ClassVar[tuple[str, ...]] = ("policy", "reference")
    reference_sums = True
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 5e-6}

    def __post_init__(self) -> None:
        check_beta(getattr(self, "beta", 1.0))
        check_smoothing(getattr(self, "label_smoothing", 0.0))

    def encode(self, row: Preference, processor: Processor) -> Tree:
        from teloi.data.encode import tree

        return tree(processor, row.prompt, [row.chosen, row.rejected])

    def pair_loss(self, pairs: Pairs) -> Tensor:
        """The loss of each pair, [pairs]."""
        raise TypeError(f"{type(self).__name__} must define pair_loss(pairs)")

    def rewards(self, pairs: Pairs) -> Tensor:
        """The implicit reward of each completion, [2, pairs], for the log."""
        return pairs.ratios * getattr(self, "beta", 1.0)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        policy = models.policy.branch_sums(batch)
        reference = models.reference.branch_sums(batch) if models.reference else policy.new_zeros(policy.shape)
        pairs = Pairs(policy, reference, batch.branch_lengths)
        if not self.coupled:
            return self.terms(pairs)
        # A loss that couples its pairs sees those of all processes.
        pairs = Pairs(*(models.gather(values.T).T for values in (policy, reference, batch.branch_lengths)))
        return {name: replace(term, shared=True) for name, term in self.terms(pairs).items()}

    def terms(self, pairs: Pairs) -> dict[str, Term]:
        """The pair loss, and what one watches: accuracy and margin of the implicit reward, likelihoods of both
        sides."""
        chosen, rejected = self.rewards(pairs).detach()
        return {
            "preference": Term(self.pair_loss(pairs), per="trees"),
            "accuracy": Term((chosen > rejected).float(), per="trees", weight=0.0),
            "margin": Term(chosen - rejected, per="trees", weight=0.0),
            "chosen_logps": Term(pairs.policy[0].detach(), per="trees", weight=0.0),
            "rejected_logps": Term(pairs.policy[1].detach(), per="trees", weight=0.0),
        }


def check_beta(beta: float) -> None:
    """UsageError unless beta is above 0 (and a number)."""
    if not 0 < beta < math.inf:
        raise UsageError(f"beta must be above 0, not {beta}")


def check_smoothing(label_smoothing: float) -> None:
    """UsageError unless label smoothing lies in [0, 0.5)."""
    if not 0 <= label_smoothing < 0.5:
        raise UsageError(f"label_smoothing must lie in [0, 0.5), not {label_smoothing}")
