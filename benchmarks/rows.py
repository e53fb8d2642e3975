"""The model and the rows that both sides get. Nothing here imports torch: the command picks rows, the sides' processes
train on them.

`hh-harmless` and `onet-titles` are read through TELOI_DATA."""

from __future__ import annotations

import gzip
import json
import os
import random
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from teloi.data.read import read

Row = dict[str, Any]


def arguments(parser: ArgumentParser) -> None:
    """The options of benchmarks on a causal model and texts."""
    parser.add_argument("--model", default="smollm2-135m-instruct", help="directory or name of a causal model")
    parser.add_argument("--data", default="hh-harmless", help="preference pairs that texts and lengths are taken from")


def model(options: Namespace, architecture: str = "causal") -> str:
    """The model that the options ask for."""
    return str(Path(options.scratch) / architecture) if options.tiny else str(options.model)


def source(options: Namespace) -> str:
    """The data that the options ask for; tiny models read what comes with teloi."""
    return "instructions" if options.tiny else str(options.data)


def pairs(count: int, data: str) -> list[Row]:
    """So many preference pairs with the length distribution of a data set: the middles of equal parts of its rows in
    the order of their lengths, shortest first."""
    rows = sorted((dict(row) for row in read(data)), key=_characters)
    return [
        {name: rows[(2 * i + 1) * len(rows) // (2 * count)][name] for name in ("prompt", "chosen", "rejected")}
        for i in range(count)
    ]


def completions(pairs: Sequence[Row]) -> list[Row]:
    """The prompts and chosen replies of pairs."""
    return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs]


def prompts(tokenizer: Any, count: int, tokens: int, data: str) -> list[str]:
    """So many different texts of exactly so many tokens, from the prompts of a data set."""
    text = "\n\n".join(message["content"] for row in read(data) for message in row["prompt"])
    ids = tokenizer(text[: count * tokens * 40], add_special_tokens=False, verbose=False)["input_ids"]
    cut = (tokenizer.decode(ids[start : start + tokens]) for start in range(0, len(ids) - tokens, tokens))
    # What was cut amid a word may be read back as other tokens.
    fitting = (part for part in cut if len(tokenizer(part, add_special_tokens=False)["input_ids"]) == tokens)
    return [part for part, _ in zip(fitting, range(count), strict=False)]


def titles(count: int, skills: int = 8) -> list[Row]:
    """Job titles with some of the skills that their occupation takes, every row another occupation."""
    directory = Path(os.environ.get("TELOI_DATA", "")) / "onet-titles"
    occupations = {row["code"]: row for row in _lines(directory / "occupations.jsonl.gz")}
    found: dict[str, Row] = {}
    for row in _lines(directory / "titles.jsonl.gz"):
        taken = occupations[row["code"]]["skills"][:skills]
        if row["split"] == "train" and len(taken) == skills:
            found.setdefault(row["code"], {"anchor": row["title"], "positive": "; ".join(taken)})
    different = list({row["positive"]: row for row in found.values()}.values())
    random.Random(0).shuffle(different)
    return different[:count]


def _characters(row: Row) -> int:
    return sum(len(message["content"]) for name in ("prompt", "chosen", "rejected") for message in row[name])


def _lines(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)
