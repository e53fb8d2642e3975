"""Which examples meet in which step: a pure function of lengths, seed and budget, so that resuming is
`plan.step(i)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teloi.batch.tree import Kind
from teloi.engine.config import Budget
from teloi.engine.objective import Quotas


@dataclass(frozen=True, eq=False)
class Plan:
    """A stream of examples, shuffled anew each epoch, cut into steps of `batch_size` and micro-batches of
    `micro_tokens`.

    An epoch has as many places as there are examples. With `quotas` each stratum has its share of them, evenly spread,
    and is shuffled anew whenever it is used up."""

    lengths: NDArray[np.int64]
    """Positions of each example."""
    rows: int
    """Examples drawn in the whole run."""
    batch_size: int
    micro_tokens: int
    seed: int
    kind: Kind = "packed"
    whole: bool = False
    """One micro-batch a step, for losses that couple their batch."""
    quotas: Quotas | None = None

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
        full, rest = divmod(self.rows, len(self.lengths))
        last = int(self.lengths[self.epoch(full)[:rest]].sum())
        if self.quotas is None:
            return full * int(self.lengths.sum()) + last
        return sum(int(self.lengths[self.epoch(epoch)].sum()) for epoch in range(full)) + last

    @property
    def used(self) -> NDArray[np.int64]:
        """The examples that the run sees, each once, in ascending order."""
        full, rest = divmod(self.rows, len(self.lengths))
        if self.quotas is None and full:
            return np.arange(len(self.lengths))
        return np.unique(np.concatenate([*(self.epoch(epoch) for epoch in range(full)), self.epoch(full)[:rest]]))

    def examples(self, step: int) -> list[int]:
        """Examples of a step, in the order of the stream."""
        first, last = step * self.batch_size, min((step + 1) * self.batch_size, self.rows)
        n = len(self.lengths)
        return [int(self.epoch(at // n)[at % n]) for at in range(first, last)]

    @cached_property
    def epoch(self) -> Callable[[int], np.ndarray]:
        """The examples of a pass in their order."""
        if self.quotas is None:
            return partial(_order, len(self.lengths), self.seed)
        return lru_cache(4)(partial(_by_quotas, self.quotas, self.seed))

    def step(self, step: int) -> list[list[int]]:
        """The micro-batches of a step: each a list of examples."""
        examples = self.examples(step)
        return [[examples[i] for i in micro] for micro in self.cut(self.lengths[examples].tolist())]

    def cut(self, lengths: Sequence[int]) -> list[list[int]]:
        """Examples of these lengths, by their place, in micro-batches."""
        everything = list(range(len(lengths)))
        return [everything] if self.whole else pack(everything, lengths, self.micro_tokens, self.kind)


def make_plan(
    lengths: ArrayLike,
    *,
    batch_size: int,
    micro_tokens: int,
    seed: int,
    epochs: float = 1.0,
    max_steps: int | None = None,
    budget: Budget | None = None,
    kind: Kind = "packed",
    whole: bool = False,
    quotas: Quotas | None = None,
) -> Plan:
    """The plan of a run. `budget` overrides `epochs`; `max_steps` cuts either.

    A budget of tokens is never exceeded, unless by its first example: a run trains on something.
    """
    sizes = np.asarray(lengths, np.int64)
    rows = max(1, round(epochs * len(sizes)))
    plan = Plan(sizes, rows, batch_size, micro_tokens, seed, kind, whole, quotas)
    if budget is not None:
        match budget.unit:
            case "rows":
                rows = budget.value
            case "steps":
                rows = budget.value * batch_size
            case "tokens":
                rows = _rows_within(plan, budget.value)
    if max_steps is not None:
        rows = min(rows, max_steps * batch_size)
    return replace(plan, rows=rows)


def pack(examples: list[int], lengths: Sequence[int], size: int, kind: Kind = "packed") -> list[list[int]]:
    """Examples into bins of at most `size` positions; an example that is larger stands alone.

    Packed rows: first fit, longest first. Padded ones: neighbours in length, a bin costing its rows times the longest.
    """
    ordered = sorted(examples, key=lambda i: (-lengths[i], i))
    bins: list[list[int]] = []
    room: list[int] = []
    first, length = 0, -1
    for i in ordered:
        if kind == "packed":
            # No bin before the one that took the last example of this length has room for another.
            first, length = (first if lengths[i] == length else 0), lengths[i]
            fits = first = next((b for b in range(first, len(room)) if length <= room[b]), len(room))
        else:
            fits = len(bins) - (bool(bins) and lengths[bins[-1][0]] * (len(bins[-1]) + 1) <= size)
        if fits == len(bins):
            bins.append([])
            room.append(size)
        bins[fits].append(i)
        room[fits] -= lengths[i]
    return bins


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def _by_quotas(quotas: Quotas, seed: int, epoch: int) -> np.ndarray:
    strata = np.asarray(quotas.strata)
    shares = {stratum: share for stratum, share in quotas.shares.items() if share > 0 and (strata == stratum).any()}
    total = sum(shares.values())
    # The k-th example of a stratum stands where k + 1/2 of its examples should have come: every stretch has its share.
    n = len(strata)
    at = {s: (np.arange(n) + 0.5) * total / share for s, share in shares.items()}
    pattern = np.concatenate([np.full(n, s) for s in at])[np.argsort(np.concatenate(list(at.values())), kind="stable")]
    order = np.empty(n, np.int64)
    for stratum in shares:
        members, places = np.flatnonzero(strata == stratum), np.flatnonzero(pattern[:n] == stratum)
        drawn = epoch * len(places) + np.arange(len(places))
        passes = {p: np.random.default_rng([seed, int(p), stratum]) for p in np.unique(drawn // len(members))}
        shuffled = {p: rng.permutation(members) for p, rng in passes.items()}
        order[places] = [shuffled[d // len(members)][d % len(members)] for d in drawn]
    return order


def _rows_within(plan: Plan, tokens: int) -> int:
    """Examples of the plan's stream whose lengths add up to at most `tokens`."""
    sizes = plan.lengths
    full, rest = divmod(tokens, int(sizes.sum())) if plan.quotas is None else (0, tokens)
    while (used := np.cumsum(sizes[plan.epoch(full)]))[-1] <= rest:
        full, rest = full + 1, rest - int(used[-1])
    return max(1, full * len(sizes) + int((used <= rest).sum()))
