"""Where the trees of a packed row lie, and which positions may see which."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool
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
        self._causal: dict[int, Bool[Tensor, "n n"]] = {}
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

    def causal(self, index: int) -> Bool[Tensor, "n n"]:
        """Plain causal attention of tree `index` as a mask."""
        size = self.spans[index].size
        if size not in self._causal:
            self._causal[size] = torch.ones(size, size, dtype=torch.bool, device=self.device).tril()
        return self._causal[size]

    def _make_mask(self, index: int, window: int | None) -> Bool[Tensor, "n n"] | None:
        span = self.spans[index]
        longest = span.prompt + max(span.branches, default=0)
        if window is not None and window >= longest:
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
