"""Rock, paper, scissors in three words: a game of answers whose preferences go round in circles, so that no reward can
rank them.

An answer is three of six words, two of each class. Only the share of its words in each class counts: of two answers,
the one whose words beat more of the other's is likelier preferred. What beats most others depends on who plays, and the
game is small enough for every policy to be written down as a table of all 216 answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]

PROMPT = "choose"
CLASSES = 3
WORDS = ("rock", "paper", "scissors", "stone", "sheet", "shears")
"""The class of a word is its number modulo 3; each class beats the one before it, and the first one the last."""
LENGTH = 3
SHARPNESS = 2.5
"""An answer of one class beats that of the class before it with probability sigmoid of this, 0.92."""
BEATS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=np.float64)

ANSWERS = tuple(" ".join(words) for words in product(WORDS, repeat=LENGTH))


def shares(answer: str) -> Floats:
    """Share of an answer's words in each class; other words count as none. 0 in all where there are none."""
    classes = [WORDS.index(word) % CLASSES for word in answer.split() if word in WORDS]
    return np.bincount(classes, minlength=CLASSES) / max(len(classes), 1)


def preference(first: Floats, second: Floats) -> Floats:
    """P(first > second) from their shares, [a 3] and [b 3] -> [a b]."""
    found: Floats = expit(SHARPNESS * first @ BEATS @ second.T)
    return found


def judge(prompts: Sequence[str], completions: Sequence[Sequence[str]]) -> list[float]:
    """The game's own judge, by TRL's convention: the probability of the first of each pair."""
    pairs = (np.stack([shares(text) for text in pair]) for pair in completions)
    return [float(preference(pair[:1], pair[1:])[0, 0]) for pair in pairs]


def table() -> Floats:
    """P(i > j) of all answers, [216 216]."""
    every = np.stack([shares(answer) for answer in ANSWERS])
    return preference(every, every)


def drawn(count: int, classes: Sequence[float], rng: np.random.Generator) -> list[str]:
    """Answers whose words are drawn independently: a class by its chance, then either of its words."""
    picked = rng.choice(CLASSES, (count, LENGTH), p=classes) + CLASSES * rng.integers(2, size=(count, LENGTH))
    return [" ".join(WORDS[i] for i in row) for row in picked]
