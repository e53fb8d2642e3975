"""Where the trees of a packed row lie, and which positions may see which."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """One tree of a packed row: where it starts, the length of its prompt and of its branches."""

    start: int
    prompt: int
    branches: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.prompt + sum(self.branches)


class TreeStructure:
    """The trees of one packed row. A position sees its own branch and the prompt, up to itself; never a sibling
    branch."""

    def __init__(self, spans: tuple[Span, ...], device: torch.device) -> None:
        self.spans = spans
        self.device = device
        self._kept: dict[Hashable, Any] = {}

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make()` gave the first time that this key was asked for: every layer of a model asks anew."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    @cached_property
    def sizes(self) -> list[int]:
        return [span.size for span in self.spans]

    def mask(self, index: int, window: int | None) -> Bool[Tensor, "n n"] | None:
        """What the positions of tree `index` see, query by key; None where that is plain causal attention.

        `window`: a position sees only the last `window` positions, itself included, counted along its own sequence.
        """
        return self.kept(("mask", index, window), lambda: self._make_mask(index, window))

    def apart(self, index: int, window: int | None) -> tuple[int, ...] | None:
        """Lengths of the prompt and of the branches of tree `index`, where each may attend on its own: the prompt to
        itself, a branch to the prompt and itself. None where there are no several branches, or a window cuts in."""
        span = self.spans[index]
        if len(span.branches) <= 1 or self._cuts(span, window):
            return None
        return (span.prompt, *span.branches)

    def causal(self, queries: int, keys: int) -> Bool[Tensor, "n m"]:
        """Causal attention of positions that are the last of so many, as a mask."""
        everything = functools.partial(torch.ones, queries, keys, dtype=torch.bool, device=self.device)
        return self.kept(("causal", queries, keys), lambda: everything().tril(keys - queries))

    def bias(self, mask: Bool[Tensor, "n m"], heads: int, dtype: torch.dtype) -> Float[Tensor, "rn m"]:
        """One of its masks as what is added to scores, 0 or minus infinity, for so many heads one below the other."""
        zeros = functools.partial(torch.zeros, mask.shape, dtype=dtype, device=mask.device)
        return self.kept(
            ("bias", id(mask), heads, dtype), lambda: zeros().masked_fill_(~mask, float("-inf")).repeat(heads, 1)
        )

    @staticmethod
    def _cuts(span: Span, window: int | None) -> bool:
        """Whether some position of the tree does not see as far back as its sequence begins."""
        return window is not None and window < span.prompt + max(span.branches, default=0)

    def _make_mask(self, index: int, window: int | None) -> Bool[Tensor, "n n"] | None:
        span = self.spans[index]
        if not self._cuts(span, window):
            window = None
        if len(span.branches) <= 1 and window is None:
            return None
        return self._square(span, window)

    def _square(self, span: Span, window: int | None) -> Bool[Tensor, "n n"]:
        at = torch.arange(span.start, span.start + span.size, device=self.device)
        return self.sees(window)(at[:, None], at[None])

    def sees(self, window: int | None) -> Callable[[Tensor, Tensor], Tensor]:
        """Whether positions of the row see others: a function of the indices of query and key, which broadcast.

        `window` as in `mask`."""
        tree, branch, place = self._labels

        def visible(query: Tensor, key: Tensor) -> Tensor:
            distance = place[query] - place[key]
            own = (branch[query] == branch[key]) | (branch[key] == 0)
            found: Tensor = (tree[query] == tree[key]) & own & (distance >= 0)
            return found if window is None else found & (distance < window)

        return visible

    @cached_property
    def _labels(self) -> Int[Tensor, "3 t"]:
        """Of every position of the row: its tree, its branch (0: the prompt) and its place in its own sequence."""
        parts = [
            (number, branch, place)
            for number, span in enumerate(self.spans)
            for branch, (first, length) in enumerate([(0, span.prompt), *((span.prompt, n) for n in span.branches)])
            for place in range(first, first + length)
        ]
        return torch.tensor(parts, device=self.device).view(-1, 3).T.contiguous()


class SegmentStructure(TreeStructure):
    """Segments of one packed row, some of them read in both directions: there every position sees the whole segment,
    but nothing of another one."""

    def __init__(self, lengths: Sequence[int], bidirectional: Sequence[bool], device: torch.device) -> None:
        starts = itertools.accumulate(lengths, initial=0)
        super().__init__(tuple(Span(start, length, ()) for start, length in zip(starts, lengths, strict=False)), device)
        self.bidirectional = tuple(bidirectional)

    def _make_mask(self, index: int, window: int | None) -> Bool[Tensor, "n n"] | None:
        if not self.bidirectional[index]:
            return super()._make_mask(index, window)
        return self._square(self.spans[index], window)

    def sees(self, window: int | None) -> Callable[[Tensor, Tensor], Tensor]:
        tree, _, place = self._labels
        both = self._both

        def visible(query: Tensor, key: Tensor) -> Tensor:
            distance = place[query] - place[key]
            found: Tensor = (tree[query] == tree[key]) & (both[query] | (distance >= 0))
            return found if window is None else found & (distance.abs() < window)

        return visible

    @cached_property
    def _both(self) -> Bool[Tensor, " t"]:
        """Which positions of the row are read in both directions."""
        return torch.tensor(self.bidirectional, device=self.device)[self._labels[0]]
