"""Pairs of texts that documents label for free: from one paragraph or not, from one document or not.

Pure functions of documents and a generator (Di Liello et al., 2022, arXiv 2205.10455)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from teloi.errors import DataError

Task = Literal["ssp", "sp", "psd"]
Paragraph = tuple[str, ...]
"""Its sentences."""

_END = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""")
LEAST_WORDS = 4
"""A shorter piece is no sentence: what stands before "U.S. Congress", say."""


@dataclass(frozen=True)
class TextPair:
    """Two texts; label 1 where they belong together, 0 where not, and then whether the second is of the same document
    (hard) or of another one (easy)."""

    first: str
    second: str
    label: int
    negative: Literal["hard", "easy"] | None = None


@dataclass(frozen=True)
class Drawn:
    """The pairs, and how many documents gave none because nothing in them can be told from another paragraph."""

    pairs: list[TextPair]
    skipped: int


def sentences(paragraph: str) -> Paragraph:
    """A paragraph cut after its full stops; nothing is lost but the white space between sentences."""
    found: list[str] = []
    start = 0
    for end in _END.finditer(paragraph):
        # Closing quotes and brackets stay with the sentence that they close.
        stop = end.start() + len(end.group().rstrip())
        if len(paragraph[start:stop].split()) >= LEAST_WORDS:
            found.append(paragraph[start:stop].strip())
            start = end.end()
    rest = paragraph[start:].strip()
    if found and len(rest.split()) < LEAST_WORDS:
        found[-1] = f"{found[-1]} {rest}".strip()
    elif rest:
        found.append(rest)
    return tuple(found)


def draw_pairs(
    documents: Sequence[Sequence[Paragraph]], task: Task, rng: np.random.Generator, hard: int = 1, easy: int = 1
) -> Drawn:
    """For each paragraph one pair that belongs together and, with the same first text, `hard` and `easy` that do not.

    ssp: two sentences of a paragraph; the negatives' second is a sentence of another paragraph. sp: a sentence and the
    rest of its paragraph; the negatives' second is another paragraph without one of its sentences, so that lengths do
    not tell. psd: two paragraphs of a document; its negatives are all of other documents. No text of a pair overlaps
    the other. Paragraphs of one sentence take part in psd only; documents with fewer than two paragraphs are skipped
    and counted. Which paragraph a negative comes from is drawn evenly over paragraphs, as is a positive's: no document
    is met more often as one than as the other.

    DataError where there is nothing to draw from.
    """
    least = 1 if task == "psd" else 2
    whole = [[paragraph for paragraph in document if len(paragraph) >= least] for document in documents]
    usable = [document for document in whole if len(document) > 1]
    if not usable or (easy and len(usable) < 2):
        raise DataError(
            f"{len(usable)} of {len(documents)} documents have two paragraphs"
            + (" of at least two sentences" if least > 1 else "")
            + ": there is nothing to tell apart"
        )
    places = [(d, p) for d, document in enumerate(usable) for p in range(len(document))]
    of = np.asarray([d for d, _ in places])
    pairs = []
    for here, (d, p) in enumerate(places):
        same = np.flatnonzero(of == d)
        others, elsewhere = same[same != here], np.flatnonzero(of != d)
        paragraph = usable[d][p]
        picked = int(rng.integers(len(paragraph)))
        if task == "psd":
            first, positive = " ".join(paragraph), _second(task, _at(usable, places, others, rng), rng)
        else:
            first, rest = paragraph[picked], (*paragraph[:picked], *paragraph[picked + 1 :])
            positive = " ".join(rest) if task == "sp" else str(rng.choice(rest))
        pairs.append(TextPair(first, positive, 1))
        for _ in range(hard if task != "psd" else 0):
            pairs.append(TextPair(first, _second(task, _at(usable, places, others, rng), rng), 0, "hard"))
        for _ in range(easy):
            pairs.append(TextPair(first, _second(task, _at(usable, places, elsewhere, rng), rng), 0, "easy"))
    return Drawn(pairs, len(documents) - len(usable))


def _at(
    documents: Sequence[Sequence[Paragraph]],
    places: Sequence[tuple[int, int]],
    among: np.ndarray,
    rng: np.random.Generator,
) -> Paragraph:
    """One of these places' paragraphs."""
    d, p = places[int(rng.choice(among))]
    return documents[d][p]


def _second(task: Task, paragraph: Paragraph, rng: np.random.Generator) -> str:
    """What a pair takes of a paragraph that its first text is not of."""
    out = int(rng.integers(len(paragraph)))
    if task == "ssp":
        return paragraph[out]
    return " ".join(paragraph if task == "psd" else (*paragraph[:out], *paragraph[out + 1 :]))
