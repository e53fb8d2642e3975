"""Dropout of a model, wherever it keeps its rates."""

from __future__ import annotations

from torch import nn


def set_dropout(model: nn.Module, rate: float) -> None:
    """Make every layer of a model drop with that rate in training."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, rate)
