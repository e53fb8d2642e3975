"""A copy of a module that follows it slowly, and a queue of what the copy has said: state of training, in buffers.

Buffers ride in every checkpoint, and whatever trains or shards parameters leaves them alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

EMPTY = -1
"""The number of a place in a queue that has not been filled yet; no text has it."""


def follower(module: nn.Module) -> nn.Module:
    """A copy whose parameters are buffers, in float32: steps of half a percent would vanish in bfloat16."""
    made = copy.deepcopy(module)
    for part in made.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().float().clone())
    return made


@torch.no_grad()
def follow(copies: Mapping[str, Tensor], originals: Mapping[str, Tensor], momentum: float) -> None:
    """Move each copy towards the original of its name, in place: momentum * copy + (1 - momentum) * original."""
    for name, original in originals.items():
        copies[name].mul_(momentum).add_(original.to(copies[name].dtype), alpha=1 - momentum)


class Queue(nn.Module):
    """A ring of the last `size` vectors [size d], each with a few numbers that say of what it is [size k].

    Each push overwrites the oldest. A place that was never filled holds a zero vector and the numbers EMPTY."""

    def __init__(self, size: int, width: int, numbers: int = 1) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("numbers", torch.full((size, numbers), EMPTY))
        self.register_buffer("at", torch.zeros(1, dtype=torch.int64))
        self.vectors: Tensor
        self.numbers: Tensor
        self.at: Tensor

    @torch.no_grad()
    def push(self, vectors: Float[Tensor, "n d"], numbers: Int[Tensor, "n k"]) -> None:
        """Put n vectors in; of more than there are places, the last ones stay."""
        if not (size := len(self.vectors)):
            return
        places = (self.at + torch.arange(len(vectors), device=self.at.device)) % size
        self.vectors[places[-size:]] = vectors[-size:].to(self.vectors.dtype)
        self.numbers[places[-size:]] = numbers[-size:]
        self.at.copy_((self.at + len(vectors)) % size)


class Average(nn.Module):
    """The moving average of what is trained of a model, float32, in buffers. There is no second model: the first one
    lends its place (`instead`)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for i, parameter in enumerate(trainable(model)):
            self.register_buffer(f"{i}", parameter.detach().float().clone())

    def follow(self, weights: Iterable[Tensor], momentum: float) -> None:
        """Move towards the model's weights as they are now, whole and in the order of `trainable`."""
        follow(dict(self.named_buffers()), {f"{i}": weight for i, weight in enumerate(weights)}, momentum)

    @contextmanager
    def instead(self, model: nn.Module) -> Iterator[None]:
        """The model with the averages for its weights throughout the block; no gradient may be asked for in it."""
        parameters = trainable(model)
        own = [parameter.detach().clone() for parameter in parameters]
        try:
            _put(parameters, self.buffers())
            yield
        finally:
            _put(parameters, own)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """What is trained of a model."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@torch.no_grad()
def _put(parameters: Iterable[nn.Parameter], values: Iterable[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
