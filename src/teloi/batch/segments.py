"""Rows of segments for a decoder that predicts the next token with either attention: causal, or both ways.

One row is a `Sequence` with `input_ids` and `labels` of the same length: the hidden state at position t predicts
`labels[t]`, the token that belongs at t + 1, or nothing where it is -100. Columns: `lengths`, int64 [k], says where its
segments part, and `bidirectional`, a flag, how they are read. No position sees another segment."""

from __future__ import annotations

from collections.abc import Sequence as Several
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from teloi.batch.sequence import IGNORED, Sequence
from teloi.batch.structure import SegmentStructure
from teloi.batch.tree import Kind, Layout


class SegmentBatch:
    """A micro-batch of such rows, laid end to end. n: scored labels; the positions of each segment begin at 0.

    What a `LanguageModel` reads of a batch is here as in `TreeBatch`: `layout`, `target`, `size`.
    """

    def __init__(self, rows: Several[Sequence], device: torch.device | str = "cpu") -> None:
        self.rows = tuple(rows)
        self.device = torch.device(device)
        self.notes: dict[str, Any] = {}
        labels = np.concatenate([row.ids["labels"] for row in self.rows])
        both = [bool(row.columns["bidirectional"]) for row in self.rows]
        self.scored = np.flatnonzero(labels != IGNORED)
        sizes = [len(row.ids["labels"]) for row in self.rows]
        self.target: Int[Tensor, " n"] = torch.as_tensor(labels[self.scored], dtype=torch.int64, device=self.device)
        self.bidirectional: Bool[Tensor, " n"] = torch.as_tensor(
            np.repeat(both, sizes)[self.scored], device=self.device
        )
        """Whether each scored label is of a row that is read in both directions."""
        self.row: Int[Tensor, " n"] = torch.as_tensor(
            np.repeat(np.arange(len(sizes)), sizes)[self.scored], device=self.device
        )
        """The row of each scored label."""

    @property
    def counts(self) -> dict[str, int]:
        """What a `Term` may be averaged over: rows, scored labels, and those of rows of either kind."""
        both = int(self.bidirectional.sum())
        tokens = len(self.target)
        return {"tokens": tokens, "rows": len(self.rows), "bidirectional": both, "causal": tokens - both}

    @property
    def size(self) -> int:
        """Positions of all rows."""
        return sum(row.size for row in self.rows)

    def layout(self, kind: Kind) -> Layout:
        """All rows in one. ValueError for "padded": a padding mask cannot keep segments apart."""
        if kind != "packed":
            raise ValueError("rows of segments need a model that takes packed rows")
        return self._packed

    @cached_property
    def _packed(self) -> Layout:
        lengths = [int(length) for row in self.rows for length in row.columns["lengths"]]
        both = [bool(row.columns["bidirectional"]) for row in self.rows for _ in row.columns["lengths"]]
        ids = np.concatenate([row.ids["input_ids"] for row in self.rows])
        positions = np.concatenate([np.arange(length) for length in lengths])
        return Layout(
            input_ids=torch.as_tensor(ids, dtype=torch.int64, device=self.device)[None],
            position_ids=torch.as_tensor(positions, dtype=torch.int64, device=self.device)[None],
            attention_mask=None,
            structure=SegmentStructure(lengths, both, self.device),
            source=torch.as_tensor(self.scored, device=self.device),
        )
