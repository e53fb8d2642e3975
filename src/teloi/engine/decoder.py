"""What a decoder has to say so that the engine can write with it.

Like an objective it is a frozen dataclass: each field is a hyper-parameter and a flag of the command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from teloi.data.formats import Format, PromptOnly
from teloi.engine.config import TrainConfig
from teloi.engine.objective import Architecture

if TYPE_CHECKING:
    from teloi.batch.tree import Tree
    from teloi.data.processor import Processor
    from teloi.engine.objective import Now
    from teloi.models.roles import Models


class Decoder:
    """A way to answer prompts with a model that stays as it is."""

    reads: ClassVar[type[Format] | tuple[type[Format], ...]] = PromptOnly
    architecture: ClassVar[Architecture] = "causal"
    defaults: ClassVar[Mapping[str, Any]] = {}

    def encode(self, row: PromptOnly, processor: Processor) -> Tree:
        """A prompt without branches."""
        from teloi.data.encode import question

        return question(processor, row)

    def decode(self, models: Models, prompts: Sequence[Tree], now: Now) -> list[Tree]:
        """The prompts, each with one branch: its answer; column `finished`, bool [1], says whether it has an end token,
        and whatever other columns of one number an answer are worth knowing. All randomness comes from `now`."""
        raise TypeError(f"{type(self).__name__} must define decode(models, prompts, now)")


@dataclass(frozen=True)
class GenerateConfig:
    """Settings that every decoder shares."""

    output: Path = Path("answers.jsonl")
    """Where the answers go: rows of prompt and completion with the other columns of the prompt's row, which train and
    compare read."""
    model: str = TrainConfig.model
    """Hugging Face directory or hub id; "smollm2-135m-instruct" is the embedded model."""
    data: str | None = None
    """Prompts, in the forms that train reads; rows with answers are cast. Default: the embedded instructions."""
    split: str = "train"
    """Which part of a data set that has several."""
    limit: int | None = None
    """Read at most this many rows."""
    max_length: int = TrainConfig.max_length
    """Longest prompt in tokens; longer ones are left out and counted."""
    seed: int = 0
    """Seed of all samples."""
    overwrite: bool = False
    """Replace the output."""
