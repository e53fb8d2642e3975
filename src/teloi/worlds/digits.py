"""Digits that ought to count: in a response each is to be the successor (mod 8) of the one before it, the first that of
the prompt's digit. What a response is worth is known exactly, token by token and segment by segment.

Prompts and responses are digits with one blank between them. Rewards are by TRL's convention; places of segments are
those of tokens if each token is a digit. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teloi.data.formats import Text, plain

COUNT = 8
"""How many digits there are."""

LONG, SHORT = 40, 24
"""Digits that a response is to have: where it is worth something as a whole, and where its segments are."""

SEGMENT, LEAST = 4, 2
"""Digits of a segment, and how many of them must be successors in a good one."""

Located = list[tuple[int, float]]
"""Rewards of a response: the index of a token, and what it gets."""


def words() -> list[str]:
    """The whole vocabulary."""
    return [str(digit) for digit in range(COUNT)]


def rows(count: int, length: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Prompts of one digit, with completions of `length` digits in which anything may follow anything."""
    drawn = rng.integers(COUNT, size=(count, length + 1))
    return [{"prompt": str(first), "completion": " ".join(map(str, rest))} for first, *rest in drawn.tolist()]


def successors(prompt: Text, response: Text) -> NDArray[np.bool_]:
    """Which digits of a response are successors of those before them."""
    digits = np.asarray([*plain(prompt).split(), *plain(response).split()], int)
    found: NDArray[np.bool_] = digits[1:] == (digits[:-1] + 1) % COUNT
    return found


def share(prompt: Text, response: Text) -> float:
    """Share of successors among the digits that a long response has; what it does not say is none."""
    return float(successors(prompt, response)[:LONG].sum() / LONG)


def good(prompt: Text, response: Text) -> NDArray[np.bool_]:
    """Which segments of a short response have enough successors; what it does not say is none."""
    found = successors(prompt, response)[:SHORT]
    enough: NDArray[np.bool_] = np.pad(found, (0, SHORT - len(found))).reshape(-1, SEGMENT).sum(1) >= LEAST
    return enough


def distinct(response: Text) -> NDArray[np.bool_]:
    """Which segments of a short response are whole and have no digit twice."""
    digits = plain(response).split()
    return np.asarray([len(set(digits[i : i + SEGMENT])) == SEGMENT for i in range(0, SHORT, SEGMENT)], bool)


# -- rewards


def counting(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """8 times the share of successors, known at the end only."""
    return [COUNT * share(*pair) for pair in zip(prompts, completions, strict=True)]


def counting_of_another(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """The same with each response's reward given to the next one: nothing can be learnt from it."""
    found = counting(prompts, completions)
    return [*found[-1:], *found[:-1]]


def counting_by_segment(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[Located]:
    """+0.5 on the last token of each good segment, -0.5 on that of any other."""
    return [at_ends(good(*pair) - 0.5) for pair in zip(prompts, completions, strict=True)]


def counting_by_segment_of_another(
    prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
) -> list[Located]:
    """The same with each response's rewards given to the next one: nothing can be learnt from it."""
    found = counting_by_segment(prompts, completions)
    return [*found[-1:], *found[:-1]]


def counting_in_all(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """The sum of `counting_by_segment` on the last token."""
    return [float((good(*pair) - 0.5).sum()) for pair in zip(prompts, completions, strict=True)]


def repeating_by_segment(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[Located]:
    """-1 on the last token of each segment in which a digit comes twice."""
    return [at_ends(distinct(response) - 1.0) for response in completions]


def at_ends(values: NDArray[Any]) -> Located:
    """Values of segments, each on the last token of its own."""
    return [((j + 1) * SEGMENT - 1, value) for j, value in enumerate(values.tolist())]
