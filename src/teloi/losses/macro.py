"""Macro actions: tokens of a response grouped into segments that share a value, a reward and an advantage.

A response of t tokens is cut at `starts`, [k] ascending from 0: segment j has the tokens from starts[j] up to
starts[j + 1]. The last token is always a segment of its own, so that a score there is averaged with nothing.

Source: Chai et al. 2025 (MA-RLHF), section 3. `keep_empty` repeats what the official code does where the last token
begins a segment anyway: it lists that start twice, and the empty segment enters the advantages with value and reward 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Weights = Literal["equal", "unit", "position"]
Tree = str | Sequence[Any]
"""A word, or the parts of a constituent."""


def fixed_starts(length: int, n: int, *, keep_empty: bool = False) -> list[int]:
    """Segments of n tokens."""
    return _closed(range(0, length, n), length, keep_empty)


def listed_starts(length: int, sizes: Sequence[int], *, keep_empty: bool = False) -> list[int]:
    """Segments of these sizes one after the other, then the rest as one (randomised n-grams: sizes drawn by shuffling
    a multiset)."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return _closed([start for start in starts if start < length], length, keep_empty)


def perplexity_starts(perplexities: Float[Tensor, " t"], *, offset: int = 0, keep_empty: bool = False) -> list[int]:
    """Segments in which the reference's perplexity does not rise. `offset` 0 begins one at the token before the rise,
    as the official code does; 1 at the token that rises, as the text says."""
    rises = (perplexities[1:] > perplexities[:-1]).nonzero().flatten() + offset
    return _closed([0, *rises.tolist()], len(perplexities), keep_empty)


def parsed_starts(tree: Tree, cutoff: int = 5, length: int | None = None) -> list[int]:
    """Segments by a constituency tree, a word being a token, in a response of `length` tokens: those of the tree and
    one, the end token, by default.

    Depth first: a constituent of several words, fewer than `cutoff`, is a segment; a single word belongs to the segment
    before it; larger constituents are entered."""
    starts: list[int] = []

    def words(node: Tree) -> int:
        return 1 if isinstance(node, str) else sum(map(words, node))

    def visit(node: Tree, at: int) -> None:
        size = words(node)
        if size == 1:
            return
        if size < cutoff or isinstance(node, str):
            starts.append(at)
            return
        for part in node:
            visit(part, at)
            at += words(part)

    visit(tree, 0)
    return _closed([0, *starts], words(tree) + 1 if length is None else length, False)


def aggregate(
    values: Float[Tensor, " t"], starts: Int[Tensor, " k"], weights: Weights = "equal", *, total: bool = False
) -> Float[Tensor, " k"]:
    """One number a segment: the weighted mean of its tokens' values, or with `total` their sum; 0 for an empty one.

    Weights: equal; "unit", the last token's only; "position", in proportion to 1 / (place in the segment, from 1).
    """
    lengths = torch.diff(starts, append=starts.new_tensor([len(values)]))
    owner = torch.repeat_interleave(torch.arange(len(starts), device=values.device), lengths)
    place = torch.arange(len(values), device=values.device) - starts[owner]
    if total or weights == "equal":
        share = torch.ones_like(values)
    elif weights == "unit":
        share = (place == lengths[owner] - 1).to(values)
    else:
        share = 1 / (place + 1).to(values)
    sums = values.new_zeros(len(starts)).index_add(0, owner, share * values)
    return sums if total else sums / values.new_zeros(len(starts)).index_add(0, owner, share).clamp(min=1e-30)


def spread(values: Float[Tensor, " k"], starts: Int[Tensor, " k"], length: int) -> Float[Tensor, " t"]:
    """The value of each segment at all of its tokens."""
    return torch.repeat_interleave(values, torch.diff(starts, append=starts.new_tensor([length])))


def _closed(starts: Sequence[int], length: int, keep_empty: bool) -> list[int]:
    """Ascending starts with the last token's."""
    found = sorted({start for start in starts if start < length})
    last = length - 1
    return found if last in found and not keep_empty else [*found, last]
