"""How long until something happens: help, import, the first step of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import rows as data
from benchmarks.harness import Benchmark, Case, Result, Side, main

ABOUT = """Seconds from a command to its end (help, import) or to the end of its first training step (supervised, 8
rows, the embedded model, from a file of 200 rows to tokenise). TRL: its command, and a script of SFTTrainer."""

PEER_SCRIPT = """
import sys
from datasets import load_dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

class Says(TrainerCallback):
    def on_step_end(self, *_, **__):
        print("first step", flush=True)

model, rows, directory = sys.argv[1:]
arguments = SFTConfig(directory, max_steps=1, per_device_train_batch_size=1, gradient_accumulation_steps=8,
    gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
    model_init_kwargs={"dtype": "bfloat16"}, bf16=False, use_cpu=%r)
table = load_dataset("json", data_files=rows, split="train")
SFTTrainer(model, arguments, train_dataset=table, callbacks=[Says()]).train()
"""

TELOI = [sys.executable, "-m", "teloi"]
ROWS, STEP = 200, 8


def arguments(parser: ArgumentParser) -> None:
    data.arguments(parser)


def cases(options: Namespace) -> list[Case]:
    taken = data.completions(data.pairs(STEP if options.tiny else ROWS, data.source(options)))
    rows = Path(options.scratch) / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in taken))
    run = {"model": data.model(options), "rows": str(rows), "device": options.device}
    trl = str(Path(sys.executable).parent / "trl")
    pairs = {
        "--help": ([*TELOI, "--help"], [trl, "--help"]),
        "import": (python("import teloi"), python("import trl")),
        "import a trainer": (python("from teloi.engine.train import train"), python("from trl import SFTTrainer")),
    }
    return [
        *(
            Case(name, [Side("teloi", "command", {"words": ours}), Side("TRL", "command", {"words": theirs})])
            for name, (ours, theirs) in pairs.items()
        ),
        Case("first step", [Side("teloi train sft", "teloi", run), Side("SFTTrainer", "peer", run)]),
    ]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def command(words: Sequence[str]) -> Result:
    """A command to its end; the second time, when its files have been read once."""
    for _ in range(2):
        result = until(words, lambda process: process.wait() == 0)
    return result


def teloi(model: str, rows: str, device: str) -> Result:
    """`teloi train` until the first line of its metrics."""
    with tempfile.TemporaryDirectory() as directory:
        metrics = Path(directory) / "run" / "metrics.jsonl"
        words = ["train", "sft", "--model", model, "--data", rows, "--output-dir", str(metrics.parent)]
        words += ["--max-steps", "1", "--batch-size", str(STEP), "--dtype", "bfloat16"]

        def stepped(process: subprocess.Popen[str]) -> bool:
            while not (metrics.is_file() and metrics.stat().st_size):
                if process.poll() is not None:
                    return False
                time.sleep(0.005)
            return True

        return until([*TELOI, *words], stepped)


def peer(model: str, rows: str, device: str) -> Result:
    """The script until it says that its first step is done."""
    from teloi.models.load import resolve

    def stepped(process: subprocess.Popen[str]) -> bool:
        assert process.stdout is not None
        return any(line.startswith("first step") for line in process.stdout)

    with tempfile.TemporaryDirectory() as directory:
        # Its cache of read files is empty, as ours is.
        os.environ["HF_DATASETS_CACHE"] = directory
        script = PEER_SCRIPT % (device == "cpu")
        return until([sys.executable, "-c", script, str(resolve(model)), rows, directory], stepped)


def until(words: Sequence[str], happened: Callable[[subprocess.Popen[str]], bool]) -> Result:
    """Seconds from the start of a command until something has happened, and what the command used up to its end."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True)
        done = happened(process)
        seconds = time.perf_counter() - started
        process.communicate()
        if not done or process.returncode != 0:
            errors.seek(0)
            raise RuntimeError(f"{words[:4]} ended with {process.returncode}: {errors.read()[-3000:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    # Linux counts in KB; the peak is the largest child's.
    return {"seconds": seconds, "cpu_seconds": cpu, "amount": 1, "peak_bytes": now.ru_maxrss * 1024}


BENCHMARK = Benchmark("start", ABOUT, "starts", cases, arguments=arguments)

if __name__ == "__main__":
    main(BENCHMARK)
