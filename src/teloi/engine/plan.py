"""Which examples meet in which step: a pure function of lengths, seed and budget, so that resuming is
`plan.step(i)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from teloi.batch.tree import Kind
from teloi.engine.config import Budget


@dataclass(frozen=True)
class Plan:
    """A stream of examples, shuffled anew each epoch, cut into steps of `batch_size` and micro-batches of
    `micro_tokens`."""

    lengths: tuple[int, ...]
    """Positions of each example."""
    rows: int
    """Examples drawn in the whole run."""
    batch_size: int
    micro_tokens: int
    seed: int
    kind: Kind = "packed"
    whole: bool = False
    """One micro-batch a step, for losses that couple their batch."""

    @property
    def steps(self) -> int:
        """Optimiser steps of the run; the last may be smaller."""
        return -(-self.rows // self.batch_size)

    @property
    def epochs(self) -> float:
        return self.rows / len(self.lengths)

    @property
    def tokens(self) -> int:
        """Positions trained on in the whole run."""
        n = len(self.lengths)
        full, rest = divmod(self.rows, n)
        return full * sum(self.lengths) + sum(self.lengths[int(i)] for i in _order(n, self.seed, full)[:rest])

    def examples(self, step: int) -> list[int]:
        """Examples of a step, in the order of the stream."""
        first, last = step * self.batch_size, min((step + 1) * self.batch_size, self.rows)
        n = len(self.lengths)
        return [int(_order(n, self.seed, at // n)[at % n]) for at in range(first, last)]

    def step(self, step: int) -> list[list[int]]:
        """The micro-batches of a step: each a list of examples."""
        examples = self.examples(step)
        return [[examples[i] for i in micro] for micro in self.cut([self.lengths[i] for i in examples])]

    def cut(self, lengths: Sequence[int]) -> list[list[int]]:
        """Examples of these lengths, by their place, in micro-batches."""
        everything = list(range(len(lengths)))
        return [everything] if self.whole else pack(everything, lengths, self.micro_tokens, self.kind)


def make_plan(
    lengths: list[int],
    *,
    batch_size: int,
    micro_tokens: int,
    seed: int,
    epochs: float = 1.0,
    max_steps: int | None = None,
    budget: Budget | None = None,
    kind: Kind = "packed",
    whole: bool = False,
) -> Plan:
    """The plan of a run. `budget` overrides `epochs`; `max_steps` cuts either.

    A budget of tokens is never exceeded, unless by its first example: a run trains on something.
    """
    n = len(lengths)
    rows = max(1, round(epochs * n))
    if budget is not None:
        match budget.unit:
            case "rows":
                rows = budget.value
            case "steps":
                rows = budget.value * batch_size
            case "tokens":
                rows = _rows_within(lengths, seed, budget.value)
    if max_steps is not None:
        rows = min(rows, max_steps * batch_size)
    return Plan(tuple(lengths), rows, batch_size, micro_tokens, seed, kind, whole)


def pack(examples: list[int], lengths: Sequence[int], size: int, kind: Kind = "packed") -> list[list[int]]:
    """Examples into bins of at most `size` positions; an example that is larger stands alone.

    Packed rows: first fit, longest first. Padded ones: neighbours in length, a bin costing its rows times the longest.
    """
    ordered = sorted(examples, key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    room: list[int] = []
    for i in ordered:
        if kind == "packed":
            fits = next((b for b, free in enumerate(room) if lengths[i] <= free), None)
        else:
            fits = len(bins) - 1 if bins and lengths[bins[-1][0]] * (len(bins[-1]) + 1) <= size else None
        if fits is None:
            bins.append([])
            room.append(size)
            fits = len(bins) - 1
        bins[fits].append(i)
        room[fits] -= lengths[i]
    return bins


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _rows_within(lengths: list[int], seed: int, tokens: int) -> int:
    """Examples of the stream whose lengths add up to at most `tokens`."""
    sizes = np.asarray(lengths)
    full, rest = divmod(tokens, int(sizes.sum()))
    within = np.cumsum(sizes[_order(len(lengths), seed, full)]) <= rest
    return max(1, full * len(lengths) + int(within.sum()))
