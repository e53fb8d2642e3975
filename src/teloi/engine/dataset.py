"""From rows to examples: parsed, cast to what the objective reads, encoded; too long ones counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from teloi.data.casts import one_by_one
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.data.store import Store
from teloi.engine.examples import Examples, sizes
from teloi.engine.objective import Objective
from teloi.engine.progress import track_some
from teloi.errors import DataError, Overlong, RowError


@dataclass
class Encoded:
    """Examples of a data set for one objective."""

    examples: Sequence[Any]
    overlong: int = 0
    """Rows that were longer than the context and so dropped or truncated."""
    overlong_policy: str = "drop"

    def __str__(self) -> str:
        tokens = int(sizes(self.examples).sum())
        longer = f", {self.overlong} longer than the context {_PAST[self.overlong_policy]}" if self.overlong else ""
        size = f", {tokens:,} tokens" if tokens > len(self.examples) else ""  # arrays have none
        return f"{len(self.examples):,} examples{size}{longer}"


_PAST = {"drop": "dropped", "truncate": "truncated", "fail": "refused"}


def encode(objective: Objective, rows: Rows, processor: Processor, training: Sequence[Any] | None = None) -> Encoded:
    """Parse, cast and encode all rows; held-out ones with the examples that are trained on. DataError when a row is
    malformed or none is left."""
    truncated = processor.truncated
    encoded = Encoded([], overlong_policy=processor.overlong)
    # What an objective prepares is another thing than what it encodes: its contents are known only then.
    examples: Store[Any] = Examples() if type(objective).prepare is Objective.prepare else Store()
    for made in track_some(one_by_one(rows, objective.reads), len(rows), "tokenising"):
        for row in made:
            try:
                found = objective.encode(row, processor)
            except Overlong as error:
                if processor.overlong == "fail":
                    raise error.at(row.where or rows.name) from None
                encoded.overlong += 1
                continue
            except RowError as error:
                raise error.at(row.where or rows.name) from None
            for example in found if isinstance(found, list) else [found]:
                examples.append(example)
    encoded.overlong += processor.truncated - truncated
    if not examples and encoded.overlong:
        raise DataError(
            f"{rows.name}: no rows are left, all {encoded.overlong} are longer than {processor.max_length} tokens; "
            "raise --max-length or choose --overlong truncate"
        )
    if not examples:
        raise DataError(f"{rows.name}: no rows are left, none has a token to learn from")
    try:
        if training is None:
            encoded.examples = objective.prepare(examples.listed(), seed=0)
        else:
            encoded.examples = objective.prepare_held_out(examples.listed(), training, seed=0)
    except DataError as error:
        if isinstance(error, RowError):
            raise
        raise DataError(f"{rows.name}: {error}") from None
    return encoded
