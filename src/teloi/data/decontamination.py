"""Which training rows hold what a test asks: n-gram decontamination (Lambert et al., 2024, section 3.2).

A token of a test prompt is *covered* by a training prompt where it lies in an n-gram that occurs in that prompt too.
The overlap of the two is the share of the test prompt's tokens that are covered, and a training row *matches* where it
is above a threshold. Tokens are words and single marks, in lower case. Paraphrases are not found, nor is a test prompt
of fewer than n tokens.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from teloi.errors import DataError, UsageError

if TYPE_CHECKING:
    from teloi.data.read import Rows

TOKEN = re.compile(r"\w+|[^\w\s]")
COLUMNS = ("prompt", "messages", "conversations", "question", "instruction", "text")
"""Where a prompt is looked for, in this order."""

N, THRESHOLD, TOUCHED = 8, 0.5, 0.02
"""Of the paper: tokens of an n-gram, overlap from which a row matches, share of test rows from which a set counts as
contaminated."""


@dataclass(frozen=True)
class Match:
    """A test row and a training row by their numbers, and the share of the test's tokens that is covered."""

    test: int
    train: int
    overlap: float


def tokens(text: str) -> list[str]:
    """Words and marks of a text, in lower case."""
    return TOKEN.findall(text.lower())


def overlaps(tests: Sequence[str], trains: Iterable[str], n: int = N) -> list[Match]:
    """Every pair of a test prompt and a training prompt that share an n-gram, by training prompt."""
    cut = [tokens(test) for test in tests]
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, words in enumerate(cut):
        for at in range(len(words) - n + 1):
            places[tuple(words[at : at + n])].append((number, at))
    found = []
    for train, text in enumerate(trains):
        words = tokens(text)
        covered: dict[int, set[int]] = defaultdict(set)
        for gram in {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}:
            for test, at in places.get(gram, ()):
                covered[test].update(range(at, at + n))
        found += [Match(test, train, len(which) / len(cut[test])) for test, which in sorted(covered.items())]
    return found


def matching(
    tests: Sequence[Sequence[str]], trains: Sequence[str], n: int = N, threshold: float = THRESHOLD
) -> list[Match]:
    """The pairs whose overlap, averaged over the fields of a test row (a question, its choices), is above the
    threshold."""
    owners = [number for number, fields in enumerate(tests) for _ in fields]
    sums: dict[tuple[int, int], float] = defaultdict(float)
    for one in overlaps([field for fields in tests for field in fields], trains, n):
        test = owners[one.test]
        sums[one.train, test] += one.overlap / len(tests[test])
    return [Match(test, train, overlap) for (train, test), overlap in sorted(sums.items()) if overlap > threshold]


def prompt_of(row: Mapping[str, Any], column: str | None = None) -> str:
    """What a row asks: of a conversation the user's turns. DataError where the row has no such column."""
    found = next((name for name in ([column] if column else COLUMNS) if row.get(name) is not None), None)
    if found is None:
        raise DataError(f"a row has no column {column or ' or '.join(COLUMNS)}: say which one holds the prompt")
    value = row[found]
    if isinstance(value, list):
        turns = [turn for turn in value if turn.get("role", turn.get("from")) in ("user", "human")]
        return "\n".join(str(turn.get("content", turn.get("value"))) for turn in turns)
    return str(value)


@dataclass(frozen=True)
class Report:
    """What matched, and the numbers of the training rows that are kept."""

    matches: Sequence[Match]
    kept: Sequence[int]
    trains: int
    tests: int

    @property
    def touched(self) -> float:
        """Share of the test rows that some training row matches."""
        return len({one.test for one in self.matches}) / max(self.tests, 1)

    def __str__(self) -> str:
        rows = len({one.train for one in self.matches})
        return (
            f"{rows:,} of {self.trains:,} training rows match {self.touched:.1%} of {self.tests:,} test rows; "
            f"{len(self.kept):,} are kept"
        )

    def summary(self, trains: Rows, tests: Rows) -> dict[str, Any]:
        """The same as JSON, with both rows of every match."""
        return {
            "training rows": self.trains,
            "kept": len(self.kept),
            "test rows": self.tests,
            "test rows matched": self.touched,
            "contaminated": self.touched > TOUCHED,
            "matches": [
                {
                    "overlap": round(one.overlap, 4),
                    "train": trains.where(one.train),
                    "test": tests.where(one.test),
                    "train row": dict(trains[one.train]),
                    "test row": dict(tests[one.test]),
                }
                for one in self.matches
            ],
        }


def decontaminate(
    trains: Rows,
    tests: Rows,
    *,
    n: int = N,
    threshold: float = THRESHOLD,
    touched: float = 0.0,
    train_column: str | None = None,
    test_columns: Sequence[str] = (),
) -> Report:
    """Which training rows match test rows, and which are kept: all that do not, or all where no more than the share
    `touched` of the test rows is matched."""
    if n < 1 or not 0 <= threshold < 1 or not 0 <= touched < 1:
        raise UsageError("n is at least 1; threshold and touched are shares from 0 to below 1")
    asked = [[prompt_of(row, column) for column in test_columns or (None,)] for row in tests]
    matches = matching(asked, [prompt_of(row, train_column) for row in trains], n, threshold)
    found = Report(matches, [], len(trains), len(tests))
    dropped = {one.train for one in matches} if found.touched > touched else set()
    return Report(matches, [i for i in range(len(trains)) if i not in dropped], len(trains), len(tests))
