"""The formats of texts in pairs: what belongs together, for encoders, and what differs in one point, to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from teloi.data.formats.base import Format, check_encodable, empty, kind, string_in, value_in
from teloi.errors import RowError


@dataclass(frozen=True)
class Pair(Format):
    """Two texts that belong together, in sentence-transformers' names; optional column `negative`: one that does not.

    Optional column `group`: rows of one group (one product, one occupation) are never each other's negatives.
    """

    name: ClassVar[str] = "pair"
    needs: ClassVar[tuple[str, ...]] = ("anchor", "positive")

    anchor: str
    positive: str
    negative: str | None = None

    @classmethod
    def about(cls) -> str:
        return f"{cls.name} rows (anchor, positive and, if there is one, negative)"

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        given = [*cls.needs, *(["negative"] if row.get("negative") is not None else [])]
        values = {name: string_in(row, name, cls) for name in given}
        return cls(**values, columns={k: v for k, v in row.items() if k not in (*cls.needs, "negative")}, where=where)


@dataclass(frozen=True)
class TitleSkills(Format):
    """A title and the skills (or any other attributes) that go with it, a list of texts.

    Optional column `group`: rows of one group (one occupation) are never each other's negatives.
    """

    name: ClassVar[str] = "title-skills"
    needs: ClassVar[tuple[str, ...]] = ("title", "skills")

    title: str
    skills: tuple[str, ...]

    @property
    def conversational(self) -> bool:
        return False

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        skills = value_in(row, "skills", cls)
        if not isinstance(skills, list | tuple):
            raise RowError(f"column 'skills' is {kind(skills)}, not a list of texts")
        if not skills:
            raise RowError(empty("skills"))
        for number, skill in enumerate(skills, 1):
            if not isinstance(skill, str) or not skill.strip():
                raise RowError(f"column 'skills', entry {number} is {kind(skill)}, not text")
            check_encodable(skill, f"column 'skills', entry {number}")
        columns = {k: v for k, v in row.items() if k not in cls.needs}
        return cls(string_in(row, "title", cls), tuple(skills), columns=columns, where=where)


@dataclass(frozen=True)
class MinimalPair(Format):
    """An acceptable sentence and one that differs from it in a single point and is not, to measure models by.

    Optional column `paradigm`: what the two differ in; figures are averaged over paradigms.
    """

    name: ClassVar[str] = "minimal-pair"
    needs: ClassVar[tuple[str, ...]] = ("good", "bad")

    good: str
    bad: str
    paradigm: str = ""

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        paradigm = string_in(row, "paradigm", cls) if row.get("paradigm") is not None else ""
        columns = {k: v for k, v in row.items() if k not in (*cls.needs, "paradigm")}
        good, bad = (string_in(row, name, cls) for name in cls.needs)
        return cls(good, bad, paradigm, columns=columns, where=where)
