"""Attention within trees as one kernel for a whole packed row: FlexAttention, for GPUs.

The CPU's version knows no backward pass, and there one product for each tree is faster (`models.attention`)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils._triton import has_triton

from teloi.batch.structure import TreeStructure

NARROWEST = 16
"""Width of a head from which the kernel's matrix products are defined."""


def flex(
    query: Tensor, key: Tensor, value: Tensor, tree: TreeStructure, scaling: float | None, window: int | None
) -> Tensor:
    """Scaled dot-product attention within each tree. query [1 h t d], key and value [1 g t d] (g divides h) -> [1 h t
    d]; blocks of positions that see nothing of each other are not computed."""
    attend: Any = _compiled() if query.device.type == "cuda" else flex_attention
    found: Tensor = attend(
        query,
        key,
        value,
        block_mask=blocks(tree, window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        # Not the kernel for decoding, which short rows would get: it cannot be had for every shape.
        kernel_options={"BACKEND": "TRITON"},
    )
    return found


def blocks(tree: TreeStructure, window: int | None) -> BlockMask:
    """The row's mask by blocks; every layer of a model asks for the same one or two."""
    return tree.kept(("blocks", window), lambda: _blocks(tree, window))


def flexible(width: int) -> bool:
    """Whether FlexAttention can be compiled here for heads so wide; without its kernel it would hold every score of a
    row."""
    return width >= NARROWEST and bool(has_triton())


def _blocks(tree: TreeStructure, window: int | None) -> BlockMask:
    sees, size = tree.sees(window), sum(tree.sizes)

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(query, key)

    return create_block_mask(visible, None, None, size, size, device=tree.device)


@functools.cache
def _compiled() -> Callable[..., Any]:
    # Rows differ in length: without `dynamic` each length would be compiled anew.
    return torch.compile(flex_attention, dynamic=True)
