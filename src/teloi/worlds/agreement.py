"""Sentences of a small grammar of agreement, and minimal pairs: a corpus for models that learn from few words.

A verb agrees with its subject in number, and so does a reflexive, whatever nouns stand between: "the owl near the old
dogs sees itself ." A minimal pair is such a sentence and the same with the number of one word wrong, in BLiMP's columns
`paradigm`, `good` and `bad`. Everything is words with a blank between them, so that a tokenizer may have one token a
word. NumPy only; a generator gives the same sentences again.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Literal

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    "dog cat horse goat duck crow owl rabbit badger otter beaver bear robot engine kitten puppy lion tiger whale eagle"
)
"""Their plural ends in s."""
ADJECTIVES = _words("old young big small quiet brave clever happy hungry proud")
PREPOSITIONS = _words("near behind beside above")
TRANSITIVE = _words("see like help hurt follow hear")
"""Their third person ends in s, as that of all verbs here does."""
INTRANSITIVE = _words("sleep run wait jump rest hide")
COPULA, REFLEXIVE = ("is", "are"), ("itself", "themselves")

PARADIGMS = ("verb", "verb behind attractor", "reflexive", "reflexive behind attractor")
"""What is wrong in a pair, and whether another noun, of the other number, stands between it and its subject."""

Wrong = Literal["verb", "reflexive"]


@dataclass(frozen=True)
class Phrase:
    """A noun with its article, and with an adjective or none."""

    noun: str
    plural: bool
    adjective: str | None

    @property
    def words(self) -> list[str]:
        return ["the", *([self.adjective] if self.adjective else []), self.noun + "s" * self.plural]


@dataclass(frozen=True)
class Sentence:
    """A subject, what stands between it and its verb (a preposition and a phrase each), the verb in both numbers, and
    what follows: a phrase, an adjective, a reflexive in both numbers, or nothing."""

    subject: Phrase
    between: tuple[tuple[str, Phrase], ...]
    verb: tuple[str, str]
    rest: Phrase | str | tuple[str, str] | None

    def text(self, wrong: Wrong | None = None) -> str:
        """The sentence, with the number of one word `wrong`."""
        plural = self.subject.plural
        words = list(self.subject.words)
        for preposition, phrase in self.between:
            words += [preposition, *phrase.words]
        words.append(self.verb[plural != (wrong == "verb")])
        match self.rest:
            case Phrase():
                words += self.rest.words
            case str():
                words.append(self.rest)
            case (_, _):
                words.append(self.rest[plural != (wrong == "reflexive")])
        return " ".join([*words, "."])


def words() -> list[str]:
    """The whole vocabulary, each word once."""
    inflected = (*NOUNS, *TRANSITIVE, *INTRANSITIVE)
    return [
        *("the", "."),
        *(form for word in inflected for form in (word, word + "s")),
        *(*ADJECTIVES, *PREPOSITIONS, *COPULA, *REFLEXIVE),
    ]


def sentences(count: int, rng: np.random.Generator, known: Container[str] = ()) -> list[str]:
    """So many different ones that are not among the `known`."""
    found: dict[str, None] = {}
    while len(found) < count:
        text = draw(rng).text()
        if text not in known:
            found[text] = None
    return list(found)


def minimal_pairs(each: int, rng: np.random.Generator, known: Container[str] = ()) -> list[dict[str, str]]:
    """So many pairs of each paradigm; none of their good sentences is among the `known`."""
    found: dict[str, dict[str, str]] = {}
    for paradigm in PARADIGMS:
        wrong: Wrong = "verb" if paradigm.startswith("verb") else "reflexive"
        aim = len(found) + each
        while len(found) < aim:
            drawn = draw(rng)
            if paradigm_of(drawn, wrong) == paradigm and (good := drawn.text()) not in known:
                found.setdefault(f"{wrong} {good}", {"paradigm": paradigm, "good": good, "bad": drawn.text(wrong)})
    return list(found.values())


def paradigm_of(drawn: Sentence, wrong: Wrong) -> str | None:
    """The paradigm in which this word of a sentence may be wrong; None where it has no such word, or where a noun that
    stands between agrees with the subject."""
    if wrong == "reflexive" and drawn.rest != REFLEXIVE:
        return None
    if not drawn.between:
        return wrong
    return f"{wrong} behind attractor" if all(p.plural != drawn.subject.plural for _, p in drawn.between) else None


def draw(rng: np.random.Generator) -> Sentence:
    """A sentence: half of them have one phrase or two between subject and verb; a third of the transitive verbs have a
    reflexive."""
    between = rng.choice(3, p=(0.5, 0.35, 0.15))
    phrases = [phrase(rng) for _ in range(2 + between)]
    attractors = tuple((str(rng.choice(PREPOSITIONS)), one) for one in phrases[2:])
    match rng.choice(3, p=(0.6, 0.2, 0.2)):
        case 0:
            rest: Phrase | tuple[str, str] = REFLEXIVE if rng.random() < 1 / 3 else phrases[1]
            return Sentence(phrases[0], attractors, forms(str(rng.choice(TRANSITIVE))), rest)
        case 1:
            return Sentence(phrases[0], attractors, forms(str(rng.choice(INTRANSITIVE))), None)
    return Sentence(phrases[0], attractors, COPULA, str(rng.choice(ADJECTIVES)))


def phrase(rng: np.random.Generator) -> Phrase:
    """A noun in either number; two of five have an adjective."""
    adjective = str(rng.choice(ADJECTIVES)) if rng.random() < 0.4 else None
    return Phrase(str(rng.choice(NOUNS)), bool(rng.random() < 0.5), adjective)


def forms(verb: str) -> tuple[str, str]:
    """Singular and plural of a verb's third person."""
    return verb + "s", verb
