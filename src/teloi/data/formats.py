"""What a row of data means: the formats of TRL, by its names and columns, and ours where TRL has none.

A row is a dict; a format turns it into a frozen dataclass and says precisely what is wrong when it cannot:

    >>> Preference.parse({"prompt": "2+2=", "chosen": "4"}, "hh.jsonl row 17")
    Traceback (most recent call last):
    RowError: hh.jsonl row 17: column 'rejected' is missing; this method reads preference rows (prompt, ...)

Every text is either *standard* (a string) or *conversational* (a list of messages: dicts with `role` and
`content`). Columns that the format does not know stay in `columns`; where the row came from stays in `where`.
"""

from __future__ import annotations

import math
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
        values = {name: _flag(row, name) if name == "label" else _text(row, name, cls) for name in cls.needs}
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
            _text(row, column, cls),
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
        value = _present(row, "conversations", cls)
        if isinstance(value, list):
            value = [_renamed(message) for message in value]
        messages = _messages(value, "conversations") if isinstance(value, list) else None
        if messages is None:
            raise RowError(f"column 'conversations' is {_kind(value)}, not a list of messages")
        return cls(messages, columns={k: v for k, v in row.items() if k != "conversations"}, where=where)


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
        values = {name: _string(row, name, cls) for name in given}
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
        skills = _present(row, "skills", cls)
        if not isinstance(skills, list | tuple):
            raise RowError(f"column 'skills' is {_kind(skills)}, not a list of texts")
        if not skills:
            raise RowError(_empty("skills"))
        for number, skill in enumerate(skills, 1):
            if not isinstance(skill, str) or not skill.strip():
                raise RowError(f"column 'skills', entry {number} is {_kind(skill)}, not text")
            _encodable(skill, f"column 'skills', entry {number}")
        columns = {k: v for k, v in row.items() if k not in cls.needs}
        return cls(_string(row, "title", cls), tuple(skills), columns=columns, where=where)


@dataclass(frozen=True)
class Trajectory(Format):
    """What an agent went through: `states`, one more than `actions`, each a list of numbers; and the `instruction` it
    followed, where somebody wrote it down.

    Optional column `group`: trajectories of one group do the same thing, however it is worded.
    """

    name: ClassVar[str] = "trajectory"
    needs: ClassVar[tuple[str, ...]] = ("states", "actions")

    states: tuple[tuple[float, ...], ...]
    actions: tuple[tuple[float, ...], ...]
    instruction: str | None = None

    @property
    def conversational(self) -> bool:
        return False

    @classmethod
    def about(cls) -> str:
        return f"{cls.name} rows (states, actions and, where known, instruction)"

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        states, actions = (_vectors(row, name, cls) for name in cls.needs)
        if len(states) != len(actions) + 1:
            raise RowError(f"{len(states)} states and {len(actions)} actions: there is one state more than actions")
        instruction = _string(row, "instruction", cls) if row.get("instruction") is not None else None
        columns = {k: v for k, v in row.items() if k not in (*cls.needs, "instruction")}
        return cls(states, actions, instruction, columns=columns, where=where)


# From the most to the least specific: `detect` takes the first that fits.
_ORDER: tuple[type[Format], ...] = (
    Preference,
    ImplicitPreference,
    UnpairedPreference,
    PromptCompletion,
    Pair,
    TitleSkills,
    Trajectory,
    LanguageModeling,
    Conversations,
    PromptOnly,
)

FORMATS: dict[str, type[Format]] = {format.name: format for format in _ORDER}


def detect(row: Iterable[str] | Mapping[str, Any]) -> type[Format] | None:
    """The most specific format that a row (or a set of column names) has the columns for, or None.

    Some published preference sets carry the prompt as text beside two whole conversations; given a row, these
    are recognised as implicit-prompt preferences, as TRL does.
    """
    columns = set(row)
    if (
        isinstance(row, Mapping)
        and Preference.fits(columns)
        and isinstance(row["prompt"], str)
        and isinstance(row["chosen"], list)
    ):
        return ImplicitPreference
    return next((format for format in _ORDER if format.fits(columns)), None)


def _text(row: Mapping[str, Any], column: str, format: type[Format]) -> Text:
    value = _present(row, column, format)
    if isinstance(value, str):
        if not value.strip():
            raise RowError(_empty(column))
        _encodable(value, f"column '{column}'")
        return value
    if isinstance(value, list):
        return _messages(value, column)
    raise RowError(f"column '{column}' is {_kind(value)}, neither text nor a list of messages")


def _string(row: Mapping[str, Any], column: str, format: type[Format]) -> str:
    value = _text(row, column, format)
    if not isinstance(value, str):
        raise RowError(f"column '{column}' is a list of messages, not text")
    return value


def _vectors(row: Mapping[str, Any], column: str, format: type[Format]) -> tuple[tuple[float, ...], ...]:
    """A list of vectors of one length, at least one."""
    value = _present(row, column, format)
    if not isinstance(value, list | tuple) or not value:
        raise RowError(f"column '{column}' is {_kind(value)}, not a list of vectors")
    for number, vector in enumerate(value, 1):
        here = f"column '{column}', vector {number}"
        if not isinstance(vector, list | tuple) or not vector:
            raise RowError(f"{here} is {_kind(vector)}, not a list of numbers")
        if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in vector):
            raise RowError(f"{here} holds something that is no finite number")
        if len(vector) != len(value[0]):
            raise RowError(f"{here} has {len(vector)} numbers, the first has {len(value[0])}")
    return tuple(tuple(map(float, vector)) for vector in value)


def _present(row: Mapping[str, Any], column: str, format: type[Format]) -> Any:
    if column not in row:
        raise RowError(f"column '{column}' is missing; this method reads {format.about()}")
    if row[column] is None:
        raise RowError(_empty(column))
    return row[column]


def _messages(value: list[Any], column: str) -> list[Message]:
    if not value:
        raise RowError(_empty(column))
    for number, message in enumerate(value, 1):
        here = f"column '{column}', message {number}"
        if not isinstance(message, dict):
            raise RowError(f"{here} is {_kind(message)}, not a message with role and content")
        for key in ("role", "content"):
            if key not in message:
                raise RowError(f"{here} has no '{key}'")
        if not isinstance(message["role"], str):
            raise RowError(f"{here}: 'role' is {_kind(message['role'])}, not text")
        content = message["content"]
        if content is None and message.get("tool_calls"):
            continue
        if not isinstance(content, str):
            raise RowError(f"{here}: 'content' is {_kind(content)}, not text")
        if not content.strip() and message["role"] != "system":
            raise RowError(f"{here} is empty")
        _encodable(content, here)
    return value


def _renamed(message: Any) -> Any:
    if not isinstance(message, dict) or "from" not in message or "value" not in message:
        return message
    speakers = {"human": "user", "gpt": "assistant"}
    rest = {k: v for k, v in message.items() if k not in ("from", "value")}
    speaker = message["from"]
    role = speakers.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return {"role": role, "content": message["value"], **rest}


def _flag(row: Mapping[str, Any], column: str) -> bool:
    value = _present(row, column, UnpairedPreference)
    # A .csv file has only text.
    known = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise RowError(f"column '{column}' is {_kind(value)}, neither true nor false")


def _empty(column: str) -> str:
    return f"column '{column}' is empty; fill it or remove the row"


def _differ(chosen: Text, rejected: Text) -> None:
    if chosen == rejected:
        raise RowError(
            "'chosen' and 'rejected' are equal: a preference whose sides are equal says nothing; remove the row"
        )


def _encodable(text: str, here: str) -> None:
    # JSON can spell half of a surrogate pair, which is no character and which no tokenizer takes.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowError(f"{here} holds half of a surrogate pair (like \\ud800), which is no character") from None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "empty text" if not value.strip() else f"text ({value[:20]!r})"
    names: dict[type, str] = {bool: "true or false", dict: "an object", list: "a list"}
    if type(value) in names:
        return names[type(value)]
    return f"a number ({value})" if isinstance(value, int | float) else f"a {type(value).__name__}"
