"""`--dry-run`: one decoded batch, its size, the memory it takes and how long the run would take."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text
from torch import nn

from teloi.batch.tree import Tree
from teloi.engine.config import TrainConfig
from teloi.engine.objective import Now, Objective
from teloi.engine.plan import Plan
from teloi.engine.progress import seconds
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import Base
from teloi.engine.step import Step
from teloi.models.roles import CachedReference, Models

SHOWN = 3
"""Trees that are printed."""


def preview(
    objective: Objective,
    models: Models,
    base: Base,
    examples: Sequence[Tree],
    plan: Plan,
    config: TrainConfig,
) -> None:
    """Print the first trees of the first step, then time its first micro-batch forward and backward; nothing is
    trained."""
    console = Console(highlight=False)
    micros = plan.step(0)
    trees = [examples[i] for i in micros[0]]
    if isinstance(models.reference, CachedReference):
        model_hash = fingerprint(base.model)
        trees, _ = with_reference_sums(trees, range(len(trees)), models.policy, config.micro_tokens, model_hash)
    console.print(
        "prompt dim, scored tokens [green]green[/green] (deeper: larger weight), unscored [yellow]yellow[/yellow]\n"
    )
    for number, tree in enumerate(trees[:SHOWN]):
        console.print(_rendered(tree, base, number))
    now = Now(0, plan.steps, seed=config.seed)
    device = next(models.policy.model.parameters()).device
    batch = objective.collate(trees, now, device)
    step = Step(models, objective).to(device).train()
    started = time.monotonic()
    loss, shares = step(batch, now, {name: max(count, 1) for name, count in batch.counts.items()})
    loss.backward()
    took = time.monotonic() - started
    step.zero_grad(set_to_none=True)
    rate = batch.size / took
    terms = ", ".join(f"{name} {float(value):.4g}" for name, value in shares.items())
    layout = batch.layout(models.policy.layout)
    padding = 1 - batch.size / layout.input_ids.numel() if models.policy.layout == "padded" else 0.0
    console.print(f"terms of this micro-batch at the start: {terms}")
    console.print(
        f"step 1: {len(plan.examples(0))} rows in {len(micros)} micro-batches; this one has {len(trees)} trees, "
        f"{batch.size:,} positions, {batch.counts['tokens']:,} scored tokens ({models.policy.layout}, "
        f"{padding:.0%} padding)"
    )
    peak = _peak()
    console.print(
        f"memory: {peak:.1f} GB so far, about {peak + _optimizer(models.policy.model):.1f} GB with the optimiser"
    )
    console.print(
        f"the run: {plan.steps:,} steps, {plan.tokens:,} tokens, {plan.epochs:.2g} epochs; at {rate:,.0f} tokens/s "
        f"about {seconds(plan.tokens / rate)}"
    )


def _rendered(tree: Tree, base: Base, number: int) -> Text:
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


def _peak() -> float:
    """Peak memory of this process in GB; ru_maxrss counts bytes on macOS and kilobytes elsewhere."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _optimizer(model: nn.Module) -> float:
    """GB that AdamW adds: two float32 moments, and a float32 master and gradient where the weights are bfloat16."""
    return sum(p.numel() * (8 if p.element_size() == 4 else 16) for p in model.parameters() if p.requires_grad) / 1e9
