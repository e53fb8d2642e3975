"""Training in memory: a model, an objective and rows in, the trained model out. What claims and recipes are made of."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from teloi.batch.tree import Kind
from teloi.data.processor import OverlongPolicy, Processor
from teloi.data.read import Row, Rows
from teloi.engine.config import TrainConfig
from teloi.engine.dataset import encode
from teloi.engine.loop import Record, Trainer
from teloi.engine.objective import Architecture, Ledger, Objective
from teloi.engine.processes import device
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import Base, add_in_order, keep_memory, make_models
from teloi.engine.train import plan_for
from teloi.models.probe import lay_out
from teloi.models.roles import CachedReference, Models


@dataclass(frozen=True)
class Fitted:
    """A trained model as the base of what follows, its roles, and what the training cost."""

    base: Base
    models: Models
    ledger: Ledger
    records: Sequence[Record]


def as_base(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    architecture: Architecture = "causal",
    max_length: int = 1024,
    layout: Kind | None = None,
    overlong: OverlongPolicy = "drop",
) -> Base:
    """A model at hand as the start of a run, moved to where runs compute.

    `layout` None asks the probe whether packed trees are right for it."""
    keep_memory()
    add_in_order()
    layout = lay_out(model, layout) if architecture == "causal" else "padded"
    start = model.to(device()).eval()
    return Base(start, Processor(tokenizer, max_length, overlong), layout, type(model).__name__, architecture)


def fit(
    objective: Objective,
    base: Base,
    rows: Sequence[Row],
    config: TrainConfig,
    watch: Callable[[int, Base], object] | None = None,
) -> Fitted:
    """Train a copy of the base on rows, cast to what the objective reads. `base` stays as it is; no file is written.

    Of `config` only what concerns the training counts: batches, budget or epochs, optimiser, seed. `watch` is called
    after each step with the number of steps so far and the model as it is then. NonFinite when the loss stops being a
    number.
    """
    trainer = _trainer(objective, base, rows, config)
    models = trainer.models
    model = models.policy.model if models.policy is not None else None
    trained = Base(model, base.processor, base.layout, base.name, base.architecture)
    records = []
    for record in trainer.run():
        records.append(record)
        if watch is not None:
            watch(trainer.done, trained)
    return Fitted(trained, models, trainer.ledger, records)


def step_seconds(
    objectives: Mapping[str, Objective], base: Base, rows: Sequence[Row], config: TrainConfig, steps: int
) -> dict[str, float]:
    """What a step of each objective takes on copies of the base: median seconds of the processor over so many steps.

    They take turns within this process, so that whatever else the machine does meets all of them alike. The first two
    steps of each are not counted.
    """
    config = replace(config, budget=f"{steps + 2} steps")
    runs = {name: _trainer(objective, base, rows, config).run() for name, objective in objectives.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(steps + 2):
        for name, run in runs.items():
            began = time.process_time()  # time of this process alone
            next(run)
            taken[name].append(time.process_time() - began)
    return {name: statistics.median(each[2:]) for name, each in taken.items()}


def _trainer(objective: Objective, base: Base, rows: Sequence[Row], config: TrainConfig) -> Trainer:
    """What trains a copy of the base."""
    rows = rows if isinstance(rows, Rows) else Rows(rows, "rows")
    examples = encode(objective, rows, base.processor).examples
    plan = plan_for(objective, config, examples, base)
    models = make_models(objective, base, config, copy.deepcopy(base.model), example=examples[0])
    ledger = Ledger()
    if isinstance(models.reference, CachedReference):
        examples, ledger.computed_tokens = with_reference_sums(
            examples, plan.used, models.policy, config.micro_tokens, fingerprint(base.model)
        )
    return Trainer(objective, models, examples, plan, config, ledger=ledger)
