"""Kahneman-Tversky optimisation: learn from completions that are marked good or bad, without pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.data.formats import UnpairedPreference
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import DataError, UsageError
from teloi.methods.prefer.pairs import check_beta

if TYPE_CHECKING:
    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class KTO(Objective):
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024, eq. 7-8).

    Loss of a desirable completion: weight * (1 - sigmoid(beta * (log-ratio - z0))); of an undesirable one: weight *
    (1 - sigmoid(beta * (z0 - log-ratio))). z0, the batch's estimate of the KL from the reference, is the mean
    log-ratio of *mismatched* completions (another prompt's), at least 0 and without gradient; so the loss couples
    its batch.

    The mismatched completion is the second branch of each tree, so its prompt is not encoded again. Pairs are cast
    to two rows each.

    Use it when feedback comes as thumbs up and down, or when one label is much rarer (set the weights so that the
    sums of both sides are about equal). Not when there are clean pairs: dpo uses that both sides answer one prompt.
    """

    reads = UnpairedPreference
    roles = ("policy", "reference")
    coupled = True
    reference_sums = True
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 5e-6, "batch_size": 32}

    beta: float = 0.1
    """Strength of the pull towards the reference."""
    desirable_weight: float = 1.0
    """Weight of desirable completions."""
    undesirable_weight: float = 1.0
    """Weight of undesirable completions."""

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if min(self.desirable_weight, self.undesirable_weight) < 0:
            raise UsageError("desirable_weight and undesirable_weight must not be negative")

    def encode(self, row: UnpairedPreference, processor: Processor) -> Tree:
        from teloi.data.encode import tree

        return tree(processor, row.prompt, [row.completion], desirable=np.bool_(row.label))

    def prepare(self, examples: Sequence[Tree], seed: int) -> Sequence[Tree]:
        """Give each tree a second branch: the completion of the next example, in a shuffled cycle, that has another
        prompt, cut to what fits the context behind this one."""
        longest = max(len(e.prompt) + len(branch.ids) for e in examples for branch in e.branches)
        order = np.random.default_rng(seed).permutation(len(examples))
        prepared = list(examples)
        for place, index in enumerate(order):
            example = examples[index]
            others = (examples[order[(place + step) % len(order)]] for step in range(1, len(order)))
            other = next((o for o in others if not np.array_equal(o.prompt, example.prompt)), None)
            if other is None:
                raise DataError(
                    "kto needs rows with at least two different prompts: its baseline pairs each with another's reply"
                )
            room = longest - len(example.prompt)
            cut = (replace(b, ids=b.ids[:room], weights=b.weights[:room]) for b in other.branches)
            prepared[index] = replace(example, branches=(*example.branches, *cut))
        return prepared

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        assert models.reference is not None
        policy = models.policy.branch_sums(batch)
        ratio, mismatched = policy - models.reference.branch_sums(batch)
        baseline = losses.kl_baseline(models.gather(mismatched))
        desirable = batch.columns["desirable"]
        values = losses.kto(ratio, desirable, baseline, self.beta, self.desirable_weight, self.undesirable_weight)
        reward = self.beta * ratio.detach()
        return {
            "kto": Term(values, per="trees"),
            "kl": Term(baseline.expand(len(values)), per="trees", weight=0.0),
            "reward_desirable": Term(reward * desirable, per="trees", weight=0.0),
            "reward_undesirable": Term(reward * ~desirable, per="trees", weight=0.0),
        }
