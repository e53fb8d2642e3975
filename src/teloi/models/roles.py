"""Models by their role in a run: what an objective may ask of the policy, of the reference and of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from teloi.batch.tree import Kind, TreeBatch
from teloi.data.processor import Processor
from teloi.losses.logps import logps_from_logits, token_logps

READ_CHUNK = 256
"""Positions whose vocabulary logits exist at the same time."""

REFERENCE_SUMS = "reference_sums"
"""Column of a tree that holds the reference's `branch_sums`, float [k], computed once before training."""


class LanguageModel:
    """A causal model as objectives see it. n: scored tokens of a batch, d: hidden width, v: vocabulary.

    `model` may carry a PEFT adapter. With `chunk` set, a batch of more positions is encoded in parts of that many, each
    recomputed in the backward pass: what lets a loss that couples its whole batch train in bounded memory."""

    def __init__(self, model: PreTrainedModel, layout: Kind, chunk: int | None = None) -> None:
        self.model = model
        self.layout = layout
        self.chunk = chunk
        peft: Any = model
        self.inner: PreTrainedModel = peft.get_base_model() if hasattr(peft, "get_base_model") else model
        self.head: Any = self.inner.get_output_embeddings()
        # The fast path multiplies by the head's matrix itself; anything around the head (soft cap, scale, adapter)
        # needs the head.
        config = self.inner.config
        wrapped = any(
            getattr(config, name, None) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale")
        )
        self.plain_head = type(self.head) is nn.Linear and not wrapped

    def hidden(self, batch: TreeBatch) -> Float[Tensor, "n d"]:
        """Last hidden state at the positions that predict the scored tokens."""
        return self._states(batch)[batch.layout(self.layout).source]

    def ends(self, batch: TreeBatch) -> Float[Tensor, "b d"]:
        """Last hidden state at the last token of each branch, where a reward is read: never at padding."""
        return self._states(batch)[batch.layout(self.layout).ends]

    def _states(self, batch: TreeBatch) -> Float[Tensor, "p d"]:
        """Last hidden states of all positions of the layout."""
        layout = batch.layout(self.layout)
        arguments: dict[str, Any] = {
            "input_ids": layout.input_ids,
            "position_ids": layout.position_ids,
            "use_cache": False,
        }
        if layout.structure is not None:
            arguments["tree"] = layout.structure
        else:
            arguments["attention_mask"] = layout.attention_mask
            if not _takes_positions(self.inner):
                del arguments["position_ids"]
        states: Tensor = self.inner.base_model(**arguments).last_hidden_state
        return states.flatten(0, 1)

    def logps(self, batch: TreeBatch) -> Float[Tensor, " n"]:
        """Log-probability of each scored token given what it sees, float32."""
        if self.chunk is not None and batch.size > self.chunk and torch.is_grad_enabled():
            parts = batch.split(self.chunk)
            return torch.cat([checkpoint(self._logps, part, use_reentrant=False) for part in parts])
        return self._logps(batch)

    def _logps(self, batch: TreeBatch) -> Float[Tensor, " n"]:
        return self.logps_at(self.hidden(batch), batch.target)

    def logps_at(self, hidden: Float[Tensor, "n d"], target: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Log-probabilities of targets given the hidden states that predict them: `logps` where a loss needs both."""
        if self.plain_head:
            return token_logps(hidden, self.head.weight, target, self.head.bias)
        parts = zip(torch.split(hidden, READ_CHUNK), torch.split(target, READ_CHUNK), strict=True)
        return torch.cat([checkpoint(self._chunk_logps, h, t, use_reentrant=False) for h, t in parts])

    def _chunk_logps(self, hidden: Float[Tensor, "c d"], target: Tensor) -> Float[Tensor, " c"]:
        return logps_from_logits(self.logits(hidden), target)

    def branch_sums(self, batch: TreeBatch) -> Float[Tensor, "k trees"]:
        """Summed log-probability of each branch."""
        return batch.branch_sums(self.logps(batch))

    def read(self, batch: TreeBatch, fn: Callable[..., Tensor], *aligned: Tensor) -> Tensor:
        """`fn(logits [c v], *aligned [c ...])` over chunks of the scored positions, results concatenated; recomputed in
        backward.

        For losses over the whole vocabulary: no [n v] tensor ever exists.
        """
        parts = zip(*(torch.split(tensor, READ_CHUNK) for tensor in (self.hidden(batch), *aligned)), strict=True)

        def one(hidden: Tensor, *rest: Tensor) -> Tensor:
            return fn(self.logits(hidden), *rest)

        return torch.cat([checkpoint(one, *part, use_reentrant=False) for part in parts])

    def logits(self, hidden: Float[Tensor, "c d"]) -> Float[Tensor, "c v"]:
        """Vocabulary logits of hidden states as the architecture defines them, soft cap and scale included."""
        config = self.inner.config
        logits: Tensor = self.head(hidden)
        if scale := getattr(config, "logits_scaling", None):
            logits = logits / scale
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits


def merged(model: LanguageModel) -> LanguageModel:
    """The model without its adapter, whose product is added to the weights for good: what a user takes away."""
    peft: Any = model.model
    return LanguageModel(peft.merge_and_unload(), model.layout) if hasattr(peft, "merge_and_unload") else model


class Reference(Protocol):
    """What objectives may ask of the frozen start model; no gradients flow from it."""

    def branch_sums(self, batch: TreeBatch) -> Float[Tensor, "k trees"]: ...

    def logps(self, batch: TreeBatch) -> Float[Tensor, " n"]: ...


class FrozenReference:
    """The reference as a language model under `frozen` (PEFT: the policy with its adapter off), or a model of
    its own."""

    def __init__(self, model: LanguageModel, frozen: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self.model = model
        self.frozen = frozen

    def logps(self, batch: TreeBatch) -> Float[Tensor, " n"]:
        with torch.no_grad(), self.frozen():
            return self.model.logps(batch)

    def branch_sums(self, batch: TreeBatch) -> Float[Tensor, "k trees"]:
        return batch.branch_sums(self.logps(batch))


class CachedReference:
    """The reference's branch sums, computed once before training and carried by every tree: no second model in
    memory."""

    def branch_sums(self, batch: TreeBatch) -> Float[Tensor, "k trees"]:
        return batch.columns[REFERENCE_SUMS].T

    def logps(self, batch: TreeBatch) -> Float[Tensor, " n"]:
        raise RuntimeError("this objective declared that the reference's sums suffice (reference_sums = True)")


def slopes(outputs: Tensor, inputs: Tensor) -> Tensor:
    """The gradient of the sum of some outputs with respect to an input; parameters get none."""
    (found,) = torch.autograd.grad(outputs.sum(), inputs)
    return found


@dataclass
class Models:
    """The models of a run by role, the objective's own parts (`Objective.build`), and the tokenizer around them."""

    policy: LanguageModel
    reference: Reference | None = None
    parts: nn.Module | None = None
    processor: Processor | None = None
    processes: int = 1
    example: Any = None
    """One example of the run, for parts whose shapes follow the data."""
    gather: Callable[[Tensor], Tensor] = lambda values: values
    """Values of all processes in one tensor; the gradient reaches this process's own."""
    slopes: Callable[[Tensor, Tensor], Tensor] = slopes
    """The gradient of a sum of outputs with respect to an input, for a loss that asks for one itself."""
    teacher: LanguageModel | None = None
    """A frozen model of the policy's vocabulary, named by the objective's setting `teacher`."""

    @property
    def layout(self) -> Kind:
        """How batches are laid out for the policy: only trees are packed."""
        return getattr(self.policy, "layout", "padded")

    @property
    def trained(self) -> list[nn.Module]:
        """The policy's model and the objective's own parts, as far as there are any."""
        return [module for module in (getattr(self.policy, "model", None), self.parts) if module is not None]

    @property
    def frozen(self) -> list[nn.Module]:
        """The models that are only asked, as far as there are any."""
        asked = (getattr(self.reference, "model", None), self.teacher)
        return [role.model for role in asked if role is not None]

    @property
    def device(self) -> torch.device:
        """Where they stand."""
        return next(self.trained[0].parameters()).device


@contextmanager
def evaluation(*models: nn.Module) -> Iterator[None]:
    """The models in evaluation mode without gradients, their training mode restored afterwards."""
    training = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, was in zip(models, training, strict=True):
            model.train(was)


def _takes_positions(model: PreTrainedModel) -> bool:
    import inspect

    return "position_ids" in inspect.signature(type(model.base_model).forward).parameters
