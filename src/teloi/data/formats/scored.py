"""The format of documents whose segments were scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from teloi.data.formats.base import Format, check_encodable, kind, value_in
from teloi.errors import RowError


@dataclass(frozen=True)
class ScoredSegments(Format):
    """A document as its segments (sentences, lines), each with a score of how undesirable it is: lower is better.

    The document is the segments one after the other; blanks and line ends between them belong to the segments.
    """

    name: ClassVar[str] = "scored-segments"
    needs: ClassVar[tuple[str, ...]] = ("texts", "scores")

    texts: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def conversational(self) -> bool:
        return False

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        texts, scores = (value_in(row, name, cls) for name in cls.needs)
        for name, value in (("texts", texts), ("scores", scores)):
            if not isinstance(value, list | tuple):
                raise RowError(f"column '{name}' is {kind(value)}, not a list")
        if len(texts) != len(scores):
            raise RowError(f"{len(texts)} texts have {len(scores)} scores; every segment needs one")
        if not texts:
            raise RowError("the document has no segments; fill it or remove the row")
        for number, (text, score) in enumerate(zip(texts, scores, strict=True), 1):
            if not isinstance(text, str):
                raise RowError(f"column 'texts', entry {number} is {kind(text)}, not text")
            check_encodable(text, f"column 'texts', entry {number}")
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise RowError(f"column 'scores', entry {number} is {kind(score)}, not a finite number")
        columns = {k: v for k, v in row.items() if k not in cls.needs}
        return cls(tuple(texts), tuple(map(float, scores)), columns=columns, where=where)
