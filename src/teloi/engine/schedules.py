"""Learning rates over a run: transformers' schedules by name, and those that it lacks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import get_scheduler

FLOOR = 0.1
"""Where its cosine would end, as a share of the peak."""


def schedule(name: str, warmup: int, total: int) -> Callable[[float], float]:
    """The share of the peak rate at each step (from 0) of `total`, of which the first `warmup` rise from 0."""
    if name == "cosine_with_cooldown":
        return lambda step: cosine_with_cooldown(step, warmup, warmup, total)
    made = get_scheduler(
        name,
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0),
        num_warmup_steps=warmup,
        num_training_steps=total,
    )
    rate: Callable[[float], float] = made.lr_lambdas[0]
    return rate


def cosine_with_cooldown(step: float, warmup: int, cooldown: int, total: int, floor: float = FLOOR) -> float:
    """Linear from 0 to 1 in `warmup` steps, a cosine from there that would reach `floor` at the end, and in the last
    `cooldown` steps linear from `floor` to 0.

    Source: Charpentier & Samuel 2024 (GPT-BERT), the released code.
    """
    if step < warmup:
        return step / warmup
    if step >= total - cooldown:
        return floor * (total - step) / max(cooldown, 1)
    progress = (step - warmup) / max(total - warmup, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
