"""A micro-batch in several padded parts, each for a loss of its own."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from typing import Any

from teloi.batch.sequence import Sequence, SequenceBatch


class JointBatch:
    """Parts by name, of the same examples or each of some of them; `batch["name"]` is padded by itself.

    Every micro-batch has all the parts, so that each process makes the same calls of a model whose weights lie in
    shards: where a part has no example, it stands for one without anything to score. `notes` is what a loss leaves for
    `after_step`.
    """

    def __init__(self, parts: Mapping[str, SequenceBatch], sequences: Several[Sequence]) -> None:
        """`sequences`: the examples, which say how large the batch is."""
        self.parts = dict(parts)
        self.sequences = tuple(sequences)
        self.notes: dict[str, Any] = {}

    def __getitem__(self, name: str) -> SequenceBatch:
        return self.parts[name]

    @property
    def counts(self) -> dict[str, int]:
        """What a `Term` may be averaged over: rows, scored tokens, and by its name the scored tokens of each part."""
        scored = {name: part.counts["tokens"] for name, part in self.parts.items()}
        return {"rows": len(self.sequences), "tokens": sum(scored.values()), **scored}

    @property
    def size(self) -> int:
        """Tokens of the examples, without padding."""
        return sum(sequence.size for sequence in self.sequences)
