"""A made-up language with an easy and a hard part, for what a small model can teach a larger one.

Easy: a chain of order two. The kinds of the two words before choose one of 64 distributions, from which the next word
is drawn: short-range, and so uncertain that many texts are needed to tell the distributions. Hard, and certain: lists
of symbols that are said twice, and sums of two numbers. Everything is words with a blank between them. NumPy only; a
generator gives the same texts again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Part = Literal["easy", "hard", "other"]

CHAIN = tuple(f"w{i}" for i in range(192))
SYMBOLS = tuple(f"s{i}" for i in range(40))
NUMBERS = tuple(f"n{i}" for i in range(16))
SAY, AGAIN, PLUS, IS = "say", "again", "plus", "is"

KINDS = 8
"""Kinds of words; 0 are those that no chain says."""
CONCENTRATION = 0.1
"""Of the Dirichlet distribution from which those of the chain are drawn."""
LISTED = (3, 6)
"""Symbols of a list, at least and at most: how far back its next one stands differs."""
RUN = (8, 24)
"""Words of a chain between two hard parts, at least and at most."""


def words() -> list[str]:
    """The whole vocabulary, each word once."""
    return [*CHAIN, *SYMBOLS, *NUMBERS, SAY, AGAIN, PLUS, IS]


@dataclass(frozen=True)
class Chain:
    """A language: the kind of each word, int [192], and cumulated probabilities of the next, [8, 8, 192]."""

    kinds: np.ndarray
    cumulated: np.ndarray

    def following(self, before: tuple[int, int], rng: np.random.Generator) -> int:
        """The next word's number after words of these kinds."""
        return int(np.searchsorted(self.cumulated[before], rng.random() * self.cumulated[before][-1], side="right"))


def chain(rng: np.random.Generator) -> Chain:
    """A language, drawn."""
    kinds = rng.integers(1, KINDS, len(CHAIN))
    probabilities = rng.dirichlet(np.full(len(CHAIN), CONCENTRATION), (KINDS, KINDS))
    return Chain(kinds, probabilities.cumsum(-1))


def texts(count: int, length: int, language: Chain, rng: np.random.Generator) -> list[tuple[list[str], list[Part]]]:
    """Texts of `length` words, with the part that each word belongs to: easy, hard, or other, which nothing foretells
    (what a list says first, the numbers of a sum, and the signs)."""
    made = []
    for _ in range(count):
        said: list[str] = []
        parts: list[Part] = []
        while len(said) < length:
            before = (0, 0)
            for _ in range(rng.integers(RUN[0], RUN[1] + 1)):
                word = language.following(before, rng)
                before = (before[1], int(language.kinds[word]))
                said.append(CHAIN[word])
                parts.append("easy")
            for hard, part in _hard(rng):
                said.append(hard)
                parts.append(part)
        made.append((said[:length], parts[:length]))
    return made


def _hard(rng: np.random.Generator) -> list[tuple[str, Part]]:
    """A list said twice or a sum, each as often."""
    if rng.random() < 0.5:
        listed = [str(symbol) for symbol in rng.choice(SYMBOLS, rng.integers(LISTED[0], LISTED[1] + 1), replace=False)]
        return [*((word, "other") for word in (SAY, *listed, AGAIN)), *((word, "hard") for word in listed)]
    one, other = rng.integers(len(NUMBERS), size=2)
    total = NUMBERS[(one + other) % len(NUMBERS)]
    return [*((word, "other") for word in (NUMBERS[one], PLUS, NUMBERS[other], IS)), (total, "hard")]
