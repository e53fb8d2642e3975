"""What people prefer, learnt from which of two answers they chose: a reward of one answer, or a preference of two."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.data.formats import Preference, PromptCompletion
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import RowError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.data.scoring import Scoring
    from teloi.models.roles import Models


class Scalar(Objective, ABC):
    """A causal model with one number for a text, and what it becomes: a sequence classifier with one label."""

    reads = Preference
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-5}
    compares: ClassVar[bool] = False
    """Whether the number is of a pair of answers and not of one."""

    def build(self, models: Models) -> nn.Module:
        from teloi.models.scalar import scalar_head

        return scalar_head(models.policy)

    def numbers(self, models: Models, batch: TreeBatch) -> Tensor:
        """What the head reads off the last token of each branch, [k trees]."""
        from teloi.models.scalar import read_scalar

        assert models.parts is not None
        return batch.by_slot(read_scalar(models.parts, models.policy.ends(batch)))

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """None: it is no language model any more."""
        return ()

    def export(self, models: Models, path: Path) -> None:
        """The model as a sequence classifier with one label, in place of the language model."""
        from teloi.models.scalar import save_scalar

        assert models.parts is not None
        assert models.processor is not None
        save_scalar(models.policy, models.parts, models.processor.tokenizer, path, self.compares)


@dataclass(frozen=True)
class RewardModel(Scalar):
    """Reward model (Stiennon et al., 2020, section 3.4).

    A linear head reads the reward r off the last state of the answer's last token. Loss: -log sigmoid(r(chosen) -
    r(rejected) - margin) + centring (r(chosen) + r(rejected))^2, mean over the pairs of the step. What comes out is a
    sequence-classification checkpoint with one label, as transformers and TRL read it.

    Use it for a reward that rloo, grpo or best-of-n maximise (`--reward RUN`), or to rank answers. Not when the pairs
    are to train the policy alone: dpo needs no second model."""

    margins: bool = False
    """Rows have a column `margin`, by which r(chosen) is to exceed r(rejected)."""
    centring: float = 0.0
    """Weight of the square that holds rewards near 0; 0.01 is usual."""
    references: str | None = None
    """Data with reference answers (prompt and completion): at the end rewards are shifted so that these have a mean of
    0. The shift, `reward_bias` in config.json, is added wherever teloi reads the model; other libraries do not know it.
    """

    def __post_init__(self) -> None:
        if not 0 <= self.centring < math.inf:
            raise UsageError(f"centring must not be negative, not {self.centring}")

    def encode(self, row: Preference, processor: Processor) -> Tree:
        from teloi.data.encode import tree

        margin = row.columns.get("margin") if self.margins else 0.0
        if not isinstance(margin, int | float):
            raise RowError(f"margins ask for a column `margin` with a number in every row, not {margin!r}")
        return tree(processor, row.prompt, [row.chosen, row.rejected], margin=np.float32(margin))

    def build(self, models: Models) -> nn.Module:
        self.answers()  # what is wrong with them is said before anything is trained
        return super().build(models)

    def answers(self) -> Sequence[Any]:
        """The references, parsed; none where none are given."""
        from teloi.data.casts import as_format
        from teloi.data.read import read

        return as_format(read(self.references), PromptCompletion) if self.references else []

    def export(self, models: Models, path: Path) -> None:
        """The model as a sequence classifier with one label, in place of the language model; its shift."""
        from teloi.models.scalar import load_scalar, shift_scalar

        super().export(models, path)
        if answers := self.answers():
            rewards = load_scalar(path)([one.prompt for one in answers], [one.completion for one in answers])
            shift_scalar(path, -sum(rewards) / len(rewards))

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        chosen, rejected = rewards = self.numbers(models, batch)
        values = losses.reward_pair(chosen, rejected, batch.columns["margin"], self.centring)
        return {
            "preference": Term(values, per="trees"),
            "accuracy": Term((chosen > rejected).float(), per="trees", weight=0.0),
            "margin": Term((chosen - rejected).detach(), per="trees", weight=0.0),
            "reward": Term(rewards.detach().mean(0), per="trees", weight=0.0),
        }


@dataclass(frozen=True)
class PreferenceModel(Scalar):
    """Preference model (Munos et al., 2024, section 3.2): it sees both answers, so that its preferences may go round in
    circles.

    A linear head reads the log-odds f of the first answer off the last token of prompt, first and second answer. Loss:
    -(log sigmoid f(chosen, rejected) + log sigmoid -f(rejected, chosen)) / 2, mean over the pairs of the step. What
    comes out is a sequence-classification checkpoint with one label.

    Use it as the judge of nash-md (`--judge RUN`). Not where one number for an answer is wanted, nor where an answer is
    to be ranked among many: rm."""

    compares = True

    def encode(self, row: Preference, processor: Processor) -> Tree:
        from teloi.data.encode import in_both_orders

        return in_both_orders(processor, row.prompt, row.chosen, row.rejected)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        there, back = self.numbers(models, batch)
        return {
            "preference": Term(losses.both_orders(there, back), per="trees"),
            "accuracy": Term((there > back).float(), per="trees", weight=0.0),
            "position": Term((there + back).detach() / 2, per="trees", weight=0.0),
        }
