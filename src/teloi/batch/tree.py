"""The example of every causal method, and its batch.

A `Tree` is a prompt and k branches: completions that all continue the prompt and do not see each other. Supervised
fine-tuning has one branch, a preference two, a ranking n. The prompt is encoded once for all of them.

A `TreeBatch` knows which tokens are scored (which log-probabilities are asked for) and lays the trees out for a model
in one of two ways: *packed*, one row without any padding in which attention follows the trees, or *padded*, one
right-padded row a branch, which is right for every causal model. Both give the same scored tokens in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from teloi.batch.structure import Span, TreeStructure
from teloi.losses.logps import segment_sum

Kind = Literal["packed", "padded"]


@dataclass(frozen=True)
class Branch:
    """One completion: `ids` int32 [n] and the weight of each token in the loss, float32 [n]; 0 means context only.

    `columns` holds one number a token, [n], by name (log-probabilities at sampling time, rewards, values).
    """

    ids: np.ndarray
    weights: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def scored(cls, ids: Sequence[int] | np.ndarray) -> Branch:
        """A branch in which every token has weight 1."""
        return cls(np.asarray(ids, np.int32), np.ones(len(ids), np.float32))


@dataclass(frozen=True)
class Tree:
    """A prompt, int32 [p], and its branches; `columns` holds one number or small array a tree, by name.

    The last token of the prompt predicts the first token of every branch; with an empty prompt that token has no
    log-probability and is not scored.
    """

    prompt: np.ndarray
    branches: tuple[Branch, ...]
    columns: dict[str, Any] = field(default_factory=dict)
    source: Any = None
    """The row it was made from, where a method reads it again: reward functions see the prompt's text and columns."""

    @property
    def size(self) -> int:
        """Positions the model computes for this tree when packed: the prompt once and every branch."""
        return len(self.prompt) + sum(len(branch.ids) for branch in self.branches)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything it holds, for hashing and for files."""
        found = {"prompt": self.prompt}
        for b, branch in enumerate(self.branches):
            found |= {f"branch.{b}": branch.ids, f"weights.{b}": branch.weights}
            found |= {f"branch.{b}.{name}": values for name, values in branch.columns.items()}
        return found | {f"column.{name}": np.asarray(value) for name, value in self.columns.items()}


@dataclass(frozen=True)
class Layout:
    """Trees laid out in rows for one model call: r rows of t positions, n scored tokens."""

    input_ids: Int[Tensor, "r t"]
    position_ids: Int[Tensor, "r t"]
    attention_mask: Int[Tensor, "r t"] | None
    structure: TreeStructure | None
    source: Int[Tensor, " n"]
    """Index into the r * t positions of the hidden state that predicts each scored token."""
    ends: Int[Tensor, " b"] | None = None
    """Index of the last position of each branch, that of its prompt where it is empty."""


class TreeBatch:
    """A micro-batch of trees. n: scored tokens, b: branches, tree by tree.

    `columns` are the trees' columns stacked, `tokens` the branches' columns at the scored tokens; `notes` is what a
    loss leaves for `after_step`.
    """

    def __init__(self, trees: Sequence[Tree], device: torch.device | str = "cpu") -> None:
        self.trees = tuple(trees)
        self.device = torch.device(device)
        self.notes: dict[str, Any] = {}
        branches = [branch for tree in self.trees for branch in tree.branches]
        prompts = [tree.prompt for tree in self.trees for _ in tree.branches]
        # A token is scored when it has weight and something before it.
        self._offsets = [
            np.flatnonzero(branch.weights[first:]) + first
            for branch, first in zip(branches, (len(prompt) == 0 for prompt in prompts), strict=True)
        ]
        scored = list(zip(branches, self._offsets, strict=True))
        self.target: Int[Tensor, " n"] = self._tensor([b.ids[o] for b, o in scored], torch.int64)
        self.weight: Float[Tensor, " n"] = self._tensor([b.weights[o] for b, o in scored], torch.float32)
        self.branch: Int[Tensor, " n"] = self._tensor(
            [np.full(len(o), i) for i, o in enumerate(self._offsets)], torch.int64
        )
        self.lengths: Int[Tensor, " b"] = torch.tensor([len(o) for o in self._offsets], device=self.device)
        names = set[str]().union(*(tree.columns for tree in self.trees))
        self.tokens: dict[str, Float[Tensor, " n"]] = {
            name: self._tensor([b.columns[name][o] for b, o in scored], torch.float32)
            for name in sorted(set[str]().union(*(branch.columns for branch in branches)))
        }
        self.columns: dict[str, Tensor] = {
            name: torch.as_tensor(np.stack([tree.columns[name] for tree in self.trees]), device=self.device)
            for name in sorted(names)
        }

    @property
    def counts(self) -> dict[str, int]:
        """What a `Term` may be averaged over: scored tokens, rows (branches) and trees of this micro-batch."""
        return {"tokens": len(self.target), "rows": len(self.lengths), "trees": len(self.trees)}

    @property
    def size(self) -> int:
        """Positions of the packed layout."""
        return sum(tree.size for tree in self.trees)

    def branch_sums(self, logps: Float[Tensor, " n"]) -> Float[Tensor, "k trees"]:
        """Weighted sum of the scored tokens' log-probabilities for each branch, one row for each of the k branches."""
        return self.by_slot(segment_sum(self.weight * logps, self.branch, len(self.lengths)))

    def branch_means(self, logps: Float[Tensor, " n"]) -> Float[Tensor, "k trees"]:
        """`branch_sums` over the number of scored tokens; a branch without any gives 0."""
        return self.branch_sums(logps) / self.branch_lengths.clamp(min=1)

    @property
    def branch_lengths(self) -> Int[Tensor, "k trees"]:
        """Scored tokens of each branch."""
        return self.by_slot(self.lengths)

    def by_slot(self, values: Tensor) -> Tensor:
        """From one value a branch [b] to [k, trees]. ValueError when trees differ in their number of branches."""
        arity = {len(tree.branches) for tree in self.trees}
        if len(arity) != 1:
            raise ValueError(f"trees of one batch have {sorted(arity)} branches; by_slot needs one number")
        return values.view(len(self.trees), arity.pop()).T

    def by_row(self, values: Float[Tensor, " n"]) -> Float[Tensor, "b t"]:
        """From one value a scored token to one row a branch, zeros behind its last token."""
        return torch.nn.utils.rnn.pad_sequence(values.split(self.lengths.tolist()), batch_first=True)

    def split(self, size: int) -> list[TreeBatch]:
        """Consecutive parts of at most `size` positions each (a single larger tree stays whole)."""
        parts: list[list[Tree]] = []
        room = 0
        for tree in self.trees:
            if not parts or tree.size > room:
                parts.append([])
                room = size
            parts[-1].append(tree)
            room -= tree.size
        return [TreeBatch(part, self.device) for part in parts]

    def layout(self, kind: Kind) -> Layout:
        """Rows for a model that takes trees ("packed"), or one row a branch for any other ("padded")."""
        return self._packed if kind == "packed" else self._padded

    @cached_property
    def _packed(self) -> Layout:
        ids, positions, source, spans, ends = [], [], [], [], []
        start, offsets = 0, iter(self._offsets)
        for tree in self.trees:
            prompt = len(tree.prompt)
            lengths = tuple(len(branch.ids) for branch in tree.branches)
            spans.append(Span(start, prompt, lengths))
            ids.append(tree.prompt)
            positions.append(np.arange(prompt))
            begin = start + prompt
            for branch, length in zip(tree.branches, lengths, strict=True):
                ids.append(branch.ids)
                positions.append(np.arange(prompt, prompt + length))
                scored = next(offsets)
                # The first token of a branch is predicted by the end of the prompt, the others by their left neighbour.
                source.append(np.where(scored == 0, start + prompt - 1, begin + scored - 1))
                ends.append((begin if length else start + prompt) + length - 1)
                begin += length
            start = begin
        return Layout(
            input_ids=self._tensor(ids, torch.int64)[None],
            position_ids=self._tensor(positions, torch.int64)[None],
            attention_mask=None,
            structure=TreeStructure(tuple(spans), self.device),
            source=self._tensor(source, torch.int64),
            ends=torch.tensor(ends, dtype=torch.int64, device=self.device),
        )

    @cached_property
    def _padded(self) -> Layout:
        rows = [np.concatenate([tree.prompt, branch.ids]) for tree in self.trees for branch in tree.branches]
        prompts = [len(tree.prompt) for tree in self.trees for _ in tree.branches]
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        source = [
            i * width + prompt + scored - 1
            for i, (prompt, scored) in enumerate(zip(prompts, self._offsets, strict=True))
        ]
        return Layout(
            input_ids=torch.as_tensor(ids, device=self.device),
            position_ids=torch.arange(width, device=self.device).expand(len(rows), width),
            attention_mask=torch.as_tensor(mask, device=self.device),
            structure=None,
            source=self._tensor(source, torch.int64),
            ends=torch.tensor([i * width + len(row) - 1 for i, row in enumerate(rows)], device=self.device),
        )

    def _tensor(self, parts: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=dtype, device=self.device)
