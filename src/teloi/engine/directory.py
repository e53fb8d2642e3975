"""The directory of a run: who may write into it, what it holds, how a run is repeated from it.

run.yaml        everything needed to repeat the run
metrics.jsonl   one record a logged step
samples.jsonl   some of what the policy wrote, where a method samples from it
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
from safetensors import SafetensorError
from safetensors.numpy import save_file

from teloi.batch.example import Example
from teloi.errors import TeloiError, UsageError
from teloi.files import DRAFT, write_text

RUN = "run.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
DONE = "done"


@dataclass(frozen=True)
class RunDirectory:
    """Paths of a run, and what may be asked of them."""

    path: Path
    writes: bool = True
    """Of several processes that train as one, only the main one writes."""

    @property
    def run(self) -> Path:
        return self.path / RUN

    @property
    def metrics(self) -> Path:
        return self.path / METRICS if self.writes else Path(os.devnull)

    @property
    def samples(self) -> Path:
        return self.path / SAMPLES if self.writes else Path(os.devnull)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def check(self, record: Mapping[str, Any] | None = None, *, resume: bool, overwrite: bool) -> bool:
        """Whether an interrupted run is to be continued in here. Changes nothing.

        UsageError when the directory cannot be written, holds anything that this run must not touch, or another run
        than the one to resume (`record`, where it is known).
        """
        check_writable(self.path)
        found = self.found()
        if resume and found is not None:
            if found.get(DONE):
                raise UsageError(f"{self.path} is finished: there is nothing to resume")
            if record is not None and (difference := _difference(found, record)):
                raise UsageError(f"{self.path} holds another run, so it cannot be resumed: {difference}")
            return True
        if occupied(self.path):
            if found is None:
                refused = ", so --overwrite will not delete it" if overwrite else ""
                raise UsageError(f"{self.path} holds something else than a run{refused}: choose another --output-dir")
            if not overwrite:
                raise UsageError(
                    f"{self.path} holds another run: choose another --output-dir, go on with --resume or --overwrite it"
                )
        return False

    def claim(self, record: Mapping[str, Any]) -> None:
        """Make the directory this run's, once `check` has let it: what another run left in it is deleted."""
        if not self.writes:
            return
        with writing(self.path):
            if self.path.exists():
                # run.yaml goes last: until then a killed deletion is still known to be a run's directory.
                for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == RUN):
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.run, yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True))

    def found(self) -> Mapping[str, Any] | None:
        """What run.yaml says, if teloi wrote it."""
        try:
            found = yaml.safe_load(self.run.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return None
        return found if isinstance(found, Mapping) and "teloi" in found else None

    def finish(self, record: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Note the result in run.yaml and drop the checkpoints."""
        if not self.writes:
            return
        write_text(self.run, yaml.safe_dump({**record, DONE: dict(result)}, sort_keys=False, allow_unicode=True))
        self.drop_checkpoints()

    def drop_checkpoints(self) -> None:
        """Delete what a finished run no longer needs."""
        if self.writes:
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def finished(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run of these settings (what run.yaml says but of the data) has come to its end in here."""
        found = self.found() or {}
        return DONE in found and not _difference({name: found.get(name) for name in settings}, settings)

    def records(self) -> list[dict[str, float]]:
        """The logged steps so far; a last line cut short by a kill is left out."""
        return _lines(self.metrics)

    def sampled(self) -> list[dict[str, Any]]:
        """What `samples.jsonl` holds, in the same way."""
        return _lines(self.samples)

    def rewind(self, step: int) -> None:
        """Forget the records after a step: the resumed run will write them again."""
        if not self.writes:
            return
        for path in (self.metrics, self.samples):
            if path.exists():
                kept = [line for line in _lines(path) if line["step"] <= step]
                write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))

    def save_batch(self, step: int, examples: Sequence[Example]) -> str:
        """Keep the examples of a step for inspection; returns the file's name."""
        path = self.path / f"failed-step-{step + 1}.safetensors"
        named = ((f"{i}.{name}", array) for i, e in enumerate(examples) for name, array in e.arrays().items())
        save_file({name: np.ascontiguousarray(array) for name, array in named}, path)
        return str(path)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a JSON-lines file, if there is one."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def occupied(path: Path) -> bool:
    """Whether a directory holds anything; what a killed `write_text` left does not count."""
    return path.exists() and any(entry.suffix != DRAFT for entry in path.iterdir())


def check_writable(path: Path) -> None:
    """UsageError when no directory can be written at `path`: a file is in the way, or permission is missing."""
    nearest = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise UsageError(f"{path} cannot be a directory, {nearest} is a file: choose another --output-dir")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written, there is no permission for {nearest}: choose another --output-dir")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write (full disk, no permission) into one line that names the place."""
    try:
        yield
    except OSError as error:
        raise TeloiError(f"cannot write to {path}: {error.strerror or error}") from error
    except SafetensorError as error:  # how its Rust half reports a full disk
        raise TeloiError(f"cannot write to {path}: {error}") from error


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first setting in which two records of runs differ, in words; empty when they are the same run."""
    for section in ("method", "objective", "train", "data"):
        mine, theirs = found.get(section), wanted.get(section)
        if mine == theirs:
            continue
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            # A setting that another version does not know is as good as None.
            if names := [n for n in {**mine, **theirs} if mine.get(n) != theirs.get(n)]:
                return f"{section} {names[0]} was {mine.get(names[0])!r} and is {theirs.get(names[0])!r}"
            continue
        return f"{section} was {mine!r} and is {theirs!r}"
    return ""
