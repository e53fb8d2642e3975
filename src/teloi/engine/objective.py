"""The one interface: what a method has to say so that the engine can train it.

A simple objective writes two methods, `encode` (a row becomes an example) and `loss` (a batch becomes named terms);
everything else has a default. Objectives are frozen dataclasses: each field is a hyper-parameter, a flag of the command
and a line of `run.yaml`, and the docstring under a field is its help text.

This module, like every method file, imports torch for type checking only, so that `teloi --help` answers at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from teloi.data.formats import Format

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from teloi.data.processor import Processor
    from teloi.data.scoring import Scoring
    from teloi.models.roles import Models


@dataclass(frozen=True)
class Term:
    """One named part of a loss: it contributes `weight * sum(values) / count[per]`.

    `per` names what the sum is averaged over ("tokens", "rows", "trees": the keys of the batch's `counts`); the engine
    adds the counts up over all micro-batches and processes of a step first, so that accumulation never changes the
    gradient. A term of weight 0 is a metric: it is logged, averaged in the same way, and carries no gradient; it may
    bring its own denominator as a tensor, and is `sum(values) / sum(per)` over the step then (a recall, an F1).
    `shared` says that the values are those of all processes (computed from `models.gather`), not only this one's part.
    """

    values: Tensor
    per: str | Tensor = "rows"
    weight: float = 1.0
    shared: bool = False


@dataclass(frozen=True)
class Now:
    """Where in the run we are: the optimiser step (from 0), steps in total, tokens seen; and the source of all
    randomness."""

    step: int
    total: int
    seen: int = 0
    seed: int = 0
    micro: int = 0
    rank: int = 0
    places: tuple[int, ...] = ()
    """In a rollout and in `collate`: the place in the step of each of the examples."""

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 at the first step and 1 at the last."""
        return self.step / max(self.total - 1, 1)

    def rng(self, name: str, example: int | None = None) -> np.random.Generator:
        """A generator of its own for each name, step, micro-batch, process and seed: resuming and pairing of arms are
        exact.

        With `example`, the number of an example in the batch, it belongs to that example's place in the step instead,
        so that what is drawn depends neither on micro-batches nor on processes."""
        key = [zlib.crc32(name.encode())]
        if example is None:
            return np.random.default_rng([self.seed, self.step, self.micro, self.rank, *key])
        place = self.places[example] if self.places else example
        return np.random.default_rng([self.seed, self.step, place, *key])


@dataclass(frozen=True)
class Phase:
    """How often the examples of a step of the plan are used: passes over them, optimiser steps in each pass."""

    epochs: int = 1
    minibatches: int = 1


@dataclass(frozen=True)
class Quotas:
    """Examples in strata, each of which makes up a fixed share of every batch, whatever its size.

    A stratum that has no example leaves its share to the others; one with the share 0 is never drawn.
    """

    strata: Sequence[int]
    """The stratum of each example."""
    shares: Mapping[int, float]
    """Of each stratum; scaled to add up to 1."""


Architecture = Literal["causal", "masked", "seq2seq", "encoder", "classifier", "none"]


class Objective:
    """A training objective. Subclasses are frozen dataclasses; see `teloi.methods` for examples to copy.

    Class variables: `reads` is the data format, or several in order of preference (the engine casts to it where a cast
    exists), `roles` the models the loss asks for ("teacher" is the model that the setting `teacher` names),
    `architecture` what kind of model the policy is ("none": the objective builds all it trains), `coupled` says that
    the loss is no sum over examples (the engine then makes one batch a step), `reference_sums` that of the reference
    only each branch's summed log-probability is needed (computed once, no second model in memory), `defaults` the
    settings of `TrainConfig` that suit the method better than the general ones.
    """

    reads: ClassVar[type[Format] | tuple[type[Format], ...]]
    roles: ClassVar[tuple[str, ...]] = ("policy",)
    architecture: ClassVar[Architecture] = "causal"
    coupled: ClassVar[bool] = False
    reference_sums: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}

    def shape(self, model: Any, example: Any) -> None:
        """Give the model at the start of a run the form that the data asks for (a head of as many outputs as there are
        classes), before anything is wrapped around it. Draws come from torch's generator. `example` is one of the
        run."""

    def build(self, models: Models) -> nn.Module | None:
        """The objective's own trainable or stateful parts; saved in every checkpoint. `models.example` is one example
        of the run, for shapes that follow the data."""
        return None

    # Examples and batches are `Tree` and `TreeBatch`, `Sequence` and `SequenceBatch`, or `Tensors` and `TensorsBatch`;
    # a method names its own in its signatures.

    def prepare(self, examples: Sequence[Any], seed: int) -> Sequence[Any]:
        """One pass over all examples before training, e.g. to pair each with another one. Deterministic in `seed`."""
        return examples

    def prepare_held_out(self, examples: Sequence[Any], training: Sequence[Any], seed: int) -> Sequence[Any]:
        """The same for held-out examples, of which something may have to agree with the prepared training ones."""
        return self.prepare(examples, seed)

    def quotas(self, examples: Sequence[Any]) -> Quotas | None:
        """How batches are to be composed; None: as it comes, every example once in a pass."""
        return None

    def encode(self, row: Any, processor: Processor) -> Any:
        """A row, parsed as `reads`, becomes one example or several. Deterministic."""
        raise TypeError(f"{type(self).__name__} must define encode(row, processor)")

    @property
    def phase(self) -> Phase:
        """What becomes of the examples of one step of the plan; by default one optimiser step on all of them."""
        return Phase()

    def cost(self, example: Any) -> int:
        """Positions that a step trains on for an example: on average where corruption is drawn; online methods, which
        make theirs, say at most how many."""
        return int(example.size)

    def rollout(self, models: Models, examples: Sequence[Any], now: Now) -> Sequence[Any]:
        """What a step trains on, made from the examples drawn for it; online methods sample from the policy here.

        Runs once a step of the plan, without gradients, the policy in evaluation mode. All randomness comes from
        `now.rng(name)`, so that a run that was killed inside a rollout samples the same again.
        """
        return examples

    def collate(self, examples: Sequence[Any], now: Now, device: Any) -> Any:
        """Examples become a batch. Pure: all randomness comes from `now.rng(name, i)` for example i."""
        from teloi.batch.tree import TreeBatch

        return TreeBatch(examples, device)

    def loss(self, models: Models, batch: Any, now: Now) -> dict[str, Term]:
        """The named terms of the loss of a micro-batch."""
        raise TypeError(f"{type(self).__name__} must define loss(models, batch, now)")

    def after_step(self, models: Models, batches: Sequence[Any], now: Now) -> None:
        """Runs after each optimiser step, without gradients: moving averages, queues, counts.

        `batches` are this process's micro-batches of the step, with what the loss left in their `notes`. State must
        come out the same on every process, however the step was cut: sum over the batches and `models.gather`.
        """

    def parameter_groups(self, models: Models) -> list[dict[str, Any]] | None:
        """Groups for the optimiser, in torch's form; None: all trainable parameters with the run's learning rate."""
        return None

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """The ways in which a model that was trained so says how likely a text is, by which it may be measured. None:
        what it has learned is no distribution over the tokens of a text.

        By default a causal model scores each token given those before it.
        """
        from teloi.data.scoring import from_left

        return from_left(self.architecture, processor)

    def export(self, models: Models, path: Path) -> None:
        """Write what a user takes away besides the policy's transformers checkpoint, which the engine writes."""

    def settings(self) -> dict[str, Any]:
        """Hyper-parameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # subclasses are dataclasses


@dataclass
class Ledger:
    """What a run has spent. Tokens are positions a model computed, without padding."""

    steps: int = 0
    rows: int = 0
    trained_tokens: int = 0
    scored_tokens: int = 0
    computed_tokens: int = 0
    train_seconds: float = 0.0
    prepare_seconds: float = 0.0
    eval_seconds: float = 0.0
    overlong: dict[str, int] = field(default_factory=dict)
