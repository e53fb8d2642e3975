"""`teloi compare`: several objectives from one start model, on the same rows, under one budget, over several seeds."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import teloi
from teloi.data.read import Rows, read
from teloi.engine.config import Arm, Budget, CompareConfig, TrainConfig
from teloi.engine.dataset import Encoded, encode
from teloi.engine.directory import check_writable, occupied, writing
from teloi.engine.loop import Record, Trainer
from teloi.engine.metrics import Evaluator, Measured
from teloi.engine.objective import Ledger
from teloi.engine.plan import Plan, make_plan
from teloi.engine.progress import bar, say
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import Base, load_base, make_models
from teloi.errors import DataError, NonFinite, UsageError
from teloi.files import write_text
from teloi.jobs import default_jobs, in_parallel, one_by_one
from teloi.models.roles import merged

RESULTS = "results.json"
SAMPLES = 12
"""Prompts whose replies the report shows side by side."""


def compare(arms: Sequence[Arm], config: CompareConfig, command: str = "", notes: Sequence[str] = ()) -> dict[str, Any]:
    """Train every arm with every seed, measure all on the same held-out rows; returns what `results.json` holds.

    The file is rewritten after every run, so an interrupted comparison keeps what it has measured. A run whose loss
    stops being a number is counted as failed; the others go on. `notes` are the caller's own, for the reader.
    """
    if len({arm.name for arm in arms}) < len(arms):
        raise UsageError("two arms have the same name; give one of them different settings")
    if other := next((arm for arm in arms if arm.objective.architecture != "causal"), None):
        raise UsageError(
            f"{other.name} does not train a causal model, and a comparison has metrics for no other: "
            f"teloi train {other.method} with --eval-data reports its loss on held-out rows"
        )
    budget = Budget.parse(config.budget)
    path = config.output_dir or Path("runs") / ("compare-" + "-".join(arm.name for arm in arms))
    check_writable(path)
    if occupied(path) and not (path / RESULTS).exists():
        raise UsageError(f"{path} is not empty and holds no comparison: choose another --output-dir")
    if occupied(path) and not config.overwrite:
        raise UsageError(f"{path} holds another comparison: choose another --output-dir, or --overwrite it")
    rows, held_out = split(config)
    base = load_base(config.train, rows)
    # Rows that one arm cannot use are found before another has trained.
    encoded = [encode(arm.objective, rows, base.processor) for arm in arms]
    evaluator = Evaluator(base, held_out, config.generate, config.max_new_tokens, config.train.micro_tokens)
    metrics = evaluator.metrics(config.metric)
    say(
        f"{base.name} in {base.dtype}; {len(rows):,} training rows of {rows.name}, {len(held_out):,} held out; "
        f"{len(arms)} arms x {config.seeds} seeds, {budget} each; decided by {metrics[0].label}"
    )
    results: dict[str, Any] = {
        "teloi": teloi.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "path": str(path),
        "data": {
            "train": rows.name,
            "eval": held_out.name,
            "train_rows": len(rows),
            "eval_rows": len(held_out),
        },
        "model": base.name,
        "budget": asdict(budget),
        "seeds": list(range(config.seeds)),
        "metrics": [{**asdict(metric), "primary": place == 0} for place, metric in enumerate(metrics)],
        "notes": [*notes, *_notes(base, evaluator, config)],
        "arms": [],
        "samples": [],
    }
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    replies: dict[str, list[str]] = {}
    with bar(len(arms) * config.seeds + 1, "compare") as advance:
        started = time.monotonic()
        measured = evaluator.measure(evaluator.start)
        replies["base"] = measured.replies
        first = _run(0, measured, Ledger(eval_seconds=time.monotonic() - started), [])
        results["arms"].append({"name": "base", "method": None, "settings": {}, "baseline": True, "runs": [first]})
        advance("base")
        model_hash = fingerprint(base.model)
        prepared = [
            prepare(arm, config, budget, base, dataset, evaluator, model_hash)
            for arm, dataset in zip(arms, encoded, strict=True)
        ]
        for arm in arms:
            settings = {**arm.objective.settings(), **arm.settings}
            results["arms"].append(
                {"name": arm.name, "method": arm.method, "settings": settings, "baseline": False, "runs": []}
            )
        items = [(place, seed) for place in range(len(arms)) for seed in range(config.seeds)]
        jobs = config.jobs or default_jobs()

        def work(item: tuple[int, int]) -> tuple[dict[str, Any], list[str] | None]:
            place, seed = item
            return prepared[place].run(seed, evaluator)

        def name(item: tuple[int, int]) -> str:
            place, seed = item
            return f"{arms[place].name}, seed {seed}"

        # Forked, for the model, the examples and the reference's sums are held once and never sent.
        made = one_by_one(work, items, name) if jobs == 1 else in_parallel(work, items, jobs, name, fork=True)
        for (place, _), (run, texts) in made:
            runs = results["arms"][1 + place]["runs"]
            runs.append(run)
            runs.sort(key=lambda run: run["seed"])
            if texts is not None and (run["seed"] == 0 or arms[place].name not in replies):
                replies[arms[place].name] = texts
            results["samples"] = _samples(evaluator, held_out, replies)
            with writing(path):
                write_text(path / RESULTS, json.dumps(results, indent=1) + "\n")
            advance(f"{arms[place].name}, seed {run['seed']}{': failed' if run['failed'] else ''}")
    return results


def split(config: CompareConfig) -> tuple[Rows, Rows]:
    """Training and held-out rows: `eval_data`, else the data's own test split, else every tenth row held out."""
    limit = config.train.limit
    rows = read(config.data, "train", limit)
    held_out: Rows | None = None
    if config.eval_data:
        held_out = read(config.eval_data, "test", config.eval_limit)
    elif not Path(config.data).is_file():
        try:
            held_out = read(config.data, "test", config.eval_limit)
        except DataError:
            held_out = None
    if held_out is None:
        if len(rows) < 10:
            raise DataError(f"{rows.name}: {len(rows)} rows are too few to hold a tenth out: give --eval-data")
        indices = range(len(rows))
        held_out = rows.select([i for i in indices if i % 10 == 0][: config.eval_limit])
        rows = rows.select(i for i in indices if i % 10)
    return rows, held_out


@dataclass(frozen=True)
class Prepared:
    """An arm with its examples encoded, a plan for each seed, and its share of what preparing cost."""

    arm: Arm
    base: Base
    train: TrainConfig
    examples: Sequence[Any]
    plans: Sequence[Plan]
    ledger: Ledger

    def run(self, seed: int, evaluator: Evaluator) -> tuple[dict[str, Any], list[str] | None]:
        """Train and measure one seed: what results.json says of it, and the replies (None where the run failed)."""
        config = replace(self.train, seed=seed)
        models = make_models(self.arm.objective, self.base, config, copy.deepcopy(self.base.model))
        ledger = replace(self.ledger)
        trainer = Trainer(self.arm.objective, models, self.examples, self.plans[seed], config, ledger=ledger)
        curve: list[Record] = []
        try:
            curve.extend(trainer.run())
            started = time.monotonic()
            measured = evaluator.measure(merged(models.policy))
        except NonFinite as error:
            return {**_run(seed, Measured(), ledger, curve), "failed": str(error)}, None
        ledger.eval_seconds = time.monotonic() - started
        return _run(seed, measured, ledger, curve), measured.replies


def prepare(
    arm: Arm,
    config: CompareConfig,
    budget: Budget,
    base: Base,
    encoded: Encoded,
    evaluator: Evaluator,
    model_hash: str,
) -> Prepared:
    """Plans of all seeds, and the reference's sums on the examples they use."""
    train = settings_for(arm, config.train)
    started = time.monotonic()
    lengths = [arm.objective.cost(example) for example in encoded.examples]
    plans = [
        make_plan(
            lengths,
            batch_size=train.batch_size,
            micro_tokens=train.micro_tokens,
            seed=seed,
            budget=budget,
            kind=base.layout,
            whole=arm.objective.coupled,
            quotas=arm.objective.quotas(encoded.examples),
        )
        for seed in range(config.seeds)
    ]
    examples = encoded.examples
    ledger = Ledger(overlong={"rows": encoded.overlong} if encoded.overlong else {})
    if arm.objective.reference_sums and "reference" in arm.objective.roles:
        used = (i for plan in plans for step in range(plan.steps) for i in plan.examples(step))
        examples, computed = with_reference_sums(examples, used, evaluator.start, train.micro_tokens, model_hash)
        # The seeds share one pass: each is charged its part.
        ledger.computed_tokens = round(computed / config.seeds)
    ledger.prepare_seconds = (time.monotonic() - started) / config.seeds
    return Prepared(arm, base, train, examples, plans, ledger)


def settings_for(arm: Arm, shared: TrainConfig) -> TrainConfig:
    """Training settings of an arm: what was given for all, the method's own defaults below it, the arm's settings
    above."""
    default = TrainConfig()
    own = {n: v for n, v in arm.objective.defaults.items() if getattr(shared, n) == getattr(default, n)}
    return replace(shared, **{**own, **arm.settings})


def _run(seed: int, measured: Measured, ledger: Ledger, curve: list[Record]) -> dict[str, Any]:
    return {
        "seed": seed,
        "metrics": measured.metrics,
        "items": measured.items,
        "ledger": {name: value for name, value in asdict(ledger).items() if name != "overlong"},
        "curve": curve,
        "failed": None,
    }


def _samples(evaluator: Evaluator, held_out: Rows, replies: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """The first prompts with every arm's reply (of its first seed) side by side."""
    samples = []
    for index, question in enumerate(evaluator.questions[:SAMPLES]):
        samples.append(
            {
                "prompt": question
                if isinstance(question, str)
                else "\n\n".join(f"{m['role']}: {m['content']}" for m in question),
                "checks": evaluator.requirements(index),
                "reference": None,
                "replies": {
                    name: {"text": texts[index], "ok": evaluator.passes(index, texts[index])}
                    for name, texts in replies.items()
                },
            }
        )
    return samples


def _notes(base: Base, evaluator: Evaluator, config: CompareConfig) -> list[str]:
    """Choices the run made, for the reader of the report."""
    how = "trees packed into rows without padding" if base.layout == "packed" else "one padded row a completion"
    notes = [
        f"The model computes in {base.dtype}; batches are {how}.",
        "A budget of tokens counts every position that the policy trains on, prompts included; "
        "reference passes are in the ledger.",
        "Seeds change the order of the data; all arms share the start model and the held-out rows.",
    ]
    if evaluator.prompts:
        notes.append(
            f"{len(evaluator.prompts)} held-out prompts are answered greedily, in at most "
            f"{config.max_new_tokens} tokens."
        )
    return notes
