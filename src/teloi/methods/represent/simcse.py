"""Sentence vectors from plain texts: each text is its own positive, under other dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.data.formats import LanguageModeling
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import DataError, RowError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from teloi.batch.sequence import Sequence as Texts
    from teloi.batch.sequence import SequenceBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class SimCSE(Objective):
    """Unsupervised SimCSE (Gao et al., 2021, eq. 4): tell texts apart by their vectors under different dropout.

    Each text of the batch is encoded twice; the vector is the mean over the last hidden states, for which the paper has
    the first token's state through a layer that is used in training alone. Loss: -log softmax_j(cos(z_i, z'_j) /
    temperature) at j = i, one direction, mean over texts. A text that comes twice in a batch is no negative of itself.
    With several processes the candidates are those of all of them. Batches larger than memory are encoded in parts of
    `micro_tokens` (gradient caching). On held-out texts nothing is dropped: there the loss says only how alike
    different texts are.

    Use it when there are sentences of a domain and nothing that says which belong together, to turn a masked model into
    a sentence encoder or to adapt one. Where there are pairs, in-batch is better. Not for long training: a few thousand
    steps are all it has to teach.
    """

    reads = LanguageModeling
    architecture = "encoder"
    coupled = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "all-minilm-l6-v2",
        "data": "stories",
        "learning_rate": 2e-5,
        "batch_size": 64,
        "micro_tokens": 4096,
        "max_length": 64,
        "overlong": "truncate",
    }

    temperature: float = 0.05
    """What cosines are divided by."""
    dropout: float = 0.1
    """Dropout of the encoder while it is trained, whatever its configuration says: the two views differ by it alone."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UsageError(f"temperature must be above 0, not {self.temperature}")
        if not 0 < self.dropout < 1:
            raise UsageError(f"dropout must be above 0, or both views are equal, and below 1, not {self.dropout}")

    def shape(self, model: Any, example: Any) -> None:
        from teloi.models.dropout import set_dropout

        set_dropout(model, self.dropout)

    def encode(self, row: LanguageModeling, processor: Processor) -> Texts:
        from teloi.batch.sequence import Sequence as Texts

        if not isinstance(row.text, str):
            raise RowError("a conversation is no text for an encoder: write what it says in a column 'text'", row.where)
        return Texts({"input_ids": np.asarray(processor.sentence_ids(processor.bare_ids(row.text)), np.int32)})

    def prepare(self, examples: Sequence[Any], seed: int) -> Sequence[Any]:
        if len(examples) < 2:
            raise DataError("there is one text: it needs others to be told from")
        return examples

    def collate(self, examples: Sequence[Any], now: Now, device: Any) -> SequenceBatch:
        from teloi.batch.sequence import SequenceBatch

        batch = SequenceBatch(examples, device=device)
        batch.columns["text"] = batch.identities("input_ids")
        return batch

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        encoder: Any = models.policy
        first, second = (models.gather(encoder.embed(batch)) for _ in range(2))
        if len(first) < 2 and now.step == 0 and encoder.model.training:
            raise UsageError("a batch of one row has no negatives: raise batch_size")
        texts = models.gather(batch.columns["text"])
        return {"contrast": Term(losses.simcse(first, second, 1 / self.temperature, texts), shared=True)}

    def export(self, models: Models, path: Path) -> None:
        """What sentence-transformers needs besides the checkpoint: `SentenceTransformer(path)` loads it."""
        from teloi.models.sequences import write_pooling

        assert models.processor is not None
        encoder: Any = models.policy
        write_pooling(path, encoder.model.config.hidden_size, models.processor.max_length)
