"""Heads that objectives put on a model's hidden states."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class DetectionHead(nn.Module):
    """Two logits a token, kept and replaced: linear, GELU, layer norm, linear (Di Liello et al., 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, 2))

    def forward(self, hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        """Logits of the states of n tokens."""
        logits: Tensor = self.layers(hidden)
        return logits
