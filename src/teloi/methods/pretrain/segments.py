"""What the objectives that corrupt text have in common: they read texts as segments of one length."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from teloi.data.formats import LanguageModeling
from teloi.errors import UsageError

if TYPE_CHECKING:
    from teloi.batch.sequence import Sequence
    from teloi.data.processor import Processor


@dataclass(frozen=True)
class Segments:
    """Texts end to end, cut into segments of `length` tokens; examples are these raw tokens.

    Each step corrupts its segments anew, in `rollout`: there the tokenizer and the state of the models are at hand,
    the random numbers belong to an example's place in the step, and micro-batches are made of what comes out. `parted`
    says whether the tokenizer's end token stands between two texts.
    """

    parted: ClassVar[bool] = True

    length: int = 128
    """Tokens of a segment before corruption; texts are laid end to end and cut, and what is left over is dropped."""

    def __post_init__(self) -> None:
        if self.length < 2:
            raise UsageError(f"length must be at least 2, not {self.length}: one token cannot be split")

    def encode(self, row: LanguageModeling, processor: Processor) -> list[Sequence]:
        from teloi.data.segments import stream

        if self.length + (added := self.added(processor)) > processor.max_length:
            raise UsageError(
                f"segments of {self.length} tokens, with {added} special ones, exceed the context of "
                f"{processor.max_length}: set --length {max(processor.max_length - added, 2)} or raise --max-length"
            )
        return stream(processor, row.text, self.parted)

    def added(self, processor: Processor) -> int:
        """Tokens that a model's input has beyond the segment's, at most."""
        return len(processor.sentence_ids([]))

    def prepare(self, examples: Several[Sequence], seed: int) -> Several[Sequence]:
        from teloi.data.segments import segments

        return segments(examples, self.length)
