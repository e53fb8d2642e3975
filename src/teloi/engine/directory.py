"""The directory of a run: who may write into it, what it holds, how a run is repeated from it.

run.yaml        everything needed to repeat the run
metrics.jsonl   one record a logged step
checkpoints/    what a killed run resumes from; gone when the run is done
*.safetensors, config.json, tokenizer*: the trained model, a plain transformers checkpoint
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from teloi.batch.tree import Tree
from teloi.errors import TeloiError, UsageError

RUN = "run.yaml"
METRICS = "metrics.jsonl"
DONE = "done"


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run, and what may be asked of them."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / RUN

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def claim(self, record: Mapping[str, Any], *, resume: bool, overwrite: bool) -> bool:
        """Make the directory this run's. True when an interrupted run is to be continued.

        UsageError when it holds anything else, or another run than the one to resume.
        """
        if resume and self.run.exists():
            found = yaml.safe_load(self.run.read_text())
            if difference := _difference(found, record):
                raise UsageError(f"{self.path} holds another run, so it cannot be resumed: {difference}")
            return True
        occupied = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        if occupied and not overwrite:
            raise UsageError(
                f"{self.path} is not empty: choose another --output-dir, continue with --resume, or --overwrite it"
            )
        if occupied and not self.run.exists():
            raise UsageError(
                f"{self.path} holds no teloi run, so --overwrite will not delete it: choose another --output-dir"
            )
        with writing(self.path):
            if occupied:
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.run, yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True))
        return False

    @property
    def finished(self) -> bool:
        """Whether the run in here came to its end."""
        return self.run.exists() and bool(yaml.safe_load(self.run.read_text()).get(DONE))

    def finish(self, record: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Note the result in run.yaml and drop the checkpoints."""
        write_text(self.run, yaml.safe_dump({**record, DONE: dict(result)}, sort_keys=False, allow_unicode=True))
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def records(self) -> list[dict[str, float]]:
        """The logged steps so far; a last line cut short by a kill is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def rewind(self, step: int) -> None:
        """Forget the records after a step: the resumed run will write them again."""
        kept = [record for record in self.records() if record["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))

    def save_batch(self, step: int, trees: Sequence[Tree]) -> str:
        """Keep the examples of a step for inspection; returns the file's name."""
        path = self.path / f"failed-step-{step + 1}.safetensors"
        arrays = {f"{i}.prompt": tree.prompt for i, tree in enumerate(trees)}
        arrays |= {
            f"{i}.branch.{b}": branch.ids for i, tree in enumerate(trees) for b, branch in enumerate(tree.branches)
        }
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
        return str(path)


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write (full disk, no permission) into one line that names the place."""
    try:
        yield
    except OSError as error:
        raise TeloiError(f"cannot write to {path}: {error.strerror or error}") from error


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first setting in which two records of runs differ, in words; empty when they are the same run."""
    for section in ("method", "objective", "train", "data"):
        mine, theirs = found.get(section), wanted.get(section)
        if mine == theirs:
            continue
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            name = next(n for n in {**mine, **theirs} if mine.get(n) != theirs.get(n))
            return f"{section} {name} was {mine.get(name)!r} and is {theirs.get(name)!r}"
        return f"{section} was {mine!r} and is {theirs!r}"
    return ""
