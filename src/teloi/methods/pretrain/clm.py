"""Causal language modelling: predict every token of a text from those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from teloi.data.formats import LanguageModeling
from teloi.engine.objective import Now, Objective, Term

if TYPE_CHECKING:
    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class CLM(Objective):
    """Next-token prediction on raw text, from scratch or continued.

    Loss: the mean of -log p(token | text before it) over all tokens of the step. A text stands behind the begin token
    (that of a chat model opens a turn, and is left out unless its tokenizer adds it) and ends with the end token; one
    longer than the context is cut into blocks, each behind the begin token and the last token before it.

    Use it to train a model from random weights (`--model scratch:small`, with a tokenizer trained on the data) or
    to adapt a pretrained one to a domain. Not for instructions: sft learns from the answers only.
    """

    reads = LanguageModeling
    defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 5e-5}

    def encode(self, row: LanguageModeling, processor: Processor) -> Sequence[Tree]:
        from teloi.data.encode import document
        from teloi.data.scoring import text_front

        return document(processor, row.text, text_front(processor) if isinstance(row.text, str) else ())

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        return {"nll": Term(-batch.weight * models.policy.logps(batch), per="tokens")}
