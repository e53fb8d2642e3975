"""The formats of texts: TRL's, by its names and columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from teloi.data.formats.base import Format, Message, Text, kind, messages_in, text_in, value_in
from teloi.errors import RowError


@dataclass(frozen=True)
class LanguageModeling(Format):
    """Text as such. Column `text`, or `messages` where it is a conversation."""

    name: ClassVar[str] = "language-modeling"
    needs: ClassVar[tuple[str, ...]] = ("text",)

    text: Text

    @classmethod
    def fits(cls, columns: Iterable[str]) -> bool:
        return bool({"text", "messages"} & set(columns))

    @classmethod
    def about(cls) -> str:
        return f"{cls.name} rows (text, or messages)"

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        column = "messages" if row.get("messages") is not None else "text"
        return cls(
            text_in(row, column, cls),
            columns={k: v for k, v in row.items() if k not in ("text", "messages")},
            where=where,
        )


@dataclass(frozen=True)
class PromptOnly(Format):
    """A prompt without an answer: for methods that sample their own."""

    name: ClassVar[str] = "prompt-only"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: Text


@dataclass(frozen=True)
class PromptCompletion(Format):
    """A prompt and the answer to imitate."""

    name: ClassVar[str] = "prompt-completion"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion")

    prompt: Text
    completion: Text


@dataclass(frozen=True)
class Preference(Format):
    """A prompt with a better and a worse answer, which differ."""

    name: ClassVar[str] = "preference"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "rejected")

    prompt: Text
    chosen: Text
    rejected: Text

    def _check(self) -> None:
        super()._check()
        _differ(self.chosen, self.rejected)


@dataclass(frozen=True)
class ImplicitPreference(Format):
    """A preference whose sides both begin with the prompt."""

    name: ClassVar[str] = "implicit-prompt preference"
    needs: ClassVar[tuple[str, ...]] = ("chosen", "rejected")

    chosen: Text
    rejected: Text

    def _check(self) -> None:
        super()._check()
        _differ(self.chosen, self.rejected)


@dataclass(frozen=True)
class UnpairedPreference(Format):
    """A prompt and an answer that is good (`label` true) or bad (false)."""

    name: ClassVar[str] = "unpaired-preference"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "completion", "label")

    prompt: Text
    completion: Text
    label: bool

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        texts = {name: text_in(row, name, cls) for name in ("prompt", "completion")}
        columns = {k: v for k, v in row.items() if k not in cls.needs}
        return cls(**texts, label=_flag(row, "label"), columns=columns, where=where)


@dataclass(frozen=True)
class Conversations(Format):
    """A conversation in ShareGPT's form: column `conversations`, messages with `from` and `value`.

    Its speakers "human" and "gpt" become the roles "user" and "assistant".
    """

    name: ClassVar[str] = "conversations"
    needs: ClassVar[tuple[str, ...]] = ("conversations",)

    conversations: list[Message]

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        value = value_in(row, "conversations", cls)
        if isinstance(value, list):
            value = [_renamed(message) for message in value]
        messages = messages_in(value, "conversations") if isinstance(value, list) else None
        if messages is None:
            raise RowError(f"column 'conversations' is {kind(value)}, not a list of messages")
        return cls(messages, columns={k: v for k, v in row.items() if k != "conversations"}, where=where)


def _renamed(message: Any) -> Any:
    if not isinstance(message, dict) or "from" not in message or "value" not in message:
        return message
    speakers = {"human": "user", "gpt": "assistant"}
    rest = {k: v for k, v in message.items() if k not in ("from", "value")}
    speaker = message["from"]
    role = speakers.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return {"role": role, "content": message["value"], **rest}


def _differ(chosen: Text, rejected: Text) -> None:
    if chosen == rejected:
        raise RowError(
            "'chosen' and 'rejected' are equal: a preference whose sides are equal says nothing; remove the row"
        )


def _flag(row: Mapping[str, Any], column: str) -> bool:
    value = value_in(row, column, UnpairedPreference)
    # A .csv file has only text.
    known = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise RowError(f"column '{column}' is {kind(value)}, neither true nor false")
