"""Word problems whose answer a program checks: two steps of arithmetic told in invented verbs.

`kim has 5 . she blicks 3 . she dorps 2 .` says nothing of what the verbs do: each of them adds or takes away, and only
the worked answers `5 + 3 = 8 . 8 - 2 = 6 . #### 6` tell which. All numbers are from 0 to 13, everything is words with a
blank between them. NumPy only; a generator gives the same problems again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST = 13
"""The largest number."""
NAMES = ("kim", "lee", "noa", "sam")
_VERBS = "blicks dorps fips gavs huns jaks klems lorps mibs nuds pligs quems rofs sibs tiffs vots"
VERBS = tuple(_VERBS.split())
ANSWER = "####"
FILLER = ("so", "that", "is", "clear", ".")
"""A step that says nothing."""


@dataclass(frozen=True)
class Problem:
    """A number to start with, and steps: a verb, its sign and its number."""

    name: str
    start: int
    steps: tuple[tuple[str, int, int], ...]

    @property
    def answer(self) -> int:
        """What is left at the end."""
        return self.start + sum(sign * number for _, sign, number in self.steps)

    def prompt(self) -> str:
        """The problem in words."""
        told = [f"{self.name} has {self.start} .", *(f"she {verb} {number} ." for verb, _, number in self.steps)]
        return " ".join([*told, "how", "many", "?"])

    def worked(self, fillers: Sequence[int] = (0, 0)) -> str:
        """The answer with its steps, behind each of which stand so many steps that say nothing."""
        value, said = self.start, []
        for (_, sign, number), empty in zip(self.steps, fillers, strict=True):
            said.append(equation(value, sign, number))
            said += [" ".join(FILLER)] * empty
            value += sign * number
        return " ".join([*said, ANSWER, str(value)])

    def row(self, fillers: Sequence[int] = (0, 0)) -> dict[str, Any]:
        """Columns prompt, completion, and ground_truth for the verifier gsm8k. A blank parts the two texts."""
        return {
            "prompt": self.prompt(),
            "completion": f" {self.worked(fillers)}",
            "ground_truth": str(self.answer),
            "dataset": "gsm8k",
        }


def words() -> list[str]:
    """The whole vocabulary, each word once."""
    signs = ("has", "she", "how", "many", "?", ".", "+", "-", "=", ANSWER)
    return list(dict.fromkeys([*NAMES, *VERBS, *signs, *FILLER, *map(str, range(MOST + 1))]))


def signs(rng: np.random.Generator) -> dict[str, int]:
    """What each verb does, drawn: half of them add (+1), half take away (-1)."""
    drawn = rng.permutation([1, -1] * (len(VERBS) // 2))
    return {verb: int(sign) for verb, sign in zip(VERBS, drawn, strict=True)}


def equation(value: int, sign: int, number: int) -> str:
    """A step of arithmetic in words."""
    return f"{value} {'+' if sign > 0 else '-'} {number} = {value + sign * number} ."


def equations(count: int, rng: np.random.Generator) -> list[str]:
    """Bare steps of arithmetic, two of which make a text as a worked answer has them."""
    texts = []
    for _ in range(count):
        value, said = int(rng.integers(MOST + 1)), []
        for _ in range(2):
            sign = int(rng.choice([1, -1]))
            number = _number(value, sign, rng)
            said.append(equation(value, sign, number))
            value += sign * number
        texts.append(" ".join([*said, ANSWER, str(value)]))
    return texts


def problems(count: int, signs: dict[str, int], rng: np.random.Generator, without: Sequence[str] = ()) -> list[Problem]:
    """So many different problems of two steps, none of whose prompts is among `without`."""
    seen, made = set(without), list[Problem]()
    while len(made) < count:
        value = start = int(rng.integers(MOST + 1))
        steps = []
        for verb in rng.choice(VERBS, 2):
            sign = signs[str(verb)]
            number = _number(value, sign, rng)
            steps.append((str(verb), sign, number))
            value += sign * number
        one = Problem(str(rng.choice(NAMES)), start, tuple(steps))
        if one.prompt() not in seen:
            seen.add(one.prompt())
            made.append(one)
    return made


def _number(value: int, sign: int, rng: np.random.Generator) -> int:
    """A number that leads from a value to another one from 0 to MOST."""
    return int(rng.integers(MOST - value + 1 if sign > 0 else value + 1))
