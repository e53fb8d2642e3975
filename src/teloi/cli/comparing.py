"""`teloi compare` and `teloi demo`: arms, their settings, and what is shown when they have run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any, get_type_hints

from teloi.catalogue import find, is_file, resolve
from teloi.cli.options import flags, named, one_value, parse_groups
from teloi.engine.config import Arm, CompareConfig, TrainConfig
from teloi.engine.objective import Objective
from teloi.engine.recipe import Recipe
from teloi.errors import UsageError
from teloi.names import hint

ABOUT = """\
Compare methods: each trains from the same model on the same rows under one budget, with several seeds, and all are
measured on the same held-out rows. A table with 95% intervals, figures and an HTML report come out.

Methods that train different architectures (clm, mlm, ul2) start from scratch models of one size and one vocabulary,
and each is scored in the ways that it was trained; labelled texts in --eval-data probe every one of them.

An ARM is a method or my_file.py:MyObjective, with settings of its own after a colon, if you like:
dpo:beta=0.3,learning_rate=1e-6. Settings are the method's hyper-parameters and those of the optimiser. The start model
is always measured too."""

DEMO = """\
A comparison with nothing of your own: sft, dpo, ipo, simpo and kto train the embedded model on embedded preference
pairs whose better side a program decides. It takes about five minutes on two cores."""

NEXT = """
What next:
  teloi list                                        every method
  teloi show dpo                                    one of them on a page
  teloi train dpo --data your-preference.jsonl      your model, with --model NAME_OR_DIRECTORY
  teloi compare sft dpo simpo --data your-preference.jsonl --budget 200k"""

DEMO_ARMS = ("sft", "dpo", "ipo", "simpo", "kto")

# What fits fifteen training runs of a real model into five minutes on two cores. The learning rate was chosen for dpo
# on held-out rows of the training split.
DEMO_TRAINING: dict[str, Any] = {"lora": True, "learning_rate": 3e-4, "batch_size": 4}
DEMO_NOTES = (
    "Chosen to fit five minutes on two cores: LoRA adapters of rank 16, a learning rate of 3e-4 for all, steps of four "
    "rows, a small budget, few held-out rows. It shows what a comparison looks like; `--budget`, `--eval-limit` and "
    "`--seeds` make it an experiment.",
)

# Settings of `train` that a comparison decides itself, or that only a single run has.
DECIDED = frozenset(
    {"data", "eval_data", "output_dir", "overwrite", "budget", "num_train_epochs", "max_steps", "seed"}
    | {"save_steps", "eval_steps", "report_to", "resume", "dry_run"}
)

# Settings of `train` in which arms may differ; the start model and what it reads are the same for all.
OWN = (
    *("batch_size", "learning_rate", "lr_scheduler_type", "warmup_ratio", "weight_decay", "max_grad_norm"),
    *("adam_beta1", "adam_beta2", "lora", "lora_r", "lora_alpha", "stop_when"),
)


@dataclass(frozen=True)
class DemoOptions:
    """What the demo takes; more budget or more seeds make its intervals narrower."""

    budget: str = "3k"
    """Training of each arm and seed: "100k" (tokens), "300 rows", "50 steps"."""
    eval_limit: int = 24
    """Measure preferences on so many held-out pairs, and replies on as many held-out prompts."""
    seeds: int = CompareConfig.seeds
    """Training runs for each arm, seeds 0, 1, ..."""
    output_dir: Path = Path("runs/demo")
    """Where results.json, report.html and the figures go."""


def compare(args: Sequence[str]) -> None:
    """The verb `compare`."""
    arms, config = parse_comparison(args)
    _run(arms, config, shlex.join(["teloi", "compare", *args]))


def demo(args: Sequence[str]) -> None:
    """The verb `demo`."""
    options = parse_groups({"demo": flags(DemoOptions)}, args, "teloi demo", DEMO)["demo"]
    again = options["output_dir"] == DemoOptions.output_dir  # the demo's own directory holds nothing else
    arms = [parse_arm(name, DEMO_TRAINING) for name in DEMO_ARMS]
    train = TrainConfig(**DEMO_TRAINING)
    config = CompareConfig(**options, generate=options["eval_limit"], overwrite=again, train=train)
    _run(arms, config, shlex.join(["teloi", "demo", *args]), DEMO_NOTES)
    print(NEXT)


def parse_comparison(args: Sequence[str]) -> tuple[list[Arm], CompareConfig]:
    """The arms and the settings that these words ask for: arms first, then flags."""
    words = list(takewhile(lambda word: not word.startswith("-"), args))
    groups = {
        "comparison": flags(CompareConfig, leave_out=("train",)),
        "training": flags(TrainConfig, leave_out=DECIDED),
    }
    prog = shlex.join(["teloi", "compare", *words]) if words else "teloi compare ARM ARM ..."
    parsed = parse_groups(groups, args[len(words) :], prog, ABOUT)
    if not words:
        raise UsageError("which methods? They stand first: teloi compare sft dpo --budget 200k; `teloi list` names all")
    given = {name: value for name, value in parsed["training"].items() if name in named(args)}
    arms = [parse_arm(word, given) for word in words]
    comparison, training = parsed["comparison"], parsed["training"]
    if "model" not in given:
        training["model"] = common_model(arms)
    if "data" not in named(args):
        comparison["data"] = common(arms, "data") or CompareConfig.data
    return arms, CompareConfig(**comparison, train=TrainConfig(**training))


def common_model(arms: Sequence[Arm]) -> str:
    """The start model where none is named: the one that all arms have as their own default; a scratch model of each
    architecture where arms differ in it; else the embedded one."""
    if len({arm.objective.architecture for arm in arms}) > 1:
        return "scratch:small"
    agreed = common(arms, "model") if all("model" in arm.objective.defaults for arm in arms) else None
    return agreed or TrainConfig.model


def common(arms: Sequence[Arm], name: str) -> str | None:
    """The default that the arms which have one of their own agree on."""
    found = {arm.objective.defaults[name] for arm in arms if name in arm.objective.defaults}
    return found.pop() if len(found) == 1 else None


def parse_arm(word: str, given: Mapping[str, Any] | None = None) -> Arm:
    """An arm written METHOD or METHOD:setting=value,setting=value; METHOD may be my_file.py:MyObjective.

    `given` holds the training settings that the user gave for all arms: they win over the method's own
    defaults, the arm's settings over both.
    """
    method, settings = _split(word)
    kind = resolve(method)
    if not issubclass(kind, Objective | Recipe):
        raise UsageError(f"{method} trains nothing, so it has no place among arms of one budget")
    method = method if is_file(method) else find(method).name
    label = kind.__name__ if is_file(method) else method
    hints, own = get_type_hints(kind), {f.name for f in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    shared = get_type_hints(TrainConfig)
    hyper: dict[str, Any] = {}
    train = {name: value for name, value in (given or {}).items() if name in kind.defaults}
    for name, text in settings.items():
        if name in own:
            hyper[name] = one_value(hints[name], text, f"{word}: {name}")
        elif name in OWN:
            train[name] = one_value(shared[name], text, f"{word}: {name}")
        else:
            known = [*sorted(own), *OWN]
            near = hint(name, known, f"it has {', '.join(known)}")
            raise UsageError(f"{word}: {label} has no setting {name!r} of its own; {near}")
    TrainConfig(**train)  # values that do not fit are refused before anything is loaded
    name = label + (":" if settings else "") + ",".join(f"{key}={text}" for key, text in settings.items())
    return Arm(name, method, kind(**hyper), train)


def _split(word: str) -> tuple[str, dict[str, str]]:
    """The method of an arm and its settings as text."""
    parts = word.split(":")
    keep = 2 if parts[0].endswith(".py") else 1
    method, settings = ":".join(parts[:keep]), ":".join(parts[keep:])
    found = {}
    for setting in filter(None, settings.split(",")):
        name, equals, text = setting.partition("=")
        if not equals or not text:
            raise UsageError(f"{word}: write settings as {method}:name=value,name=value")
        found[name.strip().replace("-", "_")] = text.strip()
    return method, found


def _run(arms: Sequence[Arm], config: CompareConfig, command: str, notes: Sequence[str] = ()) -> None:
    """Run the comparison, then show it: a table and what it means here, figures and the report as files."""
    from teloi.engine.compare import compare as run

    results = run(arms, config, command, notes)

    from teloi.measure.summary import summarise
    from teloi.measure.wording import verdict
    from teloi.report.figures import figure
    from teloi.report.html import render_html
    from teloi.report.table import print_table

    summary = summarise(results)
    print_table(summary)
    print(f"\n{verdict(summary)}\n")
    path = Path(results["path"])
    print(f"figure  {figure(results, path / 'comparison.png')}")
    print(f"report  {render_html(results, path / 'report.html')}")
