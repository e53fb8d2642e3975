"""What the vectors of several papers ask of an update of PPO."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses


def update(
    new: tuple[Tensor, Tensor],
    logps: tuple[Tensor, Tensor],
    values: tuple[Tensor, Tensor],
    advantages: Tensor,
    returns: Tensor,
    masks: tuple[Tensor, Tensor],
    params: dict[str, Any],
) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Losses and rewards by the names of the vectors, and the gradients of the loss with respect to `new`.

    Args:
        logps, values: [b t], those after the update and those of the rollout.
        masks: what policy and value are averaged over.
    """
    (now, then), (value, old), (tokens, slots) = logps, values, masks
    clip = params["cliprange"]
    surrogate = losses.clipped_surrogate(now[tokens], then[tokens], advantages[tokens], clip, clip).mean()
    error = losses.clipped_value_loss(value[slots], old[slots], returns[slots], params["cliprange_value"]).mean()
    loss = params.get("pg_coef", 1.0) * surrogate + params["vf_coef"] * error
    found = {
        "out_advantages": advantages,
        "out_returns": returns,
        "out_pg_loss": surrogate,
        "out_vf_loss": error,
        "out_loss": loss,
    }
    return found, torch.autograd.grad(loss, new)
