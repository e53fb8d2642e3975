"""From one format of rows to another, explicitly.

`CASTS` is the whole table; longer ways are found by searching it (`route`). A cast turns one row into one or
several rows, only those to desirable rows and to compared answers may leave a row out; other columns and the place
of the row are kept. What a cast leaves behind it says in `loses`. Rendering messages to text needs a tokenizer: see
`Processor.standard`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from teloi.data.formats import (
    AnswerFeedback,
    Conversations,
    Document,
    ErrorSpans,
    Format,
    ImplicitPreference,
    LabelledText,
    LanguageModeling,
    Pair,
    Preference,
    PromptCompletion,
    PromptOnly,
    ScoredSegments,
    Text,
    TitleSkills,
    UnpairedPreference,
    detect,
    reply,
)
from teloi.data.read import Rows
from teloi.errors import CastError, DataError, RowError


@dataclass(frozen=True)
class Cast:
    """One entry of the table: how rows of `source` become rows of `target`, and what gets lost."""

    source: type[Format]
    target: type[Format]
    apply: Callable[[Any], Sequence[Format]]
    loses: str = ""


def _about(row: Format) -> dict[str, Any]:
    return {"columns": row.columns, "where": row.where}


def _chosen(row: Preference) -> list[Format]:
    return [PromptCompletion(row.prompt, row.chosen, **_about(row))]


def _both_sides(row: Preference) -> list[Format]:
    return [
        UnpairedPreference(row.prompt, row.chosen, True, **_about(row)),
        UnpairedPreference(row.prompt, row.rejected, False, **_about(row)),
    ]


def _common_start(row: ImplicitPreference) -> list[Format]:
    prompt, chosen, rejected = split_prompt(row.chosen, row.rejected)
    for name, value in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not value:
            problem = (
                "'chosen' and 'rejected' have no common start, so there is no prompt"
                if name == "prompt"
                else f"'{name}' has nothing after the common start of both sides"
            )
            raise RowError(problem, row.where)
    columns = {k: v for k, v in row.columns.items() if k != "prompt"}
    return [Preference(prompt, chosen, rejected, columns=columns, where=row.where)]


def _whole(row: PromptCompletion) -> list[Format]:
    return [LanguageModeling(_joined(row.prompt, row.completion), **_about(row))]


def _desirable(row: UnpairedPreference) -> list[Format]:
    return [PromptCompletion(row.prompt, row.completion, **_about(row))] if row.label else []


def _prompt(row: Preference | PromptCompletion | UnpairedPreference | ErrorSpans) -> list[Format]:
    return [PromptOnly(row.prompt, **_about(row))]


def _messages(row: Conversations) -> list[Format]:
    return [LanguageModeling(row.conversations, **_about(row))]


def _answer(row: PromptCompletion) -> list[Format]:
    return [Pair(_said(row.prompt, row), _said(row.completion, row), **_about(row))]


def _answers(row: Preference) -> list[Format]:
    return [Pair(*(_said(text, row) for text in (row.prompt, row.chosen, row.rejected)), **_about(row))]


def _said(text: Text, row: Format) -> str:
    """What one message says; encoders know no roles."""
    if isinstance(text, str):
        return text
    if len(text) != 1:
        raise RowError("a conversation of several messages is no text for an encoder; join them first", row.where)
    return str(text[0]["content"])


def _listed(row: TitleSkills) -> list[Format]:
    return [Pair(row.title, ", ".join(row.skills), **_about(row))]


def _judged(row: UnpairedPreference) -> list[Format]:
    prompt, completion = (_said(text, row) for text in (row.prompt, row.completion))
    return [LabelledText(prompt, str(row.label).lower(), completion, **_about(row))]


def _laid_out(row: Document) -> list[Format]:
    return [LanguageModeling("\n\n".join(row.paragraphs), **_about(row))]


def _parted(row: LanguageModeling) -> list[Format]:
    paragraphs = re.split(r"\n\s*\n", _said(row.text, row))
    return [Document(tuple(paragraphs), **_about(row))]


def _unscored(row: ScoredSegments) -> list[Format]:
    return [LanguageModeling("".join(row.texts), **_about(row))]


def _marked(row: AnswerFeedback) -> list[Format]:
    return [ErrorSpans(row.prompt, reply(row.answers[0], True), row.errors, **_about(row))]


def _compared(row: AnswerFeedback) -> list[Format]:
    return [Preference(row.prompt, reply(one, True), reply(other, True), **_about(row)) for one, other in row.better()]


def _golden(row: AnswerFeedback) -> list[Format]:
    return [PromptCompletion(row.prompt, reply(row.gold, True), **_about(row))]


def _asked(row: AnswerFeedback) -> list[Format]:
    return [PromptOnly(row.prompt, **_about(row))]


CASTS: tuple[Cast, ...] = (
    Cast(ImplicitPreference, Preference, _common_start),
    Cast(Preference, UnpairedPreference, _both_sides),
    Cast(Preference, PromptCompletion, _chosen, loses="the rejected side"),
    Cast(Preference, PromptOnly, _prompt, loses="both sides"),
    Cast(PromptCompletion, LanguageModeling, _whole, loses="where the completion begins"),
    Cast(PromptCompletion, PromptOnly, _prompt, loses="the completion"),
    Cast(UnpairedPreference, PromptCompletion, _desirable, loses="the rows whose label is false"),
    Cast(UnpairedPreference, PromptOnly, _prompt, loses="the completion and its label"),
    Cast(Conversations, LanguageModeling, _messages),
    Cast(PromptCompletion, Pair, _answer),
    Cast(Preference, Pair, _answers),
    Cast(TitleSkills, Pair, _listed, loses="where one skill ends and the next begins"),
    Cast(UnpairedPreference, LabelledText, _judged),
    Cast(Document, LanguageModeling, _laid_out),
    Cast(LanguageModeling, Document, _parted),
    Cast(ScoredSegments, LanguageModeling, _unscored, loses="the scores"),
    Cast(AnswerFeedback, ErrorSpans, _marked, loses="all answers but the first"),
    Cast(AnswerFeedback, Preference, _compared, loses="what is wrong with the answers, and where"),
    Cast(AnswerFeedback, PromptCompletion, _golden, loses="the answers and the feedback to them"),
    Cast(AnswerFeedback, PromptOnly, _asked, loses="the answers and the feedback to them"),
    Cast(ErrorSpans, PromptOnly, _prompt, loses="the completion and its errors"),
)


def split_prompt(chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """The longest common start of both sides, and what is left of each.

    Conversations are compared by message, strings by character; a space before the point where strings part
    belongs to the sides, because a prompt that ends in a space is tokenised unlike the text that it begins.
    """
    size = 0
    for left, right in zip(chosen, rejected, strict=False):
        if left != right:
            break
        size += 1
    parts = size < min(len(chosen), len(rejected))
    if parts and isinstance(chosen, str) and chosen[:size].endswith(" "):
        size -= 1
    return chosen[:size], chosen[size:], rejected[size:]


def route(source: type[Format], target: type[Format]) -> list[Cast]:
    """The shortest chain of casts from source to target, empty if they are the same; raises `CastError`."""
    found = _search(source, target)
    if found is None:
        raise CastError(f"{source.about()} cannot be turned into {target.about()}; {_what_casts_to(target)}")
    return found


def cast(rows: Iterable[Format], source: type[Format], target: type[Format]) -> list[Format]:
    """Rows of `source` as rows of `target`, in order; raises `CastError` if no chain leads there."""
    way = route(source, target)
    return [made for row in rows for made in _along(way, row)]


def choose(row: Mapping[str, Any], targets: Sequence[type[Format]]) -> tuple[type[Format], type[Format]]:
    """How rows like this one are read where any of `targets` will do: (source format, target format).

    A target whose columns are all there is taken as it is, the first in order; else the one with the shortest
    way by casts. Raises `RowError` (first column that is missing) if there is no way.
    """
    found = detect(row)
    for target in targets:
        # Columns alone would let a method imitate the completions that are labelled bad.
        labelled = target is PromptCompletion and found is UnpairedPreference
        mixed = target is Preference and found is ImplicitPreference
        if target.fits(row) and not labelled and not mixed:
            return target, target
    if found is not None:
        ways = {target: way for target in targets if (way := _search(found, target)) is not None}
        if ways:
            return found, min(ways, key=lambda target: len(ways[target]))
    target = targets[0]
    missing = next((name for name in target.needs if name not in row), target.needs[0])
    reads = " or ".join(target.about() for target in targets)
    raise RowError(f"column '{missing}' is missing; this method reads {reads}; {_what_casts_to(target)}")


def as_format(rows: Rows, targets: type[Format] | Sequence[type[Format]]) -> list[Format]:
    """All rows parsed and cast to a format that the method reads: `one_by_one`, in one list."""
    return [made for row in one_by_one(rows, targets) for made in row]


def one_by_one(rows: Rows, targets: type[Format] | Sequence[type[Format]]) -> Iterator[list[Format]]:
    """What becomes of each row, parsed and cast to a format that the method reads (the first row decides which).

    Raises `RowError` with file, row and column at the first row that does not fit, `DataError` in the end if none is
    left.
    """
    targets = (targets,) if isinstance(targets, type) else targets
    try:
        source, target = choose(rows[0], targets)
    except RowError as error:
        raise error.at(rows.where(0)) from None
    way = route(source, target)
    left = False
    for number, row in enumerate(rows):
        made = _along(way, source.parse(row, rows.where(number)))
        left = left or bool(made)
        yield made
    if not left:
        raise DataError(f"{rows.name}: no rows are left after the cast from {source.name} to {target.name}")


def _along(way: Sequence[Cast], row: Format) -> list[Format]:
    """What a chain of casts makes of a row."""
    made = [row]
    for step in way:
        made = [after for before in made for after in step.apply(before)]
    return made


def _joined(prompt: Text, completion: Text) -> Text:
    if isinstance(prompt, str):
        assert isinstance(completion, str)  # Format.parse refuses a mixture
        return prompt + completion
    assert isinstance(completion, list)
    return prompt + completion


def _search(source: type[Format], target: type[Format]) -> list[Cast] | None:
    ways: dict[type[Format], list[Cast]] = {source: []}
    queue = [source]
    for here in queue:
        for step in CASTS:
            if step.source is here and step.target not in ways:
                ways[step.target] = [*ways[here], step]
                queue.append(step.target)
    return ways.get(target)


def _what_casts_to(target: type[Format]) -> str:
    sources = dict.fromkeys(step.source for step in CASTS)
    others = [source.about() for source in sources if _search(source, target)]
    return f"it also takes {'; '.join(others)}" if others else "no other format can be cast to it"
