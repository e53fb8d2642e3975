"""The example of masked, encoder and sequence-to-sequence models: one or several named token sequences, padded in a
batch.

An encoder reads `input_ids` (and `token_type_ids`, which text of a pair each token is of); a masked model has `labels`
of the same length over them (and `originals`, where inputs were corrupted and the loss asks what they were); a
sequence-to-sequence model has `targets` of their own length, which its decoder reads shifted (and `noise` over its
inputs, where the encoder is to say which kind each token is of). A pair for contrastive training is two sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from teloi.batch.identity import identity

IGNORED = -100
"""A label that is not scored."""

SCORED = ("labels", "targets")
"""Sequences that are scored: padding in them is `IGNORED`."""

OVER_INPUTS = ("labels", "originals", "noise", "token_type_ids")
"""Sequences that lie over `input_ids`, token by token, so that they cost no computation of their own."""


@dataclass(frozen=True)
class Sequence:
    """Token sequences by name, int32 [n] each, and columns: one number or small array an example."""

    ids: Mapping[str, np.ndarray]
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Tokens of all its sequences but those that lie over its inputs."""
        return sum(len(ids) for name, ids in self.ids.items() if name not in OVER_INPUTS)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything it holds, for hashing and for files."""
        return {**self.ids, **{f"column.{name}": np.asarray(value) for name, value in self.columns.items()}}


@dataclass(frozen=True)
class Labelled(Sequence):
    """A text, or a pair, with its class: `name` is one of `classes`, column `label` its number among them."""

    name: str = ""
    classes: tuple[str, ...] = ()


def like_lengths(lengths: ArrayLike, call: int = 256) -> list[NDArray[np.int64]]:
    """The numbers of some rows in groups of like length, shortest first: a model that reads each group on its own
    computes few padded positions.

    The cheapest way to part the rows in the order of their lengths, where a group costs its padded positions and, as
    reading it takes a call, `call` positions more.
    """
    sizes = np.asarray(lengths)
    widths, counts = np.unique(sizes, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    costs, begins = np.zeros(1), []
    for end, width in enumerate(widths, start=1):
        found = costs + (before[end] - before[:end]) * width + call
        begins.append(int(found.argmin()))
        costs = np.append(costs, found.min())
    cuts, end = [], len(widths)
    while end:
        end = begins[end - 1]
        cuts.append(before[end])
    return np.split(np.argsort(sizes, kind="stable"), cuts[-2::-1])


def neighbours(sizes: Several[int], positions: int) -> Iterator[list[int]]:
    """The numbers of some rows in batches of neighbours in size, largest first, of at most so many padded positions (a
    single larger row stands alone)."""
    part: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if part and sizes[part[0]] * (len(part) + 1) > positions:
            yield part
            part = []
        part.append(i)
    if part:
        yield part


class SequenceBatch:
    """Sequences padded on the right, by name: `ids[name]` int64 [b t] and `mask[name]` int64 [b t], 1 on tokens.

    Labels and targets are padded with -100, so that padding is never scored. `notes` is what a loss leaves for
    `after_step`.
    """

    def __init__(self, sequences: Several[Sequence], pad: int = 0, device: torch.device | str = "cpu") -> None:
        self.sequences = tuple(sequences)
        self.pad = pad
        self.device = torch.device(device)
        self.notes: dict[str, Any] = {}
        self.ids: dict[str, Int[Tensor, "b t"]] = {}
        self.mask: dict[str, Int[Tensor, "b t"]] = {}
        for name in self.sequences[0].ids:
            rows = [sequence.ids[name] for sequence in self.sequences]
            width = max(map(len, rows))
            ids = np.full((len(rows), width), IGNORED if name in SCORED else pad, np.int64)
            mask = np.zeros((len(rows), width), np.int64)
            for i, row in enumerate(rows):
                ids[i, : len(row)] = row
                mask[i, : len(row)] = 1
            self.ids[name] = torch.as_tensor(ids, device=self.device)
            self.mask[name] = torch.as_tensor(mask, device=self.device)
        names = set[str]().union(*(sequence.columns for sequence in self.sequences))
        self.columns: dict[str, Tensor] = {
            name: torch.as_tensor(np.stack([s.columns[name] for s in self.sequences]), device=self.device)
            for name in sorted(names)
        }

    @property
    def counts(self) -> dict[str, int]:
        """What a `Term` may be averaged over: scored tokens (labels or targets other than -100), rows, and positions
        (all tokens that are read)."""
        scored = sum(int((self.ids[name] != IGNORED).sum()) for name in SCORED if name in self.ids)
        return {"tokens": scored, "rows": len(self.sequences), "positions": self.size}

    def rows_of(self, name: str) -> Int[Tensor, " n"]:
        """The row of each scored label or target of that name."""
        return (self.ids[name] != IGNORED).nonzero()[:, 0]

    def identities(self, name: str) -> Int[Tensor, " b"]:
        """A number for each row that stands for its sequence of that name: equal ones have the same."""
        numbers = [identity(sequence.ids[name].tobytes()) for sequence in self.sequences]
        return torch.as_tensor(np.asarray(numbers), device=self.device)

    @property
    def size(self) -> int:
        """Tokens without padding."""
        return sum(sequence.size for sequence in self.sequences)

    def split(self, size: int) -> list[SequenceBatch]:
        """Consecutive parts of at most `size` tokens each (a single larger example stays whole)."""
        parts: list[list[Sequence]] = []
        room = 0
        for sequence in self.sequences:
            if not parts or sequence.size > room:
                parts.append([])
                room = size
            parts[-1].append(sequence)
            room -= sequence.size
        return [SequenceBatch(part, self.pad, self.device) for part in parts]
