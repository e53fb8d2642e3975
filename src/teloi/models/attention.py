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
from teloi.models.flex import flex, flexible

TREE = "teloi_tree"

PLAIN = 1024
"""Positions up to which a score matrix may be kept for the backward pass."""

BLOCK = 128
"""Queries of a score matrix: what lies behind the last of them is not computed."""

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
    if query.device.type == "cuda" and not dropout and flexible(min(query.shape[3], value.shape[3])):
        return flex(query, key, value, tree, scaling, sliding_window).transpose(1, 2), None
    on_cpu = query.device.type == "cpu"
    # split, not slices: its backward concatenates once instead of adding a row-sized zero tensor for every tree.
    parts = zip(*(states.split(tree.sizes, dim=2) for states in (query, key, value)), strict=True)
    outputs = []
    for index, (q, k, v) in enumerate(parts):
        # On the CPU what siblings would not see of each other is not computed; a GPU rather has one large product.
        if on_cpu and (lengths := tree.apart(index, sliding_window)):
            (q0, *qs), (k0, *ks), (v0, *vs) = (states.split(list(lengths), dim=2) for states in (q, k, v))
            outputs.append(_attend(q0, k0, v0, None, tree, scaling, dropout))
            for q1, k1, v1 in zip(qs, ks, vs, strict=True):
                seen = torch.cat([k0, k1], dim=2), torch.cat([v0, v1], dim=2)
                outputs.append(_attend(q1, *seen, None, tree, scaling, dropout))
        else:
            outputs.append(_attend(q, k, v, tree.mask(index, sliding_window), tree, scaling, dropout))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


AttentionInterface.register(TREE, tree_attention)
AttentionMaskInterface.register(TREE, _no_mask)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor | None,
    tree: TreeStructure,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Attention of queries [1 h n d], the last n of the m positions of k and v [1 g m d], to what is `visible` [n m],
    or to all up to themselves where that is None. Returns [1 h n d]."""
    n, m = q.shape[2], k.shape[2]
    if n == 0:
        return q[..., : v.shape[3]]
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and m <= PLAIN and not dropout:
        scaled = q * (scaling or q.shape[3] ** -0.5)
        if visible is not None:
            return _plain(scaled, k, v, visible, tree)
        ends = [*range(m - n + BLOCK, m, BLOCK), m]
        blocks = zip(scaled.split(BLOCK, dim=2), ends, strict=True)
        return torch.cat(
            [_plain(rows, k[:, :, :end], v[:, :, :end], tree.causal(rows.shape[2], end), tree) for rows, end in blocks],
            dim=2,
        )
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (states.repeat_interleave(groups, dim=1) for states in (k, v))
    if visible is None and n < m:
        visible = tree.causal(n, m)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, dropout_p=dropout, is_causal=visible is None, scale=scaling
    )


def _plain(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, tree: TreeStructure) -> Tensor:
    """Attention by the definition, queries already scaled. The CPU's fused kernel is twice as slow in the backward pass
    of bfloat16.

    Queries of the heads that share a head of keys stand one below the other, so that no key is copied."""
    heads, groups = k.shape[1], q.shape[1] // k.shape[1]
    rows = q.reshape(heads, -1, q.shape[3])
    scores = torch.baddbmm(tree.bias(visible, groups, q.dtype).expand(heads, -1, -1), rows, k[0].transpose(1, 2))
    return (torch.softmax(scores, -1) @ v[0]).view(1, q.shape[1], q.shape[2], -1)


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
