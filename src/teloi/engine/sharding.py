"""Weights that lie in shards over the processes (FSDP2): whole tensors of them, and back.

Who shards is accelerate; every function here is a plain one where nothing is sharded, and must be called by all
processes where something is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from teloi.models.roles import Models, slopes


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be a shard."""
    tensor.copy_(like(tensor, value))


def like(tensor: Tensor, value: Tensor) -> Tensor:
    """A whole tensor on the device of another and sharded as that one is."""
    value = value.to(tensor.device)
    return distribute_tensor(value, tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else value


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Every weight whole throughout the block, amid a call of the module that accelerate prepared.

    Processes may then call its layers as often as each likes (sampling ends after as many tokens as it takes): no
    call waits for the others.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, FSDPModule)]
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(layer is not module, recurse=False)
            if layer is not module:
                layer.reshard()


def slopes_amid(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """`slopes` for use amid a call of the module that accelerate prepared: a backward pass puts its own weights away,
    and what is left of the call needs them."""

    def slopes_and_weights(outputs: Tensor, inputs: Tensor) -> Tensor:
        found = slopes(outputs, inputs)
        assert isinstance(module, FSDPModule)
        module.unshard()
        return found

    return slopes_and_weights


class Twin:
    """A run's models with empty weights, made before accelerate shards the models themselves: where the whole weights
    go when training is done, since what is sharded stays so."""

    def __init__(self, models: Models, module: nn.Module) -> None:
        """`module` has the parameters of `models`."""
        empty: dict[int, Any] = {
            id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
            for parameter in module.parameters()
        }
        self.parameters = list(empty.values())
        policy, parts = copy.deepcopy((models.policy, models.parts), empty)
        self.models = replace(models, policy=policy, parts=parts, reference=None, teacher=None)

    def filled(self, models: Models, module: nn.Module) -> Models:
        """The models with the weights and buffers that those at hand have now."""
        for parameter, shard in zip(self.parameters, module.parameters(), strict=True):
            # In place: tied weights stay tied.
            torch.utils.swap_tensors(parameter, nn.Parameter(whole(shard.detach()), parameter.requires_grad))
        for ours, theirs in zip(self.models.trained, models.trained, strict=True):
            for buffer, now in zip(ours.buffers(), theirs.buffers(), strict=True):
                buffer.copy_(now)
        return self.models
