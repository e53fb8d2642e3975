"""Stories whose errors are marked: insults, and sentences that have been said before. Where an error is, is exact.

Sentences are those of `teloi.worlds.stories`. NumPy only; a generator gives the same stories again. `python -m
teloi.worlds.marked_stories FOLDER` writes the embedded data set of this name.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from teloi.worlds.stories import BEINGS, INSULTS, sentence

SENTENCES = (4, 8)
"""Sentences of a story, at least and at most."""
RUDE, REPEATED = 0.25, 0.2
"""How often a sentence is rude, and how often it is one that came before."""


def marked_stories(count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows `prompt`, `completion` and `errors` of the types "Rude" (the insult) and "Redundant" (the sentence)."""
    made = []
    for _ in range(count):
        told: list[str] = []
        text = ""
        errors = []
        for _ in range(rng.integers(SENTENCES[0], SENTENCES[1] + 1)):
            again = bool(told) and rng.random() < REPEATED
            one = told[rng.integers(len(told))] if again else sentence(bool(rng.random() < RUDE), rng)
            start = len(text) + (1 if text else 0)
            text = f"{text} {one}".lstrip()
            told.append(one)
            if again:
                errors.append({"start": start, "end": len(text), "type": "Redundant"})
            at = start
            for word in one.split():
                if word in INSULTS:
                    errors.append({"start": at, "end": at + len(word), "type": "Rude"})
                at += len(word) + 1
        prompt = f"Tell me a story of the {BEINGS[rng.integers(len(BEINGS))]}."
        made.append({"prompt": prompt, "completion": text, "errors": errors})
    return made


def rows(split: str, seed: int = 0) -> list[dict[str, Any]]:
    """The embedded data set: 400 stories to train on, 60 to test."""
    rng = np.random.default_rng(seed)
    train, test = (marked_stories(count, rng) for count in (400, 60))
    return train if split == "train" else test


def main(folder: str) -> None:
    """Write train.jsonl.gz and test.jsonl.gz."""
    for split in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows(split))
        (Path(folder) / f"{split}.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
