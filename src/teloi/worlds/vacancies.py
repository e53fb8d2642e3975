"""Pseudo-vacancies: job titles as people write them, skills that go with them, and the normalised title to be found.

Written for this project, so that encoders have something to train on at once; for a measured claim there are the O*NET
tables (CC BY 4.0). Each occupation has two test titles, which training never shows, as it never shows normalised
titles. `python -m teloi.worlds.vacancies FOLDER` writes the embedded data.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).with_name("vacancies.txt")
SKILLS_LISTED, TESTED = 6, 2
"""Skills that a row lists, titles of an occupation that are held out."""


def occupations() -> Iterator[tuple[str, list[str], list[str]]]:
    """(normalised title, titles, skills) of each occupation of the table."""
    for block in TABLE.read_text(encoding="utf-8").strip().split("\n\n"):
        name, titles, skills = block.split("\n")
        yield name, titles.split("; "), skills.split("; ")


def rows(split: str, seed: int = 0) -> list[dict[str, Any]]:
    """Rows `title`, `skills` (some of the occupation's), `normalized`, `group`; of the split "train" or "test"."""
    rng = np.random.default_rng([seed, split == "test"])
    made = []
    for name, titles, skills in occupations():
        for title in titles[TESTED:] if split == "train" else titles[:TESTED]:
            listed = [skills[i] for i in rng.permutation(len(skills))[:SKILLS_LISTED]]
            made.append({"title": title, "skills": listed, "normalized": name, "group": name})
    return [made[i] for i in rng.permutation(len(made))]


def main(folder: str) -> None:
    """Write train.jsonl and test.jsonl."""
    for split in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in rows(split))
        (Path(folder) / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
