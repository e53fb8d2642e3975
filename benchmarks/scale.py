"""How a run grows with its data: tokens a second and peak memory from a thousand rows to a million."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarks.harness import Benchmark, Case, Result, Side, Watch, main

ABOUT = """`teloi train sft` of a tiny model on files of so many short rows, the same steps whatever their number.
`seconds` are those of the steps, `prepare seconds` all before the first one. Wanted: as fast as with the smallest file,
and no more memory, within 10%."""

TARGETS = {"time": 1.1, "memory": 1.1}
STEPS, BATCH = 40, 32
WORDS = ("it", "was", "a", "fine", "long", "cold", "day", "so", "well", "now", "and", "then", "there", "came", "nobody")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000], help="rows of the files, smallest first"
    )


def cases(options: Namespace) -> list[Case]:
    sizes = [STEPS * BATCH, 2 * STEPS * BATCH] if options.tiny else options.sizes
    model = Path(options.scratch)
    if not options.tiny:
        from benchmarks.harness import one

        one(
            "benchmarks.scale", Side("tiny models", "benchmarks.sides:write_tiny", {"path": str(model)}), options.device
        )
    sides = [Side(f"{size:,} rows", "train", {"size": size, "model": str(model / "causal")}) for size in sizes]
    return [Case(f"{sizes[i]:,} rows", [sides[i], sides[0]], TARGETS) for i in range(1, len(sizes))]


def train(size: int, model: str) -> Result:
    """A run on a file of so many rows, each of 12 words."""
    import random
    import tempfile

    from benchmarks.sides import Marks
    from teloi.engine.config import TrainConfig
    from teloi.engine.train import train
    from teloi.methods.finetune.sft import SFT

    draw, watch = random.Random(0), Watch()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        with path.open("w") as stream:
            for _ in range(size):
                words = draw.choices(WORDS, k=12)
                stream.write(
                    json.dumps({"prompt": " ".join(words[:4]), "completion": " " + " ".join(words[4:])}) + "\n"
                )
        config = TrainConfig(
            model=model,
            data=str(path),
            output_dir=Path(directory) / "run",
            batch_size=BATCH,
            budget=f"{STEPS} steps",
            dtype="float32",
        )
        result = train(SFT(), config, callbacks=[Marks(watch, begins=False)])
    assert result is not None
    tokens = result.ledger.trained_tokens * (STEPS - 1) / STEPS
    return watch.result(tokens) | {"prepare_seconds": result.ledger.prepare_seconds}


BENCHMARK = Benchmark("scale", ABOUT, "tokens", cases, arguments=arguments)

if __name__ == "__main__":
    main(BENCHMARK)
