"""Short documents with paragraphs: advertisements in four, what the job is called, its day, what is asked for, how to
apply.

Made of the table of `teloi.worlds.vacancies`, so that objectives over the structure of documents have something to
train on at once. `python -m teloi.worlds.occupations FOLDER` writes the embedded data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from teloi.worlds.vacancies import occupations

HELD_OUT = 6
"""Occupations that only the test split has."""

NAMES = (
    "Most of our people call the job {0}.",
    "Elsewhere it is advertised as {1}.",
    "If your last contract said {2}, you are right here.",
)
DAY = (
    "A day begins with {0}, and it may end with that too.",
    "Before noon there is time for {1}.",
    "What is left of the day goes to {2}.",
)
WANTED = (
    "Nobody is hired without {3}.",
    "We will ask you about {4} when we meet.",
    "Some years of {5} are welcome, but {6} can be learned here.",
)
APPLYING = (
    "Write to us in a page how you came to {7}.",
    "Send along what shows your {8}.",
    "Former work as {title} counts double.",
)


def rows(split: str, seed: int = 0) -> list[dict[str, Any]]:
    """Rows `title`, `paragraphs`; of the split "train" or "test"."""
    rng = np.random.default_rng(seed)
    made = []
    for name, titles, skills in occupations():
        title, skill = ([some[i] for i in rng.permutation(len(some))] for some in (titles, skills))
        made.append(
            {
                "title": name,
                "paragraphs": [
                    " ".join(NAMES).format(*title),
                    " ".join(DAY).format(*skill),
                    " ".join(WANTED).format(*skill),
                    " ".join(APPLYING).format(*skill, title=title[3]),
                ],
            }
        )
    order = rng.permutation(len(made))
    return [made[i] for i in (order[HELD_OUT:] if split == "train" else order[:HELD_OUT])]


def main(folder: str) -> None:
    """Write train.jsonl and test.jsonl."""
    for split in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows(split))
        (Path(folder) / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
