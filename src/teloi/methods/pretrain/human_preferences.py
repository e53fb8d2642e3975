"""Pretraining with human preferences (Korbak et al., 2023): a cheap score of every segment of the corpus is used while
the model is pretrained, instead of repairing it afterwards.

All of its objectives read documents as blocks of one length: each document begins with the end token, segments are
tokenised one by one, and every token carries the score of its segment. Here are the two that change the data, beside
clm, the paper's maximum likelihood; those that change the loss are in `weighted_by_score`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from teloi.data.formats import ScoredSegments
from teloi.engine.objective import Now, Objective, Term
from teloi.errors import DataError, UsageError

if TYPE_CHECKING:
    from teloi.batch.tree import Tree, TreeBatch
    from teloi.data.processor import Processor
    from teloi.data.scoring import Scoring
    from teloi.models.roles import Models

Threshold = float | Literal["median"]


@dataclass(frozen=True)
class Scored(Objective, ABC):
    """Blocks of scored documents. Subclasses say what a score does: to the documents, to the tokens, or to the loss."""

    reads = ScoredSegments
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "scratch:small",
        "data": "stories",
        "learning_rate": 5e-4,
        "weight_decay": 0.1,
        "warmup_ratio": 0.01,
    }

    length: int = 128
    """Tokens of a block (1024 in the paper); documents are laid end to end and cut, and what is left over is
    dropped."""

    def __post_init__(self) -> None:
        if self.length < 2:
            raise UsageError(f"length must be at least 2, not {self.length}: nothing predicts a block's first token")

    def encode(self, row: ScoredSegments, processor: Processor) -> list[Tree]:
        from teloi.data.scored import scored_document

        if self.length > processor.max_length:
            raise UsageError(
                f"blocks of {self.length} tokens exceed the context of {processor.max_length}: "
                f"set --length {processor.max_length} or raise --max-length"
            )
        return scored_document(processor, row)

    def prepare(self, examples: Sequence[Tree], seed: int) -> Sequence[Tree]:
        from teloi.data.scored import blocks

        return blocks(examples, self.length)

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """From left to right behind the end token, which every document begins with."""
        from teloi.data.scoring import Scoring
        from teloi.data.vocabulary import end_id

        return (Scoring("causal", (end_id(processor.tokenizer),), self.length),)

    @abstractmethod
    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        """A batch has the scores of its tokens in `tokens["score"]`."""


@dataclass(frozen=True)
class FilteredLM(Scored):
    """Filtering: a document whose mean segment score is above the threshold is left out (Korbak et al., 2023, section
    2).

    Loss: the mean of -log p(token | text before it) over the documents that are kept. Held-out documents are all kept.
    With the threshold inf everything is kept: maximum likelihood on the same blocks as the other objectives.

    Use it where the corpus has more than enough that nobody objects to. Not where what is wanted stands in the same
    documents as what is not: it is lost with them; conditional-lm learns from all.
    """

    threshold: Threshold = "median"
    """The highest mean score of a document that is kept; median: of the corpus's documents."""

    def prepare(self, examples: Sequence[Tree], seed: int) -> Sequence[Tree]:
        means = np.array([example.columns["segment_scores"].mean() for example in examples])
        most = number(self.threshold, means)
        kept = [example for example, mean in zip(examples, means, strict=True) if mean <= most]
        if not kept:
            raise DataError(
                f"no documents are left: all have a mean score above the threshold {most:g}, the lowest is "
                f"{means.min():g}"
            )
        return super().prepare(kept, seed)

    def prepare_held_out(self, examples: Sequence[Tree], training: Sequence[Tree], seed: int) -> Sequence[Tree]:
        return super().prepare(examples, seed)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        return {"nll": Term(-models.policy.logps(batch), per="tokens")}


@dataclass(frozen=True)
class Thresholded(Scored, ABC):
    """Objectives that call a segment aligned when its score is at most a threshold, which goes with every block."""

    threshold: Threshold = "median"
    """The highest score of a segment that counts as aligned; median: of the corpus's segments. Where most segments
    have the lowest score, that is it."""

    def prepare(self, examples: Sequence[Tree], seed: int) -> Sequence[Tree]:
        scores = np.concatenate([example.columns["segment_scores"] for example in examples])
        return self.cut(examples, np.float32(number(self.threshold, scores)), seed)

    def prepare_held_out(self, examples: Sequence[Tree], training: Sequence[Tree], seed: int) -> Sequence[Tree]:
        return self.cut(examples, training[0].columns["threshold"], seed)

    def cut(self, examples: Sequence[Tree], threshold: np.float32, seed: int) -> Sequence[Tree]:
        """Blocks that know the threshold."""
        from teloi.data.scored import blocks

        return blocks(examples, self.length, threshold=threshold)


@dataclass(frozen=True)
class ConditionalLM(Thresholded):
    """Conditional training: a control token before each segment says on which side of the threshold it is (Korbak et
    al., 2023, section 2).

    <|aligned|> or <|misaligned|> stands before each segment, but for a share of them, drawn once, that go without.
    Loss: the mean of -log p(token | text before it) over all tokens, the control tokens among them; `nll_text` is that
    of the others. The two tokens are added to the tokenizer and to the embeddings, as the mean of the other rows plus
    noise, unless the start model is a conditional one already. To sample, begin with the end token and <|aligned|>;
    both tokens are banned by the generation config that is written (`bad_words_ids`), so put <|aligned|> in again
    yourself at a segment's end where segments are short. Judge the likelihood of plain text behind <|aligned|> too.

    Use it to pretrain on all of a corpus and still sample what people like: the paper's best trade between the two.
    Not where scores are constant: then it is clm with one more token a segment; nor with --lora, which leaves the new
    rows as they begin.
    """

    drop: float = 0.01
    """Share of the segments that get no control token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop <= 1:
            raise UsageError(f"drop must be a share from 0 to 1, not {self.drop}")

    def encode(self, row: ScoredSegments, processor: Processor) -> list[Tree]:
        from teloi.data.vocabulary import control_ids

        controls = np.asarray(control_ids(processor.tokenizer), np.int64)
        found = super().encode(row, processor)
        return [replace(document, columns={**document.columns, "controls": controls}) for document in found]

    def cut(self, examples: Sequence[Tree], threshold: np.float32, seed: int) -> Sequence[Tree]:
        from teloi.data.scored import blocks, controlled

        rng = np.random.default_rng(seed)
        controls = examples[0].columns["controls"]
        marked = [controlled(example, controls, threshold, self.drop, rng) for example in examples]
        return blocks(marked, self.length, threshold=threshold, controls=controls)

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """Behind <|aligned|>, as it is sampled."""
        from teloi.data.vocabulary import control_ids

        aligned, _ = control_ids(processor.tokenizer)
        return tuple(replace(one, front=(*one.front, aligned)) for one in super().scorings(processor))

    def shape(self, model: Any, example: Tree) -> None:
        from teloi.models.embeddings import add_tokens

        controls = example.columns["controls"].tolist()
        banned = [[control] for control in controls]
        if model.generation_config.bad_words_ids != banned:  # no conditional model yet
            add_tokens(model, controls)
            model.generation_config.bad_words_ids = banned

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        nll = -models.policy.logps(batch)
        text = 1 - batch.tokens["control"]
        return {"nll": Term(nll, per="tokens"), "nll_text": Term(nll.detach() * text, per=text, weight=0.0)}


def number(threshold: Threshold, scores: np.ndarray) -> float:
    """A threshold on some scores as a number."""
    return float(np.median(scores)) if threshold == "median" else threshold
