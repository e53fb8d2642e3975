"""Summaries in a made-up language: a topic stands for a text, a few words for its summary, and hidden utilities say
how good each word is for each topic.

What a summary is worth is known exactly, so that what people say of it, a learned reward and what is meant can be told
apart. A prompt is a topic, a response up to LONGEST words and an end. Everything is text of words with one blank
between them. NumPy only; a generator gives the same again.

Source: the laptop scale of Stiennon et al. 2020 (learning to summarize from human feedback).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOPICS = tuple(f"topic{number}" for number in range(8))
WORDS = tuple(f"w{number}" for number in range(24))

LONGEST = 4
"""Words of a response that ends in time."""
TOKENS = LONGEST + 1
"""What a model may write: a response and its end."""

COST, REPEATED, FOREIGN, UNFINISHED = 0.3, -0.8, -1.0, -1.0
"""What a word costs; what a word said again is worth, what no word of the language is, and what no end is."""

TASTE = 0.7
"""How strongly who writes references prefers useful words."""
CERTAINTY = 2.0
"""How surely who compares responses prefers the better one: the slope of the logistic in their difference."""

Utilities = np.ndarray
"""What each word says of each topic, [topics, words]."""


@dataclass(frozen=True)
class Response:
    """Words, and whether an end stood behind them. What is no word of the language is kept: it counts."""

    words: tuple[str, ...]
    finished: bool = True

    def __str__(self) -> str:
        return " ".join(self.words)


def vocabulary() -> list[str]:
    """Every word that a prompt or a response may hold."""
    return [*TOPICS, *WORDS]


def utilities(rng: np.random.Generator) -> Utilities:
    """A world: utilities drawn from a normal distribution."""
    return rng.normal(size=(len(TOPICS), len(WORDS)))


def worth(world: Utilities, topic: str, response: Response) -> float:
    """The utility of a response, summed over its words: what only the world knows."""
    total = 0.0 if response.finished else UNFINISHED
    said: set[str] = set()
    for word in response.words:
        if word not in WORDS:
            total += FOREIGN
        elif word in said:
            total += REPEATED
        else:
            total += world[TOPICS.index(topic), WORDS.index(word)] - COST
        said.add(word)
    return float(total)


def topics(count: int, rng: np.random.Generator) -> list[str]:
    """Prompts, all topics alike."""
    return [TOPICS[number] for number in rng.integers(len(TOPICS), size=count)]


def reference(world: Utilities, topic: str, rng: np.random.Generator) -> Response:
    """What somebody with taste writes: 2 to LONGEST different words, useful ones more often."""
    odds = np.exp(TASTE * world[TOPICS.index(topic)])
    words = rng.choice(WORDS, rng.integers(2, LONGEST + 1), replace=False, p=odds / odds.sum())
    return Response(tuple(str(word) for word in words))


def compared(
    world: Utilities,
    asked: Sequence[str],
    pairs: Sequence[tuple[Response, Response]],
    rng: np.random.Generator,
    flipped: float = 0.0,
) -> list[dict[str, str]]:
    """Rows of preferences: of two responses to a topic the better one is preferred with the probability sigmoid(
    CERTAINTY x their difference); a share `flipped` of the labels, drawn apart from them, says the contrary."""
    says, lies = rng.random((2, len(pairs)))
    rows = []
    for number, (topic, (one, other)) in enumerate(zip(asked, pairs, strict=True)):
        difference = worth(world, topic, one) - worth(world, topic, other)
        first = says[number] < 1 / (1 + np.exp(-CERTAINTY * difference))
        if first == (lies[number] < flipped):
            one, other = other, one
        rows.append({"prompt": topic, "chosen": f" {one}", "rejected": f" {other}"})
    return rows


def win_rate(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Share of responses that are worth more than another one to the same topic; equals count half."""
    gained = np.asarray(ours) - np.asarray(theirs)
    return float(((np.sign(gained) + 1) / 2).mean())
