"""Classification: a text, or a pair of texts, gets a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi.data.formats import LabelledText
from teloi.errors import DataError
from teloi.methods.classification import Classification

if TYPE_CHECKING:
    from teloi.batch.sequence import Labelled
    from teloi.data.processor import Processor


@dataclass(frozen=True)
class Classify(Classification):
    """Fine-tune an encoder to label texts, or pairs of texts (BERT: Devlin et al., 2019, section 4.1 and figure 4).

    The first token's last state goes through the architecture's own classification head (in BERT's kind linear, tanh,
    dropout, linear) to one logit a class. A pair is read as one input, so that each text attends to the other: a
    cross-encoder. Loss: the mean of -log p(label) over the rows of the step. Classes are the labels of the training
    rows, numbers in their order, other labels by the alphabet. The head is drawn anew, but where the start model is a
    classifier of as many classes, it goes on with its own. What comes out is transformers'
    AutoModelForSequenceClassification, with the names of the classes.

    Use it when texts have labels: topics, sentiment, whether an answer fits its question. Replies that are marked good
    or bad are cast to such pairs. Not where candidates are many and must be searched: in-batch embeds each text once.
    """

    reads = LabelledText
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "all-minilm-l6-v2",
        "learning_rate": 5e-5,
        "micro_tokens": 8192,
        "max_length": 256,
        "overlong": "truncate",
    }

    def encode(self, row: LabelledText, processor: Processor) -> Labelled:
        from teloi.batch.sequence import Labelled

        inputs = processor.encoder_inputs(row.text, row.text_pair)
        return Labelled({name: np.asarray(ids, np.int32) for name, ids in inputs.items()}, name=row.label)

    def prepare(self, examples: Sequence[Labelled], seed: int) -> Sequence[Labelled]:
        classes = in_order({example.name for example in examples})
        if len(classes) < 2:
            raise DataError(f"every row has the label {classes[0]!r}: there is nothing to tell apart")
        return numbered(examples, classes)

    def prepare_held_out(
        self, examples: Sequence[Labelled], training: Sequence[Labelled], seed: int
    ) -> Sequence[Labelled]:
        classes = training[0].classes
        if unknown := {example.name for example in examples} - set(classes):
            raise DataError(f"a held-out row has the label {min(unknown)!r}, which no training row has")
        return numbered(examples, classes)


def numbered(examples: Sequence[Labelled], classes: Sequence[str]) -> list[Labelled]:
    """The examples with the numbers of their classes."""
    number = {name: np.int64(index) for index, name in enumerate(classes)}
    return [replace(e, columns={**e.columns, "label": number[e.name]}, classes=tuple(classes)) for e in examples]


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels that are all whole numbers by their value, others by the alphabet."""
    names = sorted(labels)
    return sorted(names, key=int) if all(name.lstrip("-").isdecimal() for name in names) else names
