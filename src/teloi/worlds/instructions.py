"""Checkable instructions: what a reply must look like, in words for the model and as a rule that a program decides.

In the manner of IFEval (Zhou et al., 2023), with rules and prompts of our own. A check is a dict: its `kind` and the
kind's arguments, e.g. `{"kind": "bullets", "count": 3}`. Three notions serve all rules:

- a *word* is a run of letters and digits, with apostrophes and hyphens inside it (`don't`, `well-known`);
- a *sentence* ends at `.`, `!` or `?` (one or several, closing quotes and brackets included) before white space or the
  end, or at a line break; it must hold a letter or a digit; what follows the last mark is a sentence too. So
  `e.g. this` counts as two;
- a *bullet point* is a line that begins with `-`, `*` or `•` and a space; a *numbered point* is a line that begins with
  its number (1, 2, ... in order), then `.` or `)`, then a space. Both hold a letter or a digit after that, and may be
  indented.

White space around a reply never counts. A reply without any letter or digit satisfies nothing. Words are compared
without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from teloi.errors import DataError

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)|\n")
BULLET = re.compile(r"\s*[-*•]\s.*[^\W_]")
NUMBERED = re.compile(r"\s*(\d+)[.)]\s.*[^\W_]")


@dataclass(frozen=True)
class Kind:
    """One kind of check: the rule, its description for a person, and ways to ask for it. `{name}` is an argument."""

    holds: Callable[..., bool]
    description: str
    requests: tuple[str, ...]
    also: str = ""
    """How to ask for it in addition to another check; empty where it does not go with others."""


def words(text: str) -> list[str]:
    """The words of a text, in lower case, with straight apostrophes."""
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its closing marks."""
    found, start = [], 0
    for end in [match.end() for match in SENTENCE_END.finditer(text)] + [len(text)]:
        found.append(text[start:end].strip())
        start = end
    return [sentence for sentence in found if WORD.search(sentence)]


def _lowercase(reply: str) -> bool:
    return not any(character.isupper() for character in reply)


def _uppercase(reply: str) -> bool:
    return not any(character.islower() for character in reply)


def _bullets(reply: str, count: int) -> bool:
    return sum(BULLET.match(line) is not None for line in reply.splitlines()) == count


def _numbered(reply: str, count: int) -> bool:
    numbers = [int(match[1]) for line in reply.splitlines() if (match := NUMBERED.match(line))]
    return numbers == list(range(1, count + 1))


def _sentences(reply: str, count: int) -> bool:
    return len(sentences(reply)) == count


def _question(reply: str) -> bool:
    return len(sentences(reply)) == 1 and reply.endswith("?")


def _quoted(reply: str) -> bool:
    return len(reply) > 2 and reply[0] in '"“' and reply[-1] in '"”'


def _max_words(reply: str, count: int) -> bool:
    return len(words(reply)) <= count


def _min_words(reply: str, count: int) -> bool:
    return len(words(reply)) >= count


def _starts_with(reply: str, word: str) -> bool:
    return words(reply)[0] == word.lower()


def _ends_with(reply: str, word: str) -> bool:
    return words(reply)[-1] == word.lower()


def _contains(reply: str, word: str) -> bool:
    return word.lower() in words(reply)


def _avoids(reply: str, word: str) -> bool:
    return word.lower() not in words(reply)


def _avoids_letter(reply: str, letter: str) -> bool:
    return letter.lower() not in reply.lower()


def _no_commas(reply: str) -> bool:
    return "," not in reply


KINDS: dict[str, Kind] = {
    "lowercase": Kind(
        _lowercase,
        "no capital letters",
        (
            "Answer in one short sentence, in lower case only.",
            "Please answer without any capital letters.",
            "One short sentence, all in lower case.",
        ),
    ),
    "uppercase": Kind(
        _uppercase,
        "capital letters only",
        (
            "Answer in capital letters only.",
            "One short sentence, capital letters only.",
            "Answer in one short sentence, capital letters only.",
        ),
    ),
    "bullets": Kind(
        _bullets,
        "exactly {count} bullet points",
        (
            "Answer with {count} short bullet points like this:{lines}",
            "Give exactly {count} short points in this form:{lines}",
        ),
    ),
    "numbered": Kind(
        _numbered,
        "a numbered list of exactly {count} points",
        (
            "Give {count} short points, numbered 1 to {count}.",
            "Answer with a numbered list of {count} items, a few words each.",
            "Make a numbered list of {count} very short points.",
        ),
    ),
    "sentences": Kind(
        _sentences,
        "exactly {count} sentences",
        ("Answer in exactly {count} short sentences.", "Use exactly {count} short sentences."),
        "Use exactly {count} short sentences.",
    ),
    "question": Kind(
        _question,
        "one sentence that ends with a question mark",
        ("Reply with one short question.", "Do not answer. Ask one short question about it instead."),
    ),
    "quoted": Kind(
        _quoted,
        "in double quotation marks",
        (
            'Reply in one short sentence like this: "..."',
            "Answer with one short sentence in double quotes.",
            'Write one short sentence, with "quotation marks" around it.',
        ),
    ),
    "max_words": Kind(
        _max_words,
        "at most {count} words",
        ("Use at most {count} words.", "Answer in no more than {count} words.", "Answer in {count} words or fewer."),
        "Use at most {count} words.",
    ),
    "min_words": Kind(
        _min_words,
        "at least {count} words",
        ("Use at least {count} words.", "Write one or two sentences of at least {count} words in total."),
        "Use at least {count} words.",
    ),
    "starts_with": Kind(
        _starts_with,
        'begins with the word "{word}"',
        (
            'Start your short answer with the word "{word}".',
            'Start your one-sentence answer with the word "{word}".',
        ),
    ),
    "ends_with": Kind(
        _ends_with,
        'ends with the word "{word}"',
        (
            'Answer in one short sentence that ends with the word "{word}".',
            'The last word of your short answer must be "{word}".',
        ),
    ),
    "contains": Kind(
        _contains,
        'contains the word "{word}"',
        (
            'Use the word "{word}" in one short sentence.',
            'Include the word "{word}" in one short sentence.',
            'Answer in one short sentence with the word "{word}".',
        ),
        'Include the word "{word}".',
    ),
    "avoids": Kind(
        _avoids,
        'does not contain the word "{word}"',
        (
            'Answer in one short sentence without the word "{word}".',
            'Answer in one short sentence. Do not use the word "{word}".',
        ),
        'Do not use the word "{word}".',
    ),
    "avoids_letter": Kind(
        _avoids_letter,
        'does not contain the letter "{letter}"',
        (
            'Answer in one short sentence without the letter "{letter}".',
            'Answer in one short sentence. Do not use the letter "{letter}".',
        ),
        'Do not use the letter "{letter}".',
    ),
    "no_commas": Kind(
        _no_commas,
        "no commas",
        ("Answer in one short sentence without commas.", "Answer in one short sentence. Do not use commas."),
        "Do not use commas.",
    ),
}


def check(check: Mapping[str, Any], reply: str) -> bool:
    """Whether a reply satisfies one check. DataError for a kind that does not exist or has other arguments."""
    kind, arguments = _known(check)
    reply = reply.strip()
    return bool(words(reply)) and kind.holds(reply, **arguments)


def satisfied(row: Mapping[str, Any], reply: str) -> bool:
    """Whether a reply satisfies all checks of a row (its column `checks`)."""
    checks: Sequence[Mapping[str, Any]] = row["checks"]
    return all(check(one, reply) for one in checks)


def describe(check: Mapping[str, Any]) -> str:
    """The check in words, e.g. `exactly 3 bullet points`."""
    kind, arguments = _known(check)
    return _singular(kind.description.format(**arguments))


def request(check: Mapping[str, Any], phrasing: int, also: bool = False) -> str:
    """How a prompt asks for a check: the phrasing of that number, or the one used in addition to another check."""
    kind, arguments = _known(check)
    text = kind.also if also else kind.requests[phrasing % len(kind.requests)]
    return _singular(text.format(**arguments, lines="\n- ..." * int(arguments.get("count", 0))))


def _singular(text: str) -> str:
    return text.replace("exactly 1 short sentences", "exactly one short sentence").replace(
        "exactly 1 sentences", "exactly one sentence"
    )


def _known(check: Mapping[str, Any]) -> tuple[Kind, dict[str, Any]]:
    name = check.get("kind")
    if name not in KINDS:
        raise DataError(f"no check of kind {name!r}: there are {', '.join(KINDS)}")
    kind = KINDS[name]
    # Readers that give all rows the same columns (parquet, datasets) fill the absent arguments with None.
    arguments = {key: value for key, value in check.items() if key != "kind" and value is not None}
    expected = set(re.findall(r"{(\w+)}", kind.description))
    if set(arguments) != expected:
        takes, given = (", ".join(sorted(names)) or "no arguments" for names in (expected, set(arguments)))
        raise DataError(f"a check of kind {name!r} takes {takes}, not {given}")
    return kind, arguments
