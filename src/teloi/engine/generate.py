"""`teloi generate`: one decoder, one model, prompts in and answers out, as rows that training reads."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from teloi.batch.tree import Tree
from teloi.data.casts import as_format
from teloi.data.formats import PromptOnly, reply
from teloi.data.processor import Processor
from teloi.data.read import Rows, read
from teloi.engine.config import TrainConfig
from teloi.engine.decoder import Decoder, GenerateConfig
from teloi.engine.objective import Now
from teloi.engine.progress import bar, say, seconds
from teloi.engine.setup import load_base, role
from teloi.engine.train import DEFAULT_DATA
from teloi.errors import DataError, Overlong
from teloi.files import check_free, replacing
from teloi.models.roles import Models

PROMPTS = 16
"""Prompts answered at a time."""


def generate(decoder: Decoder, config: GenerateConfig) -> Path:
    """Answer every prompt of the data; rows with prompt, completion and the row's other columns go to a file, in the
    order of the prompts. What is wrong with the input is raised before the first answer."""
    check_free(config.output, config.overwrite)
    rows = read(config.data or str(decoder.defaults.get("data", DEFAULT_DATA)), config.split, config.limit)
    base = load_base(TrainConfig(model=config.model, seed=config.seed, max_length=config.max_length), rows)
    prompts = encoded(decoder, rows, base.processor)
    models = Models(role(base.model, base), processor=base.processor)
    started, numbers = time.monotonic(), list[dict[str, float]]()
    steps = range(0, len(prompts), PROMPTS)
    with (
        replacing(config.output) as draft,
        draft.open("w", encoding="utf-8") as lines,
        bar(len(steps), "answers") as advance,
    ):
        for step, first in enumerate(steps):
            for tree in decoder.decode(
                models, prompts[first : first + PROMPTS], Now(step, len(steps), seed=config.seed)
            ):
                numbers.append({name: float(value[0]) for name, value in tree.columns.items()})
                lines.write(json.dumps(row_of(tree, base.processor)) + "\n")
            advance(f"{len(numbers):,}")
    means = ", ".join(f"{name} {np.mean([row[name] for row in numbers]):.3g}" for name in numbers[0])
    say(f"{len(numbers):,} answers in {seconds(time.monotonic() - started)}, on average {means}; in {config.output}")
    return config.output


def encoded(decoder: Decoder, rows: Rows, processor: Processor) -> list[Tree]:
    """The prompts, without those that are longer than the context; how many these are is said. DataError when none is
    left."""
    found, longer = [], 0
    for row in as_format(rows, decoder.reads):
        assert isinstance(row, PromptOnly)
        try:
            found.append(decoder.encode(row, processor))
        except Overlong:
            longer += 1
    if not found:
        raise DataError(f"{rows.name}: no prompts are left, all are longer than {processor.max_length} tokens")
    say(f"{rows.name}: {len(found):,} prompts" + (f", {longer} longer than the context dropped" if longer else ""))
    return found


def row_of(tree: Tree, processor: Processor) -> dict[str, Any]:
    """A prompt with its answer as a row of prompt and completion, with what the decoder noted."""
    text = str(processor.tokenizer.decode(tree.branches[0].ids, skip_special_tokens=True))
    source = tree.source
    return {
        **source.columns,
        "prompt": source.prompt,
        "completion": reply(text, source.conversational),
        **{name: value[0].item() for name, value in tree.columns.items()},
    }
