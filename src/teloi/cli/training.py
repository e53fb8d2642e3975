"""`teloi train`: an objective's hyper-parameters and the run's settings as one set of flags."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teloi.catalogue import find, is_file, resolve
from teloi.cli.options import flags, leading, parse_groups
from teloi.engine.config import TrainConfig, scratch_preset
from teloi.engine.decoder import Decoder
from teloi.errors import UsageError

if TYPE_CHECKING:
    from teloi.engine.directory import RunDirectory
    from teloi.engine.objective import Objective
    from teloi.engine.recipe import Recipe

GENERAL = """\
Train a model with one method: teloi train METHOD [flags], or teloi train my_file.py:MyObjective [flags].

With nothing but a method it trains the embedded model on embedded data. The flags below are every method's;
`teloi train METHOD --help` shows the method's own beside them. METHOD stands first."""


LIBRARIES: dict[str, tuple[str, str | None]] = {
    "causal": ("transformers", "text-generation"),
    "masked": ("transformers", "fill-mask"),
    "seq2seq": ("transformers", None),
    "encoder": ("sentence-transformers", "sentence-similarity"),
    "classifier": ("transformers", "text-classification"),
    "none": ("teloi", None),
}
"""The library that loads what a run leaves, and the hub's tag of its task, by architecture."""


@dataclass(frozen=True)
class Source:
    """Where the settings come from."""

    config: Path | None = None
    """Start from the settings of a saved run, RUN/run.yaml; flags override them."""


def train(args: Sequence[str]) -> None:
    """The verb `train`."""
    method, objective, config = parse_run(args)
    from teloi.engine.directory import RunDirectory
    from teloi.engine.processes import is_main, leave
    from teloi.engine.progress import say
    from teloi.engine.recipe import Recipe, follow
    from teloi.engine.train import run_path, settings_of
    from teloi.engine.train import train as run
    from teloi.report.card import CARD

    directory = RunDirectory(run_path(config, method), writes=is_main())
    without_card = directory.finished(settings_of(method, objective, config)) and not (directory.path / CARD).exists()
    if config.resume and not config.dry_run and without_card:  # killed when all but this was done
        say(f"{directory.path} is finished: only its curves and its card were missing")
        directory.drop_checkpoints()
        trained = True
    elif isinstance(objective, Recipe):
        trained = follow(objective, config, method) is not None  # None after a dry run
    else:
        trained = run(objective, config, method) is not None
    if trained and directory.writes:
        describe(directory, shlex.join(["teloi", "train", *args]))
    leave()


def describe(directory: RunDirectory, command: str) -> None:
    """Put curves and a model card beside the checkpoint of a finished run, from what it has noted of itself."""
    from teloi.engine.directory import DONE
    from teloi.report.card import write_card
    from teloi.report.figures import run_figure
    from teloi.report.run import REPORT, render_run, warning_lines

    run, samples = read_run(directory.run), directory.sampled()
    done = run[DONE]
    if records := directory.records():
        run_figure(records, directory.path / "curves.png")
        render_run(run, records, samples, command, directory.path / REPORT)
    model, name = run["train"]["model"], run["method"]
    library, task = LIBRARIES[resolve(name).architecture]
    method = None if is_file(name) else find(name)
    write_card(
        directory.path,
        method=name,
        base_model=None if scratch_preset(model) is not None or model == "none" else model,
        data=run["data"]["name"],
        command=command,
        about=f"{method.about[0].upper()}{method.about[1:]}" if method else "",
        paper=str(method.origin) if method else None,
        settings=run["objective"] | {key: value for key, value in run["train"].items() if value is not None},
        ledger={key: value for key, value in done.items() if isinstance(value, int | float)},
        metrics=done["last"],
        versions={"teloi": run["teloi"], **run["versions"]},
        samples=[one for one in samples if one["step"] == samples[-1]["step"]],
        notes=warning_lines(done),
        library=library,
        task=task,
    )


def parse_run(args: Sequence[str]) -> tuple[str, Objective | Recipe, TrainConfig]:
    """The method's name, the objective and the settings that these words ask for: METHOD first, then flags.

    With `--config run.yaml` METHOD may be left out; with another METHOD than the saved run's only the
    settings of the run are taken over. Flags override what is saved; `--resume` goes on in its directory.
    """
    name, rest = leading(args)
    path = _saved_run(rest)
    saved = read_run(path) if path else {}
    name = name or saved.get("method")
    if name is None:
        if {"-h", "--help"} & set(rest):
            parse_groups({"run": flags(TrainConfig), "saved": flags(Source)}, rest, "teloi train METHOD", GENERAL)
        raise UsageError("which method? It stands first: teloi train dpo --data pairs.jsonl; `teloi list` names all")
    name = name if is_file(name) else find(name).name
    kind = resolve(name)
    if issubclass(kind, Decoder):
        raise UsageError(f"{name} trains nothing: teloi generate {name} answers prompts with it")
    own = saved.get("objective", {}) if saved.get("method") == name else {}
    groups = {
        "objective": flags(kind, own),
        "run": flags(TrainConfig, {**kind.defaults, **saved.get("train", {})}),
        "saved": flags(Source),
    }
    about = f"Train a model with {name}; `teloi show {name}` says when to use it. Flags of the method come first."
    parsed = parse_groups(groups, rest, f"teloi train {name}", about)
    config = TrainConfig(**parsed["run"])
    if path and config.resume and config.output_dir is None:
        config = replace(config, output_dir=path.parent)
    return name, kind(**parsed["objective"]), config


def read_run(path: Path) -> dict[str, Any]:
    """What run.yaml says of a run: `method`, its settings `objective`, the run's settings `train`."""
    import yaml

    try:
        run = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(run, dict) or not {"method", "objective", "train"} <= run.keys():
        raise UsageError(f"{path} is no run.yaml that teloi wrote: it lacks method, objective or train")
    return run


def _saved_run(args: Sequence[str]) -> Path | None:
    """What `--config` names, looked for before flags are parsed because it decides their defaults."""
    for flag, value in pairwise([*args, ""]):
        name, equals, attached = flag.partition("=")
        if name == "--config":
            return Path(attached if equals else value)
    return None
