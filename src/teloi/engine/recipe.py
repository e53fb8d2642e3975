"""Recipes: chains of stages, each of which takes a checkpoint and data and gives a checkpoint or data.

A recipe's directory holds `stages/NAME` for each stage: the run of what it trained, or the rows that it made. What is
whole there is never done again, so a recipe that was killed goes on at the stage where it stopped, and within that one
at its last checkpoint. The model of the last stage that trains is what a user takes away.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from teloi.data.formats import Format
from teloi.engine.config import TrainConfig
from teloi.engine.objective import Architecture, Objective
from teloi.errors import DataError, UsageError
from teloi.files import DRAFT, replacing

if TYPE_CHECKING:
    from teloi.data.processor import Processor
    from teloi.data.read import Row, Rows
    from teloi.data.scoring import Scoring

ROWS = "rows.jsonl"
DECIDED = ("eval_data", "eval_steps", "overwrite", "limit")
"""Settings of a run that the stages do not take over: `limit` counts rows of the recipe's data."""


@dataclass(frozen=True)
class Make:
    """A stage that makes rows: `rows` gets what is there so far and returns them."""

    name: str
    about: str
    rows: Callable[[Bench], Iterable[Row]]


@dataclass(frozen=True)
class Train:
    """A stage that trains: `objective`, made when the stages before it are done, on the rows of the stage `data` from
    the model of the stage `model`; of none named, the recipe's own. `method` is the objective's name in the catalogue,
    `settings` are those of the training that are the stage's own, `share` is its part of the run's budget, if one is
    given."""

    name: str
    about: str
    method: str
    objective: Callable[[Bench], Objective]
    model: str | None = None
    data: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0


Stage = Make | Train


class Recipe:
    """Several stages that train one model. Subclasses are frozen dataclasses, whose fields are flags as an
    objective's are; class variables are those of `Objective`."""

    reads: ClassVar[type[Format] | tuple[type[Format], ...]]
    architecture: ClassVar[Architecture] = "causal"
    defaults: ClassVar[Mapping[str, Any]] = {}

    def stages(self) -> Sequence[Stage]:
        """The chain, in its order."""
        raise TypeError(f"{type(self).__name__} must define stages()")

    def check(self, bench: Bench) -> None:
        """Raise what is wrong with the input, before anything is written."""

    @property
    def shares_budget(self) -> bool:
        """Whether a budget is shared by its stages, so that it has a place among arms of one budget."""
        parts = [stage.share if isinstance(stage, Train) else math.inf for stage in self.stages()]
        return math.isclose(sum(parts), 1)

    def scorings(self, processor: Processor) -> tuple[Scoring, ...]:
        """The ways in which its model says how likely a text is, as an objective's."""
        from teloi.data.scoring import from_left

        return from_left(self.architecture, processor)

    def settings(self) -> dict[str, Any]:
        """Hyper-parameters by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # a dataclass


@dataclass(frozen=True)
class Bench:
    """What a stage finds: the settings of the run, and the results of the stages before it."""

    path: Path
    config: TrainConfig
    data: str

    def place(self, stage: str) -> Path:
        """The directory of a stage."""
        return self.path / "stages" / stage

    def model(self, stage: str | None = None) -> str:
        """The checkpoint that a stage has trained, or the one to start from."""
        return self.config.model if stage is None else str(self.place(stage))

    def rows(self, stage: str | None = None, split: str = "train") -> Rows:
        """The rows that a stage has made, or those of the recipe's data."""
        from teloi.data.read import read

        if stage is None:
            return read(self.data, split, self.config.limit)
        return read(self.place(stage) / ROWS)


def follow(recipe: Recipe, config: TrainConfig, method: str) -> Path | None:
    """Carry out what is missing of a recipe and leave its model in `config.output_dir`; returns that directory, or None
    after a dry run, which tells the stages.

    UsageError for settings that the stages decide, and for a directory that holds something else."""
    from teloi.engine.directory import RunDirectory, writing
    from teloi.engine.processes import is_main, wait
    from teloi.engine.progress import say
    from teloi.engine.train import DEFAULT_DATA, run_path, settings_of, versions

    stages = recipe.stages()
    _check(stages, config, method)
    if config.dry_run:
        for number, stage in enumerate(stages, 1):
            say(f"{number}. {stage.name}: {stage.about}")
        return None
    directory = RunDirectory(run_path(config, method), writes=is_main())
    data = config.data or str(recipe.defaults.get("data", DEFAULT_DATA))
    record = {**settings_of(method, recipe, config), "data": {"name": data}, "versions": versions()}
    continued = directory.check(record, resume=config.resume, overwrite=config.overwrite)
    bench = Bench(directory.path, config, data)
    recipe.check(bench)
    wait()  # every process has looked at the directory
    if not continued:
        directory.claim(record)
    wait()
    spent: dict[str, float] = {}
    for number, stage in enumerate(stages, 1):
        say(f"stage {number} of {len(stages)}, {stage.name}: {stage.about}")
        if isinstance(stage, Make):
            _make(stage, bench)
        else:
            _add(spent, _train(stage, bench))
    last = [stage for stage in stages if isinstance(stage, Train)][-1]
    if directory.writes:
        with writing(directory.path):
            _take_away(bench.place(last.name), directory.path)
    made = [stage for stage in stages if isinstance(stage, Make)][-1:]
    measured = {n: v for row in (bench.rows(made[0].name) if made else ()) for n, v in _measured(row)}
    directory.finish(record, {**spent, "last": measured})
    wait()
    say(f"all {len(stages)} stages are done; the model is in {directory.path}")
    return directory.path


def _check(stages: Sequence[Stage], config: TrainConfig, method: str) -> None:
    """UsageError for settings of the run that stages have for themselves."""
    usual = TrainConfig()
    for stage in stages:
        for name in stage.settings if isinstance(stage, Train) else ():
            if getattr(config, name) != getattr(usual, name):
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} differs between the stages of {method}: `teloi show {method}` has theirs")


def _make(stage: Make, bench: Bench) -> None:
    """Make the rows of a stage, unless they are there."""
    from teloi.engine.directory import writing
    from teloi.engine.processes import main_first
    from teloi.engine.progress import say

    path = bench.place(stage.name) / ROWS
    with main_first():  # the others find what it made
        if path.exists():
            return
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        rows = list(stage.rows(bench))
        if not rows:
            raise DataError(f"stage {stage.name} has left no rows")
        with writing(path), replacing(path) as draft, draft.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    say(f"{stage.name}: {len(rows):,} rows")


def _train(stage: Train, bench: Bench) -> Mapping[str, float]:
    """Train a stage, unless it is done, going on from its last checkpoint; what it has spent."""
    from teloi.engine.directory import DONE, RunDirectory
    from teloi.engine.train import settings_of, train

    objective, place = stage.objective(bench), bench.place(stage.name)
    usual = {f.name: f.default for f in fields(TrainConfig) if f.name in DECIDED}
    if (amount := bench.config.amount) is not None:
        usual["budget"] = str(replace(amount, value=max(round(amount.value * stage.share), 1)))
    config = replace(
        bench.config,
        **{**usual, **stage.settings, "output_dir": place, "resume": True, "model": bench.model(stage.model)},
        data=bench.data if stage.data is None else str(bench.place(stage.data) / ROWS),
    )
    directory = RunDirectory(place)
    if not directory.finished(settings_of(stage.method, objective, config)):
        result = train(objective, config, stage.method)
        assert result is not None
        return {n: v for n, v in asdict(result.ledger).items() if isinstance(v, int | float)}
    found = directory.found() or {}
    return {n: v for n, v in found[DONE].items() if isinstance(v, int | float)}


def _add(spent: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        spent[name] = spent.get(name, 0) + value


def _measured(row: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Scores of a model on a task, where a stage has made rows of such."""
    if {"model", "task", "score"} <= row.keys():
        yield f"{row['model']} {row['task']}", float(row["score"])


def _take_away(checkpoint: Path, path: Path) -> None:
    """Put a checkpoint's files into the recipe's directory too, without another copy where the disk can link."""
    for file in checkpoint.iterdir():
        if not file.is_file() or file.suffix in (".yaml", ".jsonl", DRAFT):  # what the stage's run says of itself
            continue
        with replacing(path / file.name) as draft:
            try:
                os.link(file, draft)
            except OSError:
                shutil.copyfile(file, draft)
