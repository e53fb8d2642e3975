"""Where the trees of a packed row lie, and which positions may see which."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor


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
        self._causal: dict[tuple[int, int], Bool[Tensor, "n m"]] = {}
        self._biases: dict[tuple[int, int, torch.dtype], Float[Tensor, "rn m"]] = {}
        self._masks: dict[tuple[int, int | None], Bool[Tensor, "n n"] | None] = {}

    @cached_property
    def sizes(self) -> list[int]:
        return [span.size for span in self.spans]

    def mask(self, index: int, window: int | None) -> Bool[Tensor, "n n"] | None:
        """What the positions of tree `index` see, query by key; None where that is plain causal attention.

        `window`: a position sees only the last `window` positions, itself included, counted along its own sequence.
        """
        if (index, window) not in self._masks:
            self._masks[index, window] = self._make_mask(index, window)
        return self._masks[index, window]

    def apart(self, index: int, window: int | None) -> tuple[int, ...] | None:
        """Lengths of the prompt and of the branches of tree `index`, where each may attend on its own: the prompt to
        itself, a branch to the prompt and itself. None where there are no several branches, or a window cuts in."""
        span = self.spans[index]
        if len(span.branches) <= 1 or self._cuts(span, window):
            return None
        return (span.prompt, *span.branches)

    def causal(self, queries: int, keys: int) -> Bool[Tensor, "n m"]:
        """Causal attention of positions that are the last of so many, as a mask."""
        if (queries, keys) not in self._causal:
            everything = torch.ones(queries, keys, dtype=torch.bool, device=self.device)
            self._causal[queries, keys] = everything.tril(keys - queries)
        return self._causal[queries, keys]

    def bias(self, mask: Bool[Tensor, "n m"], heads: int, dtype: torch.dtype) -> Float[Tensor, "rn m"]:
        """One of its masks as what is added to scores, 0 or minus infinity, for so many heads one below the other."""
        key = (id(mask), heads, dtype)
        if key not in self._biases:
            bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
            self._biases[key] = bias.repeat(heads, 1)
        return self._biases[key]

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
        owner = torch.zeros(span.size, dtype=torch.int64)
        position = torch.arange(span.size)
        begin = span.prompt
        for number, length in enumerate(span.branches, start=1):
            owner[begin : begin + length] = number
            position[begin : begin + length] = torch.arange(span.prompt, span.prompt + length)
            begin += length
        same = (owner[:, None] == owner[None]) | (owner[None] == 0)
        distance = position[:, None] - position[None]
        visible = same & (distance >= 0)
        if window is not None:
            visible &= distance < window
        return visible.to(self.device)


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
        position = torch.arange(self.spans[index].size, device=self.device)
        distance = (position[:, None] - position[None]).abs()
        return distance < (len(position) if window is None else window)
