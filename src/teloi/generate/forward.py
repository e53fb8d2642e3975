"""A causal model's forward for generation: all attention layers write into room taken once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


class Forward:
    """The model's forward with a cache: input ids and mask of the whole text so far -> next-token logits [b v]."""

    def __init__(self, model: PreTrainedModel, room: int) -> None:
        self.model = model
        self.cache = DynamicCache(config=model.config)
        known = inspect.signature(model.forward).parameters
        name = next(name for name in ("cache", "past_key_values", "cache_params") if name in known)
        self.fixed = {name: self.cache, "use_cache": True}
        if "logits_to_keep" in known:
            self.fixed["logits_to_keep"] = 1
        self.positions = "position_ids" in known
        # Padding inside a row is harmless where positions are told and no layer counts columns.
        self.takes_gaps = self.positions and all(type(layer) is DynamicLayer for layer in self.cache.layers)
        # Layers that attend get room for the whole text (a sliding window is in the mask); recurrent ones stay.
        attends = (DynamicLayer, DynamicSlidingWindowLayer)
        self.cache.layers = [_Room(room) if type(layer) in attends else layer for layer in self.cache.layers]

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        inputs = {"input_ids": ids, "attention_mask": mask, **self.fixed}
        if self.positions:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        logits: Tensor = self.model(**inputs).logits
        return logits[:, -1]

    def select(self, rows: Tensor) -> None:
        """Let row i of the batch continue what was row rows[i]."""
        self.cache.reorder_cache(cast(torch.LongTensor, rows))


@dataclass(frozen=True)
class Beside:
    """A second model of the same vocabulary that reads all that the first one does, and how their logits, [b v] each,
    become those that are drawn from. `within` holds while it computes: it may be the first one with its adapter off."""

    model: PreTrainedModel
    mix: Callable[[Tensor, Tensor], Tensor]
    within: Callable[[], AbstractContextManager[Any]] = nullcontext


class Mixture:
    """Two forwards as one, each with a cache of its own."""

    def __init__(self, model: PreTrainedModel, beside: Beside, room: int) -> None:
        self.beside = beside
        self.first, self.second = Forward(model, room), Forward(beside.model, room)
        self.takes_gaps = self.first.takes_gaps and self.second.takes_gaps

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        first = self.first(ids, mask)
        with self.beside.within():
            second = self.second(ids, mask)
        return self.beside.mix(first, second)

    def select(self, rows: Tensor) -> None:
        """Let row i of the batch continue what was row rows[i]."""
        self.first.select(rows)
        self.second.select(rows)


class _Room(DynamicLayer):
    """Keys and values [b heads time width] in room for `room` tokens, taken at the first update."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        self.room = room
        self.stores: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        if not self.stores:
            self.lazy_initialization(key_states, value_states)
            for states in (key_states, value_states):
                batch, heads, _, width = states.shape
                self.stores.append(states.new_empty(batch, heads, self.room, width))
        end = start + key_states.shape[-2]
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store[..., start:end, :] = states
        return self._show(end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        length = self.get_seq_length()
        self.stores = [store.index_select(0, beam_idx) for store in self.stores]
        if self.stores:
            self._show(length)

    def _show(self, length: int) -> tuple[Tensor, Tensor]:
        keys, values = (store[..., :length, :] for store in self.stores)
        self.keys, self.values = keys, values
        return keys, values
