"""Pretraining of cross-encoders on the structure of documents: do two texts come from one paragraph, from one document?

Three objectives over one drawing of pairs (Di Liello et al., 2022, arXiv 2205.10455; Di Liello, 2023, part 2): ssp, sp
and psd. They make an encoder's input in pretraining look like that of ranking answers or verifying facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from teloi.data.formats import Document
from teloi.data.paragraphs import Paragraph, Task, draw_pairs, sentences
from teloi.engine.progress import say
from teloi.errors import DataError, Overlong, UsageError
from teloi.methods.classification import Classification

if TYPE_CHECKING:
    from teloi.batch.sequence import Labelled
    from teloi.data.processor import Processor

CLASSES = ("apart", "together")


@dataclass(frozen=True)
class Parted:
    """A document as sentences by paragraph."""

    paragraphs: Sequence[Paragraph]
    processor: Processor

    @property
    def size(self) -> int:
        """Sentences."""
        return sum(map(len, self.paragraphs))


@dataclass(frozen=True)
class Structure(Classification, ABC):
    """Draws pairs from documents with paragraphs, once before training, and learns which belong together."""

    reads = Document
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "all-minilm-l6-v2",
        "data": "occupations",
        "learning_rate": 5e-5,
        "micro_tokens": 8192,
        "max_length": 128,
        "overlong": "truncate",
    }

    hard: int = 1
    """Pairs that do not belong together for each that does, both texts from one document."""
    easy: int = 1
    """The same, the second text from another document."""
    least_words: int = 8
    """Shorter paragraphs (headings, lead-in lines) are left out."""

    def __post_init__(self) -> None:
        if min(self.hard, self.easy, self.least_words) < 0 or not self.hard + self.easy:
            raise UsageError("hard and easy count pairs: none below 0, and not both 0")

    @property
    @abstractmethod
    def task(self) -> Task:
        """How pairs are drawn: see `draw_pairs`."""

    def encode(self, row: Document, processor: Processor) -> Any:
        kept = [paragraph for paragraph in row.paragraphs if len(paragraph.split()) >= self.least_words]
        return Parted([sentences(paragraph) for paragraph in kept], processor)

    def prepare(self, examples: Sequence[Parted], seed: int) -> Sequence[Labelled]:
        from teloi.batch.sequence import Labelled

        processor = examples[0].processor
        drawn = draw_pairs(
            [example.paragraphs for example in examples], self.task, np.random.default_rng(seed), self.hard, self.easy
        )
        if drawn.skipped:
            say(f"{drawn.skipped} of {len(examples)} documents have no two paragraphs to tell apart: left out")
        made = []
        for pair in drawn.pairs:
            try:
                inputs = processor.encoder_inputs(pair.first, pair.second)
            except Overlong:
                if processor.overlong == "fail":
                    raise
                continue
            ids = {name: np.asarray(values, np.int32) for name, values in inputs.items()}
            made.append(Labelled(ids, {"label": np.int64(pair.label)}, CLASSES[pair.label], CLASSES))
        if not made:
            raise DataError(
                f"all {len(drawn.pairs)} pairs are longer than {processor.max_length} tokens; raise --max-length or "
                "choose --overlong truncate"
            )
        return made


@dataclass(frozen=True)
class SSP(Structure):
    """Spans in the same paragraph: are two sentences from one paragraph? (Di Liello et al., 2022)

    A pair that belongs together is two sentences of a paragraph; of those that do not, the second sentence is from
    another paragraph of the document (hard) or from another document (easy). Both are read as one input, and the
    architecture's own classification head (in BERT's kind linear, tanh, dropout, linear) tells apart from together.
    Loss: the mean of -log p(class) over the rows of the step. The authors add masked language modelling with equal
    weight; here it is left out, since an encoder that is continued so has no vocabulary head as a rule. What comes out
    is a classifier; classify goes on with its head where there are two classes.

    Use it on documents of the domain, before classify ranks answers or verifies facts from few labels. Not where
    thousands of labelled pairs are at hand, nor for texts without paragraphs.
    """

    @property
    def task(self) -> Task:
        return "ssp"


@dataclass(frozen=True)
class SP(Structure):
    """Span in paragraph: is a sentence from this paragraph? (Di Liello et al., 2022)

    A pair that belongs together is a sentence and the rest of its paragraph; of those that do not, the second text is
    another paragraph of the document (hard) or of another one (easy), without one of its sentences, so that lengths do
    not tell. Loss: the mean of -log p(class), with the head of ssp; masked language modelling is left out likewise.

    Use it like ssp where the second text of the task is longer than a sentence (a passage, a claim's evidence). Not for
    texts without paragraphs.
    """

    @property
    def task(self) -> Task:
        return "sp"


@dataclass(frozen=True)
class PSD(Structure):
    """Paragraphs in the same document: are two paragraphs from one document? (Di Liello et al., 2022)

    Pairs that do not belong together are from two documents: all are easy, `hard` has no effect. Paragraphs of
    one sentence take part. Loss: the mean of -log p(class), with the head of ssp; masked language modelling is left
    out likewise.

    Use it like ssp where both texts of the task are long. Not on documents of one subject: there is nothing to tell
    them apart by.
    """

    @property
    def task(self) -> Task:
        return "psd"
