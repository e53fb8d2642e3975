"""A reward of segments, learnt from where people marked errors in answers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from teloi import losses
from teloi.data.formats import ErrorSpans, plain
from teloi.engine.objective import Architecture, Now, Objective, Term
from teloi.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from teloi.batch.sequence import Sequence, SequenceBatch
    from teloi.data.processor import Processor
    from teloi.models.roles import Models


@dataclass(frozen=True)
class SegmentReward(Objective):
    """Reward model of segments (Wu et al., 2023, section 2 and appendix): which sub-sentences or sentences of an answer
    are wrong.

    An encoder reads the prompt and the answer with a separator before each segment; a linear head on the separators
    tells right from wrong. A segment is wrong if it overlaps an error of the types in `errors`. Loss: the mean
    cross-entropy over the segments of the step. As a reward it says 1 (right) or -1, whichever is likelier, at the end
    of each segment. What comes out is transformers' token classifier of two labels, which knows its density.

    Use it for fine-grained-ppo (`--reward 0.3*RUN`), one for each kind of error, or to mark errors. Not where you only
    know which of two answers is better: rm."""

    reads = ErrorSpans
    architecture: ClassVar[Architecture] = "encoder"
    defaults: ClassVar[Mapping[str, Any]] = {
        "model": "all-minilm-l6-v2",
        "data": "marked-stories",
        "learning_rate": 5e-5,
        "micro_tokens": 8192,
        "max_length": 512,
        "overlong": "truncate",
    }

    density: Literal["sub-sentence", "sentence"] = "sub-sentence"
    """What is judged."""
    errors: str = "any"
    """Types of errors that make a segment wrong, joined by + ("Irrelevant+Redundant+Incoherent"), or "any"."""
    others: Literal["right", "left-out"] = "right"
    """What becomes of a segment with errors of other types alone."""
    least_words: int = 1
    """Errors of fewer words are passed over."""

    def __post_init__(self) -> None:
        if not all(self.errors.split("+")) or self.least_words < 1:
            raise UsageError("errors are types joined by +, and least_words is at least 1")

    def encode(self, row: ErrorSpans, processor: Processor) -> list[Sequence]:
        from teloi.batch.sequence import IGNORED, Sequence
        from teloi.data.segmentation import segments, with_separators

        text = plain(row.completion)
        spans = segments(text, self.density)
        judged = self.labels(text, spans, row.errors)
        ids, places = with_separators(processor, row.prompt, [text[start:end] for start, end in spans])
        labels = np.full(len(ids), IGNORED, np.int32)
        labels[places] = judged[: len(places)]
        if (labels == IGNORED).all():
            return []  # every segment is left out, or cut off
        return [Sequence({"input_ids": np.asarray(ids, np.int32), "labels": labels})]

    def labels(self, text: str, spans: Several[tuple[int, int]], errors: Several[tuple[int, int, str]]) -> list[int]:
        """1 for a segment that is wrong, 0 for one that is right, -100 for one that is left out."""
        from teloi.batch.sequence import IGNORED

        counted = [error for error in errors if len(text[error[0] : error[1]].split()) >= self.least_words]
        found = []
        for start, end in spans:
            types = {kind for begin, stop, kind in counted if begin < end and start < stop}
            wrong = bool(types if self.errors == "any" else types & set(self.errors.split("+")))
            found.append(IGNORED if types and not wrong and self.others == "left-out" else int(wrong))
        return found

    def build(self, models: Models) -> nn.Module:
        from teloi.models.segment_judge import judge_head

        return judge_head(models.policy.model)

    def collate(self, examples: Several[Sequence], now: Now, device: Any) -> SequenceBatch:
        from teloi.batch.sequence import SequenceBatch

        return SequenceBatch(examples, device=device)

    def loss(self, models: Models, batch: SequenceBatch, now: Now) -> dict[str, Term]:
        from teloi.batch.sequence import IGNORED

        policy: Any = models.policy
        head: Any = models.parts
        labels = batch.ids["labels"][batch.ids["labels"] != IGNORED]
        logits = head(policy.hidden(batch).float())
        said = logits.detach().argmax(-1)
        return {
            "nll": Term(losses.token_cross_entropy(logits, labels), per="tokens"),
            "accuracy": Term((said == labels).float(), per="tokens", weight=0.0),
            "wrong": Term(labels.float(), per="tokens", weight=0.0),
            "f1": Term(2.0 * said * labels, per=(said + labels).float(), weight=0.0),
        }

    def export(self, models: Models, path: Path) -> None:
        """The encoder as a token classifier of two labels, in place of the encoder."""
        from teloi.models.segment_judge import save_judge

        assert models.parts is not None
        save_judge(models.policy.model, models.parts, self.density, path)
