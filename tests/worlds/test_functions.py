"""Functions do what their sentences say, and tests ask for what training never shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from teloi.data.read import read
from teloi.worlds import functions

KEPT: dict[str, Any] = {
    "numbers": lambda n: True,
    "even numbers": lambda n: n in range(-100, 100, 2),
    "odd numbers": lambda n: n in range(-99, 100, 2),
    "positive numbers": lambda n: n >= 1,
    "negative numbers": lambda n: n <= -1,
    "numbers above ten": lambda n: n >= 11,
    "numbers below ten": lambda n: n <= 9,
    "multiples of three": lambda n: n in range(-99, 100, 3),
}
CHANGED: dict[str, Any] = {
    "the": lambda n: n,
    "the squares of the": lambda n: n**2,
    "the doubles of the": lambda n: n + n,
    "the absolute values of the": lambda n: max(n, -n),
    "the opposites of the": lambda n: 0 - n,
    "the successors of the": lambda n: n - -1,
    "the last digits of the": lambda n: int(str(n)[-1]),
    "the lengths in digits of the": lambda n: len(str(n).strip("-")),
}
TOGETHER: dict[str, Any] = {
    "the sum of": sum,
    "a list of": list,
    "a sorted list of": sorted,
    "a set of": set,
    "the number of": len,
    "the largest of": lambda found: sorted(found)[-1],
    "the smallest of": lambda found: sorted(found)[0],
    "the first of": lambda found: found[0],
}
NUMBERS = [5, -12, 30, 0, 9, -7, 27, 4, -3, 11]


@pytest.mark.parametrize("whole", functions.WHOLES)
def test_code_does_what_its_sentence_says(whole: str) -> None:
    rng = np.random.default_rng(0)
    lines = set()
    for change in functions.CHANGES:
        for kept in functions.FILTERS:
            expected = TOGETHER[whole]([CHANGED[change](n) for n in NUMBERS if KEPT[kept](n)])
            for _ in range(4):
                head, body = functions.code(whole, change, kept, rng)
                scope: dict[str, Any] = {}
                exec(f"def f{head}\n{body}", scope)
                found = scope["f"](NUMBERS)
                assert type(found) is type(expected)
                assert found == expected, body
                lines.add(body.count("\n"))
    assert lines == {0, 3, 4}, "one expression, and loops with and without a condition"


def test_splits_share_no_meaning() -> None:
    meanings = {}
    for split in ("train", "test"):
        rows = list(functions.rows(split))
        meanings[split] = {row["anchor"].split(" ", 1)[1] for row in rows}
        assert all(row["anchor"] in row["text"] and row["anchor"] not in row["positive"] for row in rows)
    assert len(meanings["train"]) == 512 - functions.HELD_OUT
    assert not meanings["train"] & meanings["test"]


def test_the_embedded_data_is_what_is_made() -> None:
    for split in ("train", "test"):
        assert list(read("functions", split)) == list(functions.rows(split))
