"""The formats of classification: a text with its label, and documents whose structure gives labels for free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from teloi.data.formats.base import Format, check_encodable, empty, kind, string_in, value_in
from teloi.errors import RowError


@dataclass(frozen=True)
class LabelledText(Format):
    """A text, or a pair of texts, with the class that it belongs to.

    A label is text, a whole number, or true or false; what is read is its text ("pos", "1", "true"). The second text of
    a pair stands in `text_pair`, transformers' name for it; or `text` is a list of both.
    """

    name: ClassVar[str] = "labelled-text"
    needs: ClassVar[tuple[str, ...]] = ("text", "label")

    text: str
    label: str
    text_pair: str | None = None

    @property
    def conversational(self) -> bool:
        return False

    @classmethod
    def about(cls) -> str:
        return f"{cls.name} rows (text, label and, of a pair, text_pair)"

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        if isinstance(both := row.get("text"), list) and len(both) == 2 and all(isinstance(one, str) for one in both):
            row = {**row, "text": both[0], "text_pair": both[1]}
        second = string_in(row, "text_pair", cls) if row.get("text_pair") is not None else None
        columns = {k: v for k, v in row.items() if k not in (*cls.needs, "text_pair")}
        return cls(string_in(row, "text", cls), _label(row, cls), second, columns=columns, where=where)


@dataclass(frozen=True)
class Document(Format):
    """A document as the list of its paragraphs, which may be empty."""

    name: ClassVar[str] = "document"
    needs: ClassVar[tuple[str, ...]] = ("paragraphs",)

    paragraphs: tuple[str, ...]

    @property
    def conversational(self) -> bool:
        return False

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        paragraphs = value_in(row, "paragraphs", cls)
        if not isinstance(paragraphs, list | tuple):
            raise RowError(f"column 'paragraphs' is {kind(paragraphs)}, not a list of texts")
        for number, paragraph in enumerate(paragraphs, 1):
            if not isinstance(paragraph, str):
                raise RowError(f"column 'paragraphs', entry {number} is {kind(paragraph)}, not text")
            check_encodable(paragraph, f"column 'paragraphs', entry {number}")
        return cls(tuple(paragraphs), columns={k: v for k, v in row.items() if k not in cls.needs}, where=where)


def _label(row: Mapping[str, Any], format: type[Format]) -> str:
    value = value_in(row, "label", format)
    if isinstance(value, str):
        if not value.strip():
            raise RowError(empty("label"))
        check_encodable(value, "column 'label'")
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise RowError(f"column 'label' is {kind(value)}, neither text nor a whole number")
