"""The arms of a comparison at work: start models, which are only measured, and methods, which train them first."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.data.scoring import Scoring, from_left
from teloi.engine.config import Arm, Budget, CompareConfig, TrainConfig, plain, scratch_preset
from teloi.engine.dataset import Encoded
from teloi.engine.directory import DONE, RunDirectory
from teloi.engine.evaluator import Evaluator, Subject
from teloi.engine.examples import costs
from teloi.engine.loop import Record, Trainer
from teloi.engine.metrics import Measured, Metric
from teloi.engine.objective import Ledger, Objective
from teloi.engine.plan import Plan, make_plan
from teloi.engine.progress import silence
from teloi.engine.recipe import Recipe, follow
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import Base, load_base, make_models, redrawn, role
from teloi.engine.train import save
from teloi.errors import NonFinite
from teloi.models.roles import LanguageModel, merged


def parameters(*modules: Any) -> int:
    """Weights that the modules hold together."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


SCRATCH_RATE = 1e-3
"""Learning rate of a scratch model whose method has a default for pretrained ones."""


@dataclass(frozen=True)
class Untrained:
    """A start model as an arm: nothing is trained. With `redraws` its weights are drawn anew for every seed, as the
    arms' are."""

    base: Base
    scorings: Sequence[Scoring]
    train: TrainConfig
    redraws: bool

    def seeds(self, count: int) -> range:
        """The seeds that it is measured with."""
        return range(count if self.redraws else 1)

    def run(
        self, seed: int, evaluator: Evaluator, metrics: Sequence[Metric]
    ) -> tuple[dict[str, Any], list[str] | None]:
        """What results.json says of a seed, and the replies."""
        model = redrawn(self.base, replace(self.train, seed=seed)) if self.redraws else self.base.model
        started = time.monotonic()
        measured = evaluator.measure(Subject(role(model, self.base), self.base.processor, self.scorings))
        ledger = {"parameters": parameters(model), **_spent(Ledger(eval_seconds=time.monotonic() - started))}
        return _run(seed, measured, metrics, ledger, []), measured.replies


@dataclass(frozen=True)
class Prepared:
    """An arm with its examples encoded, a plan for each seed, and its share of what preparing cost."""

    objective: Objective
    base: Base
    train: TrainConfig
    examples: Sequence[Any]
    plans: Sequence[Plan]
    ledger: Ledger
    scorings: Sequence[Scoring]
    redraws: bool

    def run(
        self, seed: int, evaluator: Evaluator, metrics: Sequence[Metric]
    ) -> tuple[dict[str, Any], list[str] | None]:
        """Train and measure one seed: what results.json says of it, and the replies (None where the run failed)."""
        config = replace(self.train, seed=seed)
        model = own_model(self.base, config, self.redraws)
        models = make_models(self.objective, self.base, config, model, example=self.examples[0])
        spent = replace(self.ledger)
        trainer = Trainer(self.objective, models, self.examples, self.plans[seed], config, ledger=spent)
        facts = {"parameters": parameters(*models.trained), "epochs": self.plans[seed].epochs}
        curve: list[Record] = []
        try:
            curve.extend(trainer.run())
            started = time.monotonic()
            policy: Any = models.policy
            trained = merged(policy) if isinstance(policy, LanguageModel) else policy
            measured = evaluator.measure(Subject(trained, self.base.processor, self.scorings))
        except NonFinite as error:
            return {**_run(seed, Measured(), metrics, {**facts, **_spent(spent)}, curve), "failed": str(error)}, None
        spent.eval_seconds = time.monotonic() - started
        early = {"stopped": trainer.stopped} if trainer.stopped else {}
        return _run(seed, measured, metrics, {**facts, **_spent(spent)}, curve) | early, measured.replies


@dataclass(frozen=True)
class Chained:
    """An arm whose recipe is carried out in a directory that is gone afterwards; its stages share the budget."""

    recipe: Recipe
    method: str
    base: Base
    train: TrainConfig
    rows: Rows
    scorings: Sequence[Scoring]
    redraws: bool

    def run(
        self, seed: int, evaluator: Evaluator, metrics: Sequence[Metric]
    ) -> tuple[dict[str, Any], list[str] | None]:
        """Train and measure one seed, as `Prepared` does."""
        config = replace(self.train, seed=seed)
        model = own_model(self.base, config, self.redraws)
        facts = {"parameters": parameters(model)}
        with TemporaryDirectory() as directory, silence():
            start, data, out = (Path(directory) / name for name in ("start", "rows.jsonl", "out"))
            save(model, self.base, start)
            data.write_text("".join(json.dumps(dict(row)) + "\n" for row in self.rows), encoding="utf-8")
            try:
                follow(self.recipe, replace(config, model=str(start), data=str(data), output_dir=out), self.method)
            except NonFinite as error:
                return {**_run(seed, Measured(), metrics, facts, []), "failed": str(error)}, None
            trained = load_base(replace(config, model=str(out)), self.rows, self.base.architecture)
            done = (RunDirectory(out).found() or {})[DONE]
        spent = Ledger(**{f.name: done[f.name] for f in fields(Ledger) if f.name in done and f.name != "overlong"})
        started = time.monotonic()
        measured = evaluator.measure(Subject(role(trained.model, trained), self.base.processor, self.scorings))
        spent.eval_seconds = time.monotonic() - started
        return _run(seed, measured, metrics, {**facts, **_spent(spent)}, []), measured.replies


def prepare(
    arm: Arm,
    config: CompareConfig,
    budget: Budget,
    base: Base,
    encoded: Encoded,
    scorings: Sequence[Scoring],
    redraws: bool,
) -> Prepared:
    """Plans of all seeds, and the reference's sums on the examples they use."""
    train, objective = settings_for(arm, config.train), arm.objective
    assert isinstance(objective, Objective)
    started = time.monotonic()
    lengths = costs(objective, encoded.examples)
    quotas = objective.quotas(encoded.examples)
    plans = [
        make_plan(
            lengths,
            batch_size=train.batch_size,
            micro_tokens=train.micro_tokens,
            seed=seed,
            budget=budget,
            kind=base.layout,
            whole=objective.coupled,
            quotas=quotas,
        )
        for seed in range(config.seeds)
    ]
    examples = encoded.examples
    ledger = Ledger(overlong={"rows": encoded.overlong} if encoded.overlong else {})
    if objective.reference_sums and "reference" in objective.roles:
        used = np.concatenate([plan.used for plan in plans])
        start = LanguageModel(base.model, base.layout)
        examples, computed = with_reference_sums(examples, used, start, train.micro_tokens, fingerprint(base.model))
        # The seeds share one pass: each is charged its part.
        ledger.computed_tokens = round(computed / config.seeds)
    ledger.prepare_seconds = (time.monotonic() - started) / config.seeds
    # Their sums are the base's own, so that its arms start from it.
    redraws = redraws and "reference" not in objective.roles
    return Prepared(objective, base, train, examples, plans, ledger, scorings, redraws)


def settings_for(arm: Arm, shared: TrainConfig) -> TrainConfig:
    """Training settings of an arm: what was given for all, the method's own defaults below it, the arm's settings
    above. A default rate that suits a pretrained model is none for weights drawn at random."""
    default = TrainConfig()
    own = {n: v for n, v in arm.objective.defaults.items() if getattr(shared, n) == getattr(default, n)}
    usual = str(arm.objective.defaults.get("model", default.model))
    if scratch_preset(shared.model) and not scratch_preset(usual) and "learning_rate" in own:
        own["learning_rate"] = SCRATCH_RATE
    return replace(shared, **{**own, **arm.settings})


def shown_settings(arm: Arm, shared: TrainConfig) -> dict[str, Any]:
    """Hyper-parameters of an arm, its learning rate, and what else it does not share with the other arms."""
    train = asdict(settings_for(arm, shared))
    differs = {name: value for name, value in train.items() if value != getattr(shared, name)}
    chosen = {"learning_rate": train["learning_rate"], **differs}
    names = {name: value for name, value in chosen.items() if name not in ("model", "data")}
    return {name: plain(value) for name, value in {**arm.objective.settings(), **names}.items()}


def _run(
    seed: int, measured: Measured, metrics: Sequence[Metric], ledger: Mapping[str, Any], curve: list[Record]
) -> dict[str, Any]:
    names = [metric.name for metric in metrics]
    return {
        "seed": seed,
        "metrics": {name: measured.metrics[name] for name in names if name in measured.metrics},
        "items": {name: [short(x) for x in measured.items[name]] for name in names if name in measured.items},
        "ledger": dict(ledger),
        "curve": curve,
        "failed": None,
    }


def short(value: float) -> float:
    """As many digits as an item of a mean needs."""
    return float(f"{value:.6g}")


def _spent(ledger: Ledger) -> dict[str, Any]:
    return {name: value for name, value in asdict(ledger).items() if name != "overlong"}


def own_model(base: Base, config: TrainConfig, redraws: bool) -> Any:
    """The start model of one run: drawn anew by its seed where the comparison redraws, else a copy of the base's."""
    return redrawn(base, config) if redraws else copy.deepcopy(base.model)


def own_tokenizer(base: Base) -> Base:
    """The base with a tokenizer that nobody else adds tokens to."""
    processor = base.processor
    own = Processor(copy.deepcopy(processor.tokenizer), processor.max_length, processor.overlong)
    return replace(base, processor=own)


def untrained_scorings(base: Base, arms: Sequence[Arm], scorings: Sequence[Sequence[Scoring]]) -> tuple[Scoring, ...]:
    """The ways in which the start model is asked to score texts: those of its arms, as far as it has their tokens."""
    found = {one.kind: one for one in from_left(base.architecture, base.processor)}
    tokenizer = base.processor.tokenizer
    for arm, ways in zip(arms, scorings, strict=True):
        for one in ways if arm.objective.architecture == base.architecture else ():
            known = one.kind != "masked" or tokenizer.mask_token_id is not None
            if known and all(token < len(tokenizer) for token in one.front):
                found.setdefault(one.kind, one)
    return tuple(found.values())
