"""Linear layers with their weights packed once for the CPU's matrix product (oneDNN), while a model generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Packing copies the weights: above this size the copy is not worth its memory.
LARGEST_BYTES = 4 * 2**30
# The number of rows that oneDNN is told to expect; measured, the layout is the same from 8 to 512.
ROWS = 64


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """For the time of the block, every plain `nn.Linear` on the CPU multiplies with a packed copy of its weight.

    Without it the matrix product packs the weight at every call. Only without gradients, and the weights must not
    change inside the block.
    Does nothing where torch has no oneDNN, for other devices and types, and for models above LARGEST_BYTES.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and _can_be_packed(module)]
    size = sum(layer.weight.nbytes for layer in layers)
    if not torch.backends.mkldnn.is_available() or size > LARGEST_BYTES:
        layers = []
    try:
        for layer in layers:
            layer.forward = _forward(layer)  # type: ignore[method-assign, assignment]  # its own, for a while
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _can_be_packed(module: nn.Linear) -> bool:
    return (
        "forward" not in module.__dict__
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.bfloat16)
    )


def _forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
    bias = layer.bias

    def forward(states: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return product

    return forward
