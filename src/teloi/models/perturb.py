"""A model whose embeddings are moved a little, for objectives that look at where its output changes most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel

from teloi.errors import ModelError


def embedding_norm(model: PreTrainedModel) -> nn.LayerNorm:
    """The layer norm that a model's embeddings go through. ModelError where there is none."""
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    found = [module for module in embeddings.modules() if isinstance(module, nn.LayerNorm)] if embeddings else []
    if not found:
        raise ModelError(f"{type(model).__name__} has no layer norm behind its embeddings, which could be perturbed")
    return found[0]


@contextmanager
def perturbed(model: PreTrainedModel, delta: Float[Tensor, "b t h"]) -> Iterator[None]:
    """Embeddings as LayerNorm(embeddings) + delta, the norm without scale and shift, before the model's own norm.

    So delta means the same whatever the size of the embeddings; without delta the model's own norm undoes the other.

    Source: He et al. 2021 (SiFT).
    """

    def move(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        states, *rest = inputs
        return (layer_norm(states, states.shape[-1:], eps=1e-7) + delta.to(states.dtype), *rest)

    handle = embedding_norm(model).register_forward_pre_hook(move)
    try:
        yield
    finally:
        handle.remove()
