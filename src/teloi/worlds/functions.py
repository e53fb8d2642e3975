"""Small functions of lists of numbers, with a sentence that says what each returns: pairs of text and code whose
meaning is known, so that models of code have something to train on at once.

A function keeps some of the numbers, changes each, and puts them together, in one expression or in a loop. The test
split holds meanings that training never shows. `python -m teloi.worlds.functions FOLDER` writes the embedded data:
`anchor` is the sentence, `positive` the code under a name that says nothing, `text` a whole function with both.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

# what is kept, and when; what becomes of each, in words and in code
FILTERS = {
    "numbers": "",
    "even numbers": "{x} % 2 == 0",
    "odd numbers": "{x} % 2 == 1",
    "positive numbers": "{x} > 0",
    "negative numbers": "{x} < 0",
    "numbers above ten": "{x} > 10",
    "numbers below ten": "{x} < 10",
    "multiples of three": "{x} % 3 == 0",
}
CHANGES = {
    "the": "{x}",
    "the squares of the": "{x} * {x}",
    "the doubles of the": "2 * {x}",
    "the absolute values of the": "abs({x})",
    "the opposites of the": "-{x}",
    "the successors of the": "{x} + 1",
    "the last digits of the": "abs({x}) % 10",
    "the lengths in digits of the": "len(str(abs({x})))",
}


@dataclass(frozen=True)
class Whole:
    """How numbers are put together: as one expression of a generator {g}, or in a loop over expressions {e}."""

    short: str
    start: str
    step: str
    result: str


WHOLES = {
    "the sum of": Whole("sum({g})", "total = 0", "total += {e}", "total"),
    "a list of": Whole("[{g}]", "found = []", "found.append({e})", "found"),
    "a sorted list of": Whole("sorted({g})", "found = []", "found.append({e})", "sorted(found)"),
    "a set of": Whole("{{{g}}}", "found = set()", "found.add({e})", "found"),
    "the number of": Whole("len([{g}])", "count = 0", "count += 1", "count"),
    "the largest of": Whole("max({g})", "found = []", "found.append({e})", "max(found)"),
    "the smallest of": Whole("min({g})", "found = []", "found.append({e})", "min(found)"),
    "the first of": Whole("next({g})", "found = []", "found.append({e})", "found[0]"),
}
LISTS, ITEMS, VERBS = (
    ("values", "numbers", "items", "data"),
    ("x", "n", "value", "number"),
    ("Return", "Compute", "Give"),
)

HELD_OUT, VARIANTS = 51, 2
"""Meanings of the test split, of 512; rows of each meaning."""


def code(whole: str, change: str, kept: str, rng: np.random.Generator) -> tuple[str, str]:
    """Head and body of a function of that meaning, in a style and with names that are drawn."""
    name, x = rng.choice(LISTS), rng.choice(ITEMS)
    made, condition, each = WHOLES[whole], FILTERS[kept].format(x=x), CHANGES[change].format(x=x)
    if rng.random() < 0.5:
        generator = f"{each} for {x} in {name}" + (f" if {condition}" if condition else "")
        # `next` takes a generator, brackets of its own bring the others
        generator = f"({generator})" if made.short.startswith("next") else generator
        return f"({name}):", f"    return {made.short.format(g=generator)}"
    step = made.step.format(e=each)
    inner = f"        if {condition}:\n            {step}" if condition else f"        {step}"
    return f"({name}):", f"    {made.start}\n    for {x} in {name}:\n{inner}\n    return {made.result}"


def rows(split: str, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of the split "train" or "test", in random order."""
    rng = np.random.default_rng(seed)
    meanings = [list(product(WHOLES, CHANGES, FILTERS))[i] for i in rng.permutation(512)]
    chosen = meanings[HELD_OUT:] if split == "train" else meanings[:HELD_OUT]
    drawn = np.random.default_rng([seed, split == "test"])
    for i in drawn.permutation(VARIANTS * len(chosen)):
        whole, change, kept = chosen[i // VARIANTS]
        said = f"{drawn.choice(VERBS)} {whole} {change} {kept}."
        head, body = code(whole, change, kept, drawn)
        name = "_".join(word for word in f"{whole} {change} {kept}".split() if word not in ("the", "of", "a", "in"))
        text = f'def {name}{head}\n    """{said}"""\n{body}\n'
        yield {"anchor": said, "positive": f"def f{head}\n{body}\n", "text": text}


def main(folder: str) -> None:
    """Write train.jsonl.gz and test.jsonl.gz."""
    for split in ("train", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows(split))
        (Path(folder) / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
