"""Corruption: raw segments to a training batch, against collators of transformers and in their style."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Benchmark, Case, Result, Side, Watch, main

ABOUT = """Segments of 512 tokens to padded batches of 32 with labels, on one core; random ids, for what stands in a
segment changes nothing. Masked language modelling and substitution: transformers' DataCollatorForLanguageModeling.
Span corruption: a collator as transformers' and nanoT5's examples have it, one sequence after the other in NumPy."""

ROWS, LENGTH, BATCHES, VOCABULARY = 32, 512, 40, 4000
RATE, MEAN_SPAN = 0.15, 3.0


def cases(options: Namespace) -> list[Case]:
    settings = {"batches": 2 if options.tiny else BATCHES}
    return [
        Case(
            method,
            [Side("teloi", "teloi", {**settings, "method": method}), Side(name, function, {**settings, **more})],
            {"rate": 1e6},
        )
        for method, name, function, more in (
            ("span-corruption", "one by one", "one_by_one", {}),
            ("ul2", "one by one, R only", "one_by_one", {}),
            ("mlm", "transformers", "transformers", {"mask": 0.8}),
            ("rts", "transformers", "transformers", {"mask": 0.0}),
        )
    ]


def drawn() -> list[NDArray[np.int32]]:
    """A batch of segments."""
    return list(np.random.default_rng(0).integers(10, VOCABULARY - 200, (ROWS, LENGTH)).astype(np.int32))


def teloi(method: str, batches: int) -> Result:
    """`rollout` and `collate` of a method, as a step calls them."""
    import torch

    from teloi import catalogue
    from teloi.batch.sequence import Sequence
    from teloi.data.processor import Processor
    from teloi.engine.objective import Now
    from teloi.models.roles import Models
    from teloi.models.scratch import train_tokenizer

    torch.set_num_threads(1)
    objective: Any = catalogue.find(method).load()()
    text = [f"{word}{other}" for word in "abcdefgh" for other in range(60)]
    tokenizer = train_tokenizer(text, 600, objective.architecture)
    segments = [Sequence({"input_ids": ids % 400 + 100}) for ids in drawn()]
    models = Models(None, processor=Processor(tokenizer, 2 * LENGTH))  # type: ignore[arg-type]
    watch = Watch()
    for step in range(batches + 1):
        now = Now(step, batches + 1, 0, 0)
        objective.collate(objective.rollout(models, segments, now), now, torch.device("cpu"))
        if step in (0, batches):
            watch()
    return watch.result(batches * ROWS * LENGTH)


def transformers(batches: int, mask: float) -> Result:
    """Its collator on lists of ids, as data sets give them; no replacement is a mask where `mask` is 0."""
    import torch
    from transformers import DataCollatorForLanguageModeling

    from teloi.models.scratch import train_tokenizer

    torch.set_num_threads(1)
    tokenizer = train_tokenizer([f"{a}{b}" for a in "abcdefgh" for b in range(60)], 600, "masked")
    collate = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=RATE, mask_replace_prob=mask, random_replace_prob=0.1 if mask else 1.0
    )
    rows = [{"input_ids": (ids % 400 + 100).tolist()} for ids in drawn()]
    watch = Watch()
    for step in range(batches + 1):
        collate(rows)
        if step in (0, batches):
            watch()
    return watch.result(batches * ROWS * LENGTH)


def one_by_one(batches: int) -> Result:
    """Span corruption of each sequence on its own: a mask, a row of sentinels, what is left of both sides, padding."""
    import torch

    torch.set_num_threads(1)
    rows, rng, watch = drawn(), np.random.default_rng(0), Watch()
    for step in range(batches + 1):
        pairs = [spans_of(row, rng) for row in rows]
        for side in zip(*pairs, strict=True):
            width = max(map(len, side))
            torch.tensor(np.stack([np.pad(ids, (0, width - len(ids))) for ids in side]))
        if step in (0, batches):
            watch()
    return watch.result(batches * ROWS * LENGTH)


def spans_of(ids: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Input and target of one sequence."""
    noise = round(len(ids) * RATE)
    spans = round(noise / MEAN_SPAN)

    def parts(total: int) -> NDArray[np.int64]:
        first = np.zeros(total, np.int64)
        first[rng.permutation(np.arange(1, total))[: spans - 1]] = 1
        return np.bincount(np.cumsum(first), minlength=spans)

    runs = np.stack([parts(len(ids) - noise), parts(noise)], axis=1).reshape(-1)
    mask = np.repeat(np.arange(2 * spans) % 2 == 1, runs)
    sides = []
    for hidden in (mask, ~mask):
        first = hidden & ~np.concatenate([[False], hidden[:-1]])
        names = np.where(first, VOCABULARY - np.cumsum(first), ids)
        sides.append(np.append(names[~hidden | first], 1))
    return sides[0], sides[1]


BENCHMARK = Benchmark("corruption", ABOUT, "tokens", cases)

if __name__ == "__main__":
    main(BENCHMARK)
