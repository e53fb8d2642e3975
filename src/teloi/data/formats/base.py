"""The base of all formats, and what reads a column of a row: each raises `RowError` with what is wrong.

Every text is either *standard* (a string) or *conversational* (a list of messages: dicts with `role` and
`content`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeAlias

from teloi.errors import RowError

Message: TypeAlias = dict[str, Any]
Text: TypeAlias = str | list[Message]


@dataclass(frozen=True, kw_only=True)
class Format:
    """The base of all formats: `columns` are the row's other columns, `where` is its place."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    columns: Mapping[str, Any] = field(default_factory=dict)
    where: str | None = field(default=None, compare=False)

    @classmethod
    def fits(cls, columns: Iterable[str]) -> bool:
        """Whether rows with these columns have all that the format needs."""
        return set(cls.needs) <= set(columns)

    @classmethod
    def parse(cls, row: Mapping[str, Any], where: str | None = None) -> Self:
        """Read a row; raises `RowError` with the column and what is wrong with it."""
        try:
            parsed = cls._parse(row, where)
            parsed._check()
        except RowError as error:
            raise error.at(where) if where else error from None
        return parsed

    @classmethod
    def about(cls) -> str:
        """The format in words: "preference rows (prompt, chosen, rejected)"."""
        return f"{cls.name} rows ({', '.join(cls.needs)})"

    @property
    def conversational(self) -> bool:
        """Whether the texts of this row are lists of messages."""
        return any(isinstance(getattr(self, name), list) for name in self.needs)

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        values = {name: text_in(row, name, cls) for name in cls.needs}
        return cls(**values, columns={k: v for k, v in row.items() if k not in cls.needs}, where=where)

    def _check(self) -> None:
        texts = {name: value for name in self.needs if isinstance(value := getattr(self, name), str | list)}
        kinds = {isinstance(value, str) for value in texts.values()}
        if len(kinds) > 1:
            said = ", ".join(f"'{k}' is {'text' if isinstance(v, str) else 'messages'}" for k, v in texts.items())
            raise RowError(f"text and messages do not mix in one row: {said}")
        if self.conversational and self.columns.get("tools"):
            raise RowError("column 'tools' holds tools, which teloi does not render; remove them")
        prompt = getattr(self, "prompt", None)
        for name, value in texts.items():
            if name != "prompt" and isinstance(value, list) and prompt and value[: len(prompt)] == prompt:
                raise RowError(f"column '{name}' repeats the prompt; it should hold only the reply's messages")


def plain(text: Text) -> str:
    """What a text says, standard or conversational: of messages their contents, one after the other."""
    return text if isinstance(text, str) else "".join(message["content"] for message in text)


def reply(text: str, conversational: bool) -> Text:
    """An answer in the form of its row: the text itself, or a list of one message."""
    return [{"role": "assistant", "content": text}] if conversational else text


def text_in(row: Mapping[str, Any], column: str, format: type[Format]) -> Text:
    """A column's text or messages."""
    value = value_in(row, column, format)
    if isinstance(value, str):
        if not value.strip():
            raise RowError(empty(column))
        check_encodable(value, f"column '{column}'")
        return value
    if isinstance(value, list):
        return messages_in(value, column)
    raise RowError(f"column '{column}' is {kind(value)}, neither text nor a list of messages")


def string_in(row: Mapping[str, Any], column: str, format: type[Format]) -> str:
    """A column's text, where messages will not do."""
    value = text_in(row, column, format)
    if not isinstance(value, str):
        raise RowError(f"column '{column}' is a list of messages, not text")
    return value


def value_in(row: Mapping[str, Any], column: str, format: type[Format]) -> Any:
    """What a column holds, if it is there and not null."""
    if column not in row:
        raise RowError(f"column '{column}' is missing; this method reads {format.about()}")
    if row[column] is None:
        raise RowError(empty(column))
    return row[column]


def messages_in(value: list[Any], column: str) -> list[Message]:
    """The messages that a list must be: each with a role and a content."""
    if not value:
        raise RowError(empty(column))
    for number, message in enumerate(value, 1):
        here = f"column '{column}', message {number}"
        if not isinstance(message, dict):
            raise RowError(f"{here} is {kind(message)}, not a message with role and content")
        for key in ("role", "content"):
            if key not in message:
                raise RowError(f"{here} has no '{key}'")
        if not isinstance(message["role"], str):
            raise RowError(f"{here}: 'role' is {kind(message['role'])}, not text")
        content = message["content"]
        if content is None and message.get("tool_calls"):
            continue
        if not isinstance(content, str):
            raise RowError(f"{here}: 'content' is {kind(content)}, not text")
        if not content.strip() and message["role"] != "system":
            raise RowError(f"{here} is empty")
        check_encodable(content, here)
    return value


def empty(column: str) -> str:
    """What is said of a column that holds nothing."""
    return f"column '{column}' is empty; fill it or remove the row"


def check_encodable(text: str, here: str) -> None:
    """Raise where a text holds half of a surrogate pair: JSON can spell it, but it is no character to any tokenizer."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(f"{here} holds half of a surrogate pair (like \\ud800), which is no character") from None


def kind(value: Any) -> str:
    """A value in the words of an error message: "an object", "text ('4')"."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "empty text" if not value.strip() else f"text ({value[:20]!r})"
    names: dict[type, str] = {bool: "true or false", dict: "an object", list: "a list"}
    if type(value) in names:
        return names[type(value)]
    return f"a number ({value})" if isinstance(value, int | float) else f"a {type(value).__name__}"
