"""What a row of data means: the formats of TRL, by its names and columns, and ours where TRL has none.

A row is a dict; a format turns it into a frozen dataclass and says precisely what is wrong when it cannot:

    >>> Preference.parse({"prompt": "2+2=", "chosen": "4"}, "hh.jsonl row 17")
    Traceback (most recent call last):
    RowError: hh.jsonl row 17: column 'rejected' is missing; this method reads preference rows (prompt, ...)

Columns that the format does not know stay in `columns`; where the row came from stays in `where`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from teloi.data.formats.base import Format, Message, Text, plain, reply
from teloi.data.formats.feedback import AnswerFeedback, ErrorSpans
from teloi.data.formats.labelled import Document, LabelledText
from teloi.data.formats.pairs import MinimalPair, Pair, TitleSkills
from teloi.data.formats.scored import ScoredSegments
from teloi.data.formats.text import (
    Conversations,
    ImplicitPreference,
    LanguageModeling,
    Preference,
    PromptCompletion,
    PromptOnly,
    UnpairedPreference,
)
from teloi.data.formats.trajectories import Trajectory

__all__ = [
    "FORMATS",
    "AnswerFeedback",
    "Conversations",
    "Document",
    "ErrorSpans",
    "Format",
    "ImplicitPreference",
    "LabelledText",
    "LanguageModeling",
    "Message",
    "MinimalPair",
    "Pair",
    "Preference",
    "PromptCompletion",
    "PromptOnly",
    "ScoredSegments",
    "Text",
    "TitleSkills",
    "Trajectory",
    "UnpairedPreference",
    "detect",
    "plain",
    "reply",
]

# From the most to the least specific: `detect` takes the first that fits.
_ORDER: tuple[type[Format], ...] = (
    AnswerFeedback,
    ErrorSpans,
    Preference,
    ImplicitPreference,
    UnpairedPreference,
    PromptCompletion,
    Pair,
    MinimalPair,
    TitleSkills,
    Trajectory,
    Document,
    ScoredSegments,
    LabelledText,
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
