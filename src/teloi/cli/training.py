"""`teloi train`: an objective's hyper-parameters and the run's settings as one set of flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teloi.catalogue import resolve
from teloi.cli.options import flags, parse_groups
from teloi.engine.config import TrainConfig
from teloi.errors import UsageError

if TYPE_CHECKING:
    from teloi.engine.objective import Objective

GENERAL = """\
Train a model with one method: teloi train METHOD [flags], or teloi train my_file.py:MyObjective [flags].

With nothing but a method it trains the embedded model on embedded data. The flags below are every method's;
`teloi train METHOD --help` shows the method's own beside them. METHOD stands first."""


@dataclass(frozen=True)
class Source:
    """Where the settings come from."""

    config: Path | None = None
    """Start from the settings of a saved run, RUN/run.yaml; flags override them."""


def train(args: Sequence[str]) -> None:
    """The verb `train`."""
    objective, config = parse_run(args)
    from teloi.engine.train import train as run

    run(objective, config)


def parse_run(args: Sequence[str]) -> tuple[Objective, TrainConfig]:
    """The objective and the settings that these words ask for: METHOD first, then flags.

    With `--config run.yaml` METHOD may be left out; with another METHOD than the saved run's only the
    settings of the run are taken over. Flags override what is saved.
    """
    name, rest = (args[0], args[1:]) if args and not args[0].startswith("-") else (None, args)
    saved = _saved(rest)
    name = name or saved.get("method")
    if name is None:
        if {"-h", "--help"} & set(rest):
            parse_groups(
                {"run": flags(TrainConfig), "saved": flags(Source)}, rest, "teloi train METHOD", GENERAL
            )
        raise UsageError(
            "which method? It stands first: teloi train dpo --data pairs.jsonl; `teloi list` names them"
        )
    kind = resolve(name)
    own = saved.get("objective", {}) if saved.get("method") == name else {}
    groups = {
        "objective": flags(kind, own),
        "run": flags(TrainConfig, {**kind.defaults, **saved.get("config", {})}),
        "saved": flags(Source),
    }
    about = (
        f"Train a model with {name}; `teloi show {name}` says when to use it. Flags of the method come first."
    )
    parsed = parse_groups(groups, rest, f"teloi train {name}", about)
    return kind(**parsed["objective"]), TrainConfig(**parsed["run"])


def _saved(args: Sequence[str]) -> dict[str, Any]:
    """The run that `--config` names, looked for before flags are parsed because it decides their defaults."""
    path = None
    for flag, value in pairwise([*args, ""]):
        name, equals, attached = flag.partition("=")
        if name == "--config":
            path = Path(attached if equals else value)
    return {} if path is None else read_run(path)


def read_run(path: Path) -> dict[str, Any]:
    return {}
