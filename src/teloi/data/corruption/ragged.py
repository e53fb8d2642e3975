"""Sequences of unequal length end to end, so that NumPy works on all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ragged:
    """b sequences: their `values` one after the other [total] and their `lengths` [b], which sum to total."""

    values: Array
    lengths: Ints

    @classmethod
    def of(cls, rows: Sequence[ArrayLike]) -> Ragged:
        """From one array a sequence."""
        arrays = [np.asarray(row) for row in rows]
        return cls(np.concatenate(arrays), np.array([len(array) for array in arrays], np.int64))

    @classmethod
    def cut(cls, values: Array, length: int) -> Ragged:
        """A stream in consecutive segments of `length`; the last one is what is left over."""
        full, rest = divmod(len(values), length)
        return cls(values, np.array([length] * full + [rest] * (rest > 0), np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Ints:
        """Where each sequence begins in `values` [b]."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def owners(self) -> Ints:
        """The sequence that each value belongs to [total]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def rows(self) -> list[Array]:
        """One array a sequence."""
        return np.split(self.values, self.starts[1:])

    def select(self, chosen: Bools) -> Ragged:
        """The values where `chosen` [total]; a sequence may become empty."""
        return Ragged(self.values[chosen], np.bincount(self.owners[chosen], minlength=len(self)))

    def append(self, ids: int | Array) -> Ragged:
        """Each sequence with one more value at its end, the same for all or one for each [b]."""
        return Ragged(np.insert(self.values, self.starts + self.lengths, ids), self.lengths + 1)

    def prepend(self, ids: int | Array) -> Ragged:
        """Each sequence with one more value before it: the mode token of a mixture of denoisers."""
        return Ragged(np.insert(self.values, self.starts, ids), self.lengths + 1)
