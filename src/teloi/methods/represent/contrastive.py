"""Contrastive training of a sentence encoder: every other row of the batch is a negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi import losses
from teloi.batch.identity import identity
from teloi.data.formats import Pair
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import DataError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from teloi.batch.sequence import Sequence as Texts
    from teloi.batch.sequence import SequenceBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class InBatch(Objective):
    """In-batch negatives (Henderson et al., 2017, section 4.4): of all positives of the batch, find one's own.

    Loss: -log softmax_j(scale * cos(anchor_i, positive_j)) at j = i, mean over anchors; with `symmetric` averaged with
    the same from positives to anchors. Both sides go through one encoder, the mean over its last hidden states, and
    both get gradients. A column `negative` adds one hard negative a row, which every anchor of the batch meets. With
    several processes the candidates are those of all of them. Batches larger than memory are encoded in parts of
    `micro_tokens` (gradient caching): the larger the batch, the harder the task.

    A candidate that would be a right answer is left out of the softmax: one whose row has the same `group` (a column;
    without it, the same anchor), or whose text is the row's own positive. So any rows may meet in a batch: to part
    them there would change which rows are drawn and how often, and not every group would find enough others.

    Use it when there are pairs of texts that belong together (question and answer, title and abstract), for search or
    clustering by cosine. Not with batches of a few rows, and not when rows without a known group often mean the same.
    """

    reads = Pair
    architecture = "encoder"
    coupled = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "all-minilm-l6-v2",
        "data": "vacancies",
        "learning_rate": 2e-5,
        "batch_size": 64,
        "micro_tokens": 4096,
        "max_length": 256,
        "overlong": "truncate",
    }

    scale: float = 20.0
    """Factor of the cosines, the inverse of a temperature."""
    symmetric: bool = False
    """Average with the loss from positives to anchors."""

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise UsageError(f"scale must be above 0, not {self.scale}")

    def encode(self, row: Pair, processor: Processor) -> Any:
        from teloi.batch.sequence import Sequence as Texts

        texts = {"anchor": row.anchor, "positive": row.positive, "negative": row.negative}
        ids = {
            name: np.asarray(processor.sentence_ids(processor.bare_ids(text)), np.int32)
            for name, text in texts.items()
            if text is not None
        }
        return Texts(ids, {"group": group(row.columns, row.anchor)})

    def prepare(self, examples: Sequence[Any], seed: int) -> Sequence[Any]:
        if len(examples) < 2:
            raise DataError("one row has nothing to be told from: in-batch negatives need at least two")
        if len({tuple(example.ids) for example in examples if hasattr(example, "ids")}) > 1:
            raise DataError("some rows have a negative and others have none: give all one, or remove the column")
        return examples

    def collate(self, examples: Sequence[Texts], now: Now, device: Any) -> SequenceBatch:
        from teloi.batch.sequence import SequenceBatch

        batch = SequenceBatch(examples, device=device)
        for name in batch.ids:
            batch.columns[f"text of {name}"] = batch.identities(name)
        return batch

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        import torch

        encoder: Any = models.policy
        anchors, *columns = (models.gather(encoder.embed(batch, name)) for name in batch.ids)
        if len(anchors) < 2 and now.step == 0 and encoder.model.training:
            raise UsageError("a batch of one row has no negatives: raise batch_size")
        logits = losses.contrast(anchors, columns[0], self.scale, negatives=columns[1] if columns[1:] else None)
        known = {name: models.gather(column) for name, column in batch.columns.items()}
        candidates = right_or_wrong(known)
        if self.symmetric:
            values = losses.symmetric_info_nce(logits, candidates=candidates)
        else:
            values = losses.info_nce(logits, candidates=candidates)
        found = logits.detach().masked_fill(~candidates, float("-inf")).argmax(1)
        own = torch.arange(len(logits), device=logits.device)
        return {
            "contrast": Term(values, shared=True),
            "accuracy": Term((found == own).float(), weight=0.0, shared=True),
            "candidates": Term(candidates.sum(1).float(), weight=0.0, shared=True),
        }

    def export(self, models: Models, path: Path) -> None:
        """What sentence-transformers needs besides the checkpoint: `SentenceTransformer(path)` loads it."""
        from teloi.models.sequences import write_pooling

        assert models.processor is not None
        encoder: Any = models.policy
        write_pooling(path, encoder.model.config.hidden_size, models.processor.max_length)


def right_or_wrong(known: Mapping[str, Tensor]) -> Tensor:
    """Which candidates each row chooses among, booleans [n m]: its own positive, and all that are surely wrong.

    `known`: for each row its `group`, and numbers that stand for the texts of its positive and negative.
    """
    import torch

    positive = known["text of positive"]
    right = losses.same_group(known["group"], known["group"]) | losses.same_group(positive, positive)
    own = torch.eye(len(positive), dtype=torch.bool, device=positive.device)
    wrong = [own | ~right]
    if (negative := known.get("text of negative")) is not None:
        wrong.append(~losses.same_group(positive, negative))
    return torch.cat(wrong, dim=1)


def group(columns: Mapping[str, Any], text: str) -> np.int64:
    """A number for the group of a row: its column `group`, or else the text that it is about."""
    given = columns.get("group")
    return identity(text.encode() if given is None else f"group {given}".encode())
