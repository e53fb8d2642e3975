"""An objective and its models as one module, so that whatever wraps modules (accelerate, DDP, FSDP) sees all that
reads them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from teloi.engine.objective import Now, Objective
from teloi.models.roles import Models

T = TypeVar("T")

OVER = " over"
"""Behind a metric's name: the denominator that it brings itself."""


def averages(totals: Mapping[str, float]) -> dict[str, float]:
    """The terms of a step from the sums of its shares: metrics with their own denominator are divided by it, and left
    out where it is 0, since there is nothing to average."""
    return {
        name: total / totals.get(name + OVER, 1.0)
        for name, total in totals.items()
        if not name.endswith(OVER) and totals.get(name + OVER, 1.0)
    }


class Step(nn.Module):
    """The module that accelerate prepares. Whatever reads the models is called through it, by its name or not:
    `step(work, ...)` is `work(...)` with the weights in place."""

    def __init__(self, models: Models, objective: Objective) -> None:
        super().__init__()
        self.models = models
        self.objective = objective
        self.policy = models.policy.model if models.policy is not None else None
        self.parts = models.parts
        self._no_split_modules = layers(self.policy) if self.policy is not None else []

    def forward(self, work: Callable[..., T], *inputs: Any) -> T:
        return work(*inputs)

    def shares(
        self, batch: Any, now: Now, counts: Mapping[str, float], idle: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the step's loss and of every logged term.

        `counts` are those of the whole step, so that the shares of all micro-batches add up to the loss of the step.
        `idle`: the batch only keeps this process in step with the others; what comes of it counts for nothing.
        """
        terms = self.objective.loss(self.models, batch, now)
        # Every process computes a shared term whole, so each is charged its part of it.
        own = math.inf if idle else 1
        times = {name: self.models.processes if term.shared else own for name, term in terms.items()}
        shares: dict[str, Tensor] = {}
        for name, term in terms.items():
            if isinstance(term.per, str):
                shares[name] = term.values.sum() / (max(counts[term.per], 1) * times[name])
            elif term.weight:
                raise TypeError(f"{name}: only a metric, a term of weight 0, may bring its own denominator")
            else:
                shares[name], shares[name + OVER] = term.values.sum() / times[name], term.per.sum() / times[name]
        loss = sum(term.weight * shares[name] for name, term in terms.items() if term.weight)
        if not isinstance(loss, Tensor):
            raise TypeError(f"{type(self.objective).__name__}.loss gave no term with a weight")
        logged = {name: share.detach() for name, share in shares.items()}
        weighted = [term.weight * logged[name] for name, term in terms.items() if term.weight]
        return loss, {"loss": torch.stack(weighted).sum(), **logged}


def layers(model: nn.Module) -> list[str]:
    """The classes of layers whose weights FSDP gathers one by one: those that transformers names (an attribute that
    accelerate asks for), without any that shares a weight with what stands outside of it, as tied embeddings do."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))

    def alone(name: str) -> bool:
        own = [layer for layer in model.modules() if type(layer).__name__ == name]
        inside = [Counter(id(p) for _, p in layer.named_parameters(remove_duplicate=False)) for layer in own]
        return bool(own) and all(uses[p] == count for layer in inside for p, count in layer.items())

    return [name for name in getattr(model, "_no_split_modules", None) or [] if alone(name)]
