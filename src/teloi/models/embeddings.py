"""New tokens in the vocabulary of a model that has learned others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

NOISE = 0.01
"""Standard deviation of a new row around the mean of the old ones."""


@torch.no_grad()
def add_tokens(model: Any, ids: Sequence[int]) -> None:
    """Give new ids their rows in the input embedding and, where it is not tied, the output layer: the mean of the other
    rows, so that a new token is as likely as an average one, plus noise from torch's generator to part them.

    Tables that are too small grow; a row that was there as a spare one is overwritten.
    """
    if max(ids) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    tables: dict[int, Tensor] = {}
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if layer is not None:
            tables[id(layer.weight)] = layer.weight
    for table in tables.values():
        old = torch.ones(len(table), dtype=torch.bool, device=table.device)
        old[list(ids)] = False
        mean = table[old].float().mean(0)
        table[list(ids)] = (mean + NOISE * torch.randn(len(ids), len(mean), device=table.device)).to(table.dtype)


def add_missing(model: Any, ids: Sequence[int]) -> None:
    """`add_tokens` of those ids for which the model has no row yet."""
    rows = model.get_input_embeddings().num_embeddings
    if missing := [int(one) for one in ids if one >= rows]:
        add_tokens(model, missing)
