"""`teloi train`: one objective, one model, one data set, one directory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import teloi
from teloi.data.read import read
from teloi.engine.callbacks import Listeners
from teloi.engine.config import INCIDENTAL, TrainConfig, plain
from teloi.engine.dataset import encode
from teloi.engine.directory import RunDirectory, writing
from teloi.engine.examples import contents_hash, costs
from teloi.engine.follow import evaluate, follow
from teloi.engine.loop import Hooks, Record, Trainer
from teloi.engine.objective import Ledger, Objective
from teloi.engine.plan import Plan, make_plan
from teloi.engine.preview import preview
from teloi.engine.processes import is_main, main_first, wait
from teloi.engine.progress import say, seconds
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import Base, load_base, make_models, tokenizer_for
from teloi.models.roles import CachedReference, Models

if TYPE_CHECKING:
    from teloi.engine.recipe import Recipe

DEFAULT_DATA = "instructions"


@dataclass(frozen=True)
class TrainResult:
    """Where a finished run lies, what it cost, and its last record; `evaluation` holds the terms on held-out rows, if
    any."""

    path: Path
    ledger: Ledger
    last: Record
    evaluation: dict[str, float]
    main: bool = True
    """Whether this process is the one that writes."""


def train(
    objective: Objective, config: TrainConfig, method: str | None = None, callbacks: Sequence[Any] = ()
) -> TrainResult | None:
    """Train a model and leave a transformers checkpoint in `config.output_dir`. None after a dry run.

    `method` is the name under which the run is repeated ("dpo", "my_file.py:MyObjective"); `callbacks` are
    transformers' own. Everything that can be wrong with the input is found before the first step and raised as a
    TeloiError."""
    started = time.monotonic()
    name = method or type(objective).__name__
    directory = RunDirectory(run_path(config, name), writes=is_main())
    if not config.dry_run:
        directory.check(resume=config.resume, overwrite=config.overwrite)  # refuse before the model is loaded
    inputs = read_inputs(objective, config)
    base, plan = inputs.base, inputs.plan
    if config.dry_run:
        models = make_models(objective, base, config, example=inputs.examples[0])
        preview(objective, models, base, inputs.examples, plan, config)
        return None

    record = {**settings_of(name, objective, config), "data": inputs.record(), "versions": versions()}
    continued = directory.check(record, resume=config.resume, overwrite=config.overwrite)
    models = make_models(objective, base, config, example=inputs.examples[0])
    ledger = Ledger(overlong={"rows": inputs.overlong} if inputs.overlong else {})
    examples, held_out = _with_reference(inputs, models, config, ledger)
    ledger.prepare_seconds = time.monotonic() - started

    hooks = Hooks(failed=directory.save_batch)
    trainer = Trainer(objective, models, examples, plan, config, directory.checkpoints, hooks, ledger)
    listeners = Listeners(callbacks, config, directory.path, models.trained[0], trainer)
    done = _begin(directory, record, trainer, continued)
    say(_announcement(name, base, plan, config, done))
    with writing(directory.path), listeners:
        went = follow(name, trainer, listeners, held_out, directory)
        trained = trainer.trained()
        if directory.writes:
            export(objective, trained, base, directory.path)
        last = went.last or next(reversed(directory.records()), {})
        if held_out and "eval_loss" not in last:  # it ended early
            evaluate(trainer, held_out, last)
        directory.finish(
            record,
            {**asdict(trainer.ledger), "stopped": went.stopped, "warnings": list(went.warnings), "last": last},
        )
    wait()
    say(
        f"{trainer.done:,} steps, {trainer.ledger.trained_tokens:,} tokens in {seconds(trainer.ledger.train_seconds)}; "
        f"the model is in {directory.path}"
    )
    evaluation = {n.removeprefix("eval_"): v for n, v in last.items() if n.startswith("eval_")}
    return TrainResult(directory.path, trainer.ledger, last, evaluation, directory.writes)


def run_path(config: TrainConfig, name: str) -> Path:
    """Where the run of a method goes."""
    return config.output_dir or Path("runs") / name.rsplit(":")[-1].lower()


def settings_of(name: str, objective: Objective | Recipe, config: TrainConfig) -> dict[str, Any]:
    """What run.yaml says of a run before its data are read."""
    return {
        "teloi": teloi.__version__,
        "method": name,
        "objective": {n: plain(v) for n, v in objective.settings().items()},
        "train": {n: plain(v) for n, v in asdict(config).items() if n not in INCIDENTAL},
    }


@dataclass(frozen=True)
class Inputs:
    """What a run trains: the model it starts from, the examples of its rows and of held-out ones, and the plan."""

    name: str
    """Of the data."""
    rows: int
    base: Base
    examples: Sequence[Any]
    held_out: Sequence[Any]
    overlong: int
    """Rows that were longer than the context."""
    plan: Plan

    def record(self) -> dict[str, Any]:
        """What run.yaml says of the data."""
        return {
            "name": self.name,
            "rows": self.rows,
            "examples": len(self.examples),
            "hash": contents_hash(self.examples),
        }


def read_inputs(objective: Objective, config: TrainConfig) -> Inputs:
    """Read and encode the data and load the model; what is wrong with either is raised here."""
    rows = read(config.data or objective.defaults.get("data", DEFAULT_DATA), "train", config.limit)
    base = load_base(config, rows, objective.architecture, tokenizer_for(objective))
    encoded = encode(objective, rows, base.processor)
    say(f"{rows.name}: {encoded}")
    held_out: Sequence[Any] = []
    if config.eval_data:
        unseen = read(config.eval_data, "test", config.limit)
        held_out = encode(objective, unseen, base.processor, encoded.examples).examples
    plan = plan_for(objective, config, encoded.examples, base)
    return Inputs(rows.name, len(rows), base, encoded.examples, held_out, encoded.overlong, plan)


def _with_reference(
    inputs: Inputs, models: Models, config: TrainConfig, ledger: Ledger
) -> tuple[Sequence[Any], Sequence[Any]]:
    """The examples and the held-out ones, with the reference's sums where these are all that is read of it."""
    examples, held_out = inputs.examples, inputs.held_out
    if not isinstance(models.reference, CachedReference):
        return examples, held_out
    model_hash = fingerprint(inputs.base.model)  # before training changes it
    with main_first():  # the others find what it computed in the cache
        examples, ledger.computed_tokens = with_reference_sums(
            examples, inputs.plan.used, models.policy, config.micro_tokens, model_hash
        )
        if held_out:
            held_out, _ = with_reference_sums(
                held_out, range(len(held_out)), models.policy, config.micro_tokens, model_hash
            )
    return examples, held_out


def _begin(directory: RunDirectory, record: Mapping[str, Any], trainer: Trainer, continued: bool) -> int:
    """Take up the run that was interrupted in the directory, or make the directory this run's; the steps done."""
    wait()  # every process has looked at the directory
    if not continued:
        directory.claim(record)
    done = trainer.resume() if continued else 0
    directory.rewind(done)
    wait()
    return done


def plan_for(objective: Objective, config: TrainConfig, examples: Sequence[Any], base: Base) -> Plan:
    """The plan of a run of this objective over these examples."""
    return make_plan(
        costs(objective, examples),
        batch_size=config.batch_size,
        micro_tokens=config.micro_tokens,
        seed=config.seed,
        epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        budget=config.amount,
        kind=base.layout,
        whole=objective.coupled,
        quotas=objective.quotas(examples),
    )


def export(objective: Objective, models: Models, base: Base, path: Path) -> None:
    """A plain transformers checkpoint (adapters merged beside the adapter itself), the tokenizer, the objective's own
    extras; those alone where it has built all that was trained."""
    if base.model is None:
        objective.export(models, path)
        return
    model: Any = models.policy.model
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(path / "adapter")
        model = model.merge_and_unload()
    save(model, base, path)
    objective.export(models, path)


def save(model: Any, base: Base, path: Path) -> None:
    """A model with the tokenizer of the base that it comes from, as a plain transformers checkpoint."""
    if base.layout == "packed":
        model.set_attn_implementation("sdpa")
    model.save_pretrained(path)
    tokenizer = base.processor.tokenizer
    if not tokenizer.chat_template and "template" in vars(base.processor):
        tokenizer.chat_template = base.processor.template  # the one that rows were rendered with
    tokenizer.save_pretrained(path)


def _announcement(name: str, base: Base, plan: Plan, config: TrainConfig, done: int) -> str:
    resumed = f", resumed after step {done:,}" if done else ""
    model, tokens = f"{base.name} in {base.dtype}, {base.batches}", f", {plan.tokens:,} tokens"
    if base.model is None:
        model, tokens = "a model of its own", ""
    return (
        f"{name}: {model}; {plan.steps:,} steps of {min(config.batch_size, plan.rows)} rows{tokens}, "
        f"{plan.epochs:.2g} epochs{resumed}"
    )


def versions() -> dict[str, str]:
    """What a run depends on, by name."""
    import platform
    from importlib.metadata import version

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "accelerate", "peft")},
    }
