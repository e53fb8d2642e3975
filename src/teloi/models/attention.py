"""Attention that follows the trees of a packed row, for any transformers decoder that takes an attention function.

The function is registered with transformers under `TREE`; while a model uses it, no attention mask is ever built: the
backbone call carries a `TreeStructure` (keyword `tree`) down to every layer, which computes one small product for each
tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from teloi.batch.structure import TreeStructure

TREE = "teloi_tree"

PLAIN = 1024
"""Positions of a tree up to which its score matrix may be kept for the backward pass."""

# Keyword arguments that change the arithmetic of attention and that this function does not know: it must refuse them.
UNKNOWN = ("softcap", "s_aux", "position_bias")


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: TreeStructure,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention within each tree. query [1 h t d], key and value [1 g t d] (g divides h) -> [1 t h
    d].

    NotImplementedError when the layer asks for arithmetic beyond scaling, dropout and a sliding window.
    """
    if unknown := [name for name in UNKNOWN if kwargs.get(name) is not None]:
        raise NotImplementedError(f"tree attention does not know {', '.join(unknown)}")
    if groups := query.shape[1] // key.shape[1] - 1:
        key = key.repeat_interleave(groups + 1, dim=1)
        value = value.repeat_interleave(groups + 1, dim=1)
    # split, not slices: its backward concatenates once instead of adding a row-sized zero tensor for every tree.
    parts = zip(*(states.split(tree.sizes, dim=2) for states in (query, key, value)), strict=True)
    outputs = []
    for index, (q, k, v) in enumerate(parts):
        mask = tree.mask(index, sliding_window)
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= PLAIN and not dropout:
            outputs.append(_plain(q, k, v, tree.causal(index) if mask is None else mask, scaling))
        else:
            outputs.append(
                F.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling
                )
            )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


AttentionInterface.register(TREE, tree_attention)
AttentionMaskInterface.register(TREE, _no_mask)


def _plain(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scaling: float | None) -> Tensor:
    """Attention by the definition. The CPU's fused kernel is twice as slow in the backward pass of bfloat16."""
    scores = (q * (scaling or q.shape[-1] ** -0.5)) @ k.transpose(-1, -2)
    return torch.softmax(scores.masked_fill(~visible, float("-inf")), -1) @ v


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """A model that trains on trees with another attention implementation for a while, e.g. "sdpa" to generate from it.

    A model that is padded keeps its own: it may know no other.
    """
    if model.config._attn_implementation != TREE:
        yield
        return
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(TREE)
