"""The optimiser's side of mixed precision: bfloat16 parameters, float32 master weights and gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from teloi.engine.sharding import whole


class Masters:
    """Float32 twins of the trainable parameters: gradients are added up in them, the optimiser updates them.

    A bfloat16 weight of 1.0 does not change when 0.001 is added to it; its float32 master does. A parameter that is
    float32 already is its own master, so that one loop serves both."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters: list[nn.Parameter] = [p for p in parameters if p.requires_grad]
        self.tensors: list[nn.Parameter] = [
            p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in self.parameters
        ]

    def collect(self) -> None:
        """Move the gradients of the micro-batch that was just differentiated into the masters'."""
        for parameter, master in zip(self.parameters, self.tensors, strict=True):
            if master is parameter or parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad.add_(parameter.grad)
            parameter.grad = None

    def release(self) -> None:
        """Move the masters' gradients back to the parameters, for the last micro-batch of a step to be added to.

        What synchronises processes (DDP) sums the parameters' gradients when that micro-batch is differentiated.
        """
        for parameter, master in zip(self.parameters, self.tensors, strict=True):
            if master is not parameter and master.grad is not None:
                parameter.grad = master.grad.to(parameter.dtype)
                master.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Write the updated masters back to the parameters the model computes with."""
        for parameter, master in zip(self.parameters, self.tensors, strict=True):
            if master is not parameter:
                parameter.copy_(master)

    def clip(self, norm: float) -> Tensor:
        """Scale the gradients down to `norm` (0: leave them) and return their norm before."""
        found = whole(nn.utils.get_total_norm([t.grad for t in self.tensors if t.grad is not None]))
        if 0 < norm < found:
            nn.utils.clip_grads_with_norm_(self.tensors, norm, found)
        return found
