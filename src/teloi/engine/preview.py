"""`--dry-run`: one decoded batch, its size, the memory it takes and how long the run would take."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence as Several
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text
from torch import nn

from teloi.batch.example import Batch, Example
from teloi.batch.sequence import IGNORED, OVER_INPUTS, SCORED, Sequence, SequenceBatch
from teloi.batch.tree import Tree, TreeBatch
from teloi.engine.config import TrainConfig
from teloi.engine.objective import Now, Objective
from teloi.engine.plan import Plan
from teloi.engine.progress import seconds
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import Base
from teloi.engine.step import Step, averages
from teloi.models.roles import CachedReference, Models, evaluation

SHOWN = 3
"""Examples that are printed."""


def preview(
    objective: Objective, models: Models, base: Base, examples: Several[Any], plan: Plan, config: TrainConfig
) -> None:
    """Print the first examples of the first step as it trains on them, then time its first micro-batch forward and
    backward; nothing is trained."""
    console = Console(highlight=False)
    drawn = [examples[i] for i in plan.examples(0)]
    micros = plan.cut([objective.cost(example) for example in drawn])
    first: Several[Any] = [drawn[place] for place in micros[0]]
    if isinstance(models.reference, CachedReference):
        model_hash = fingerprint(base.model)
        first, _ = with_reference_sums(first, range(len(first)), models.policy, config.micro_tokens, model_hash)
    now = Now(0, plan.steps, seed=config.seed, places=tuple(micros[0]))
    step = Step(models, objective).to(models.device).train()
    started = time.monotonic()
    with evaluation(step):
        made = objective.rollout(models, first, now)
    batch = objective.collate(made, now, models.device)
    loss, shares = step.shares(batch, now, {name: max(count, 1) for name, count in batch.counts.items()})
    loss.backward()
    took = time.monotonic() - started
    step.zero_grad(set_to_none=True)
    console.print(
        "prompt dim, scored tokens [green]green[/green] (deeper: larger weight), unscored [yellow]yellow[/yellow]\n"
    )
    read = batch.sequences if isinstance(batch, SequenceBatch) else made  # collating may draw
    for number, example in enumerate(read[:SHOWN]):
        console.print(_rendered(example, base, number))
    rate = batch.size / took
    terms = averages({name: float(value) for name, value in shares.items()})
    counts = ", ".join(f"{count:,} {'scored tokens' if name == 'tokens' else name}" for name, count in _counts(batch))
    console.print("terms of this micro-batch at the start: " + ", ".join(f"{n} {v:.4g}" for n, v in terms.items()))
    console.print(
        f"step 1: {len(drawn)} rows in {len(micros)} micro-batches; this one has {batch.size:,} positions, {counts} "
        f"({models.layout}, {_padding(batch, models):.0%} padding)"
    )
    peak = _peak()
    needed = peak + sum(_optimizer(module) for module in models.trained)
    console.print(f"memory: {peak:.1f} GB so far, about {needed:.1f} GB with the optimiser")
    console.print(
        f"the run: {plan.steps:,} steps, {plan.tokens:,} tokens, {plan.epochs:.2g} epochs; at {rate:,.0f} tokens/s "
        f"about {seconds(plan.tokens / rate)}"
    )


def _counts(batch: Batch) -> list[tuple[str, int]]:
    return [(name, count) for name, count in batch.counts.items() if count and name != "positions"]


def _padding(batch: Batch, models: Models) -> float:
    """Share of the computed positions that are padding."""
    if isinstance(batch, TreeBatch) and models.layout == "padded":
        return 1 - batch.size / batch.layout("padded").input_ids.numel()
    if isinstance(batch, SequenceBatch):
        computed = sum(ids.numel() for name, ids in batch.ids.items() if name not in OVER_INPUTS)
        return 1 - batch.size / computed
    return 0.0


def _rendered(example: Example, base: Base, number: int) -> Text:
    if isinstance(example, Tree):
        return _tree(example, base, number)
    if isinstance(example, Sequence):
        return _sequence(example, base, number)
    text = Text(f"example {number + 1}: ", style="bold")
    for name, array in example.arrays().items():
        text.append(f"\n  {name}: {array.dtype} {list(array.shape)}", style="cyan")
    return text.append("\n")


def _tree(tree: Tree, base: Base, number: int) -> Text:
    decode = base.processor.decode
    text = Text(f"tree {number + 1}: ", style="bold")
    text.append(decode(tree.prompt.tolist()), style="dim")
    for index, branch in enumerate(tree.branches):
        text.append(f"\n  branch {index + 1} ({len(branch.ids)} tokens): ", style="bold")
        for token, weight in zip(branch.ids.tolist(), branch.weights.tolist(), strict=True):
            style = (
                "yellow"
                if weight == 0
                else "green"
                if weight == 1
                else f"rgb(0,{min(255, int(120 + 100 * abs(weight)))},0)"
            )
            text.append(decode([token]), style=style)
    for name, value in tree.columns.items():
        text.append(f"\n  {name}: {value}", style="cyan")
    return text.append("\n")


def _sequence(sequence: Sequence, base: Base, number: int) -> Text:
    """Its texts; of inputs with labels over them, those with a label (of a detector: 1), and what stood there."""
    decode = base.processor.decode
    text = Text(f"example {number + 1}", style="bold")
    for name, ids in sequence.ids.items():
        if name in OVER_INPUTS:
            continue
        over = sequence.ids if name == "input_ids" else {}
        scored = (
            np.isin(over["labels"], (IGNORED, 0), invert=True)
            if "labels" in over
            else np.full(len(ids), name in SCORED)
        )
        text.append(f"\n  {name} ({len(ids)} tokens): ", style="bold")
        for token, green, before in zip(ids.tolist(), scored, over.get("originals", ids).tolist(), strict=True):
            text.append(decode([token]), style="green" if green else "dim")
            if before != token:
                text.append(f"[{decode([before])}]", style="yellow")
    for name, value in sequence.columns.items():
        text.append(f"\n  {name}: {value}", style="cyan")
    return text.append("\n")


def _peak() -> float:
    """Peak memory of this process in GB; ru_maxrss counts bytes on macOS and kilobytes elsewhere."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _optimizer(model: nn.Module) -> float:
    """GB that AdamW adds: two float32 moments, and a float32 master and gradient where the weights are bfloat16."""
    return sum(p.numel() * (8 if p.element_size() == 4 else 16) for p in model.parameters() if p.requires_grad) / 1e9
