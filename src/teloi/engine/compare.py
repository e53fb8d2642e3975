"""`teloi compare`: several objectives from one start model, on the same rows, under one budget, over several seeds."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import teloi
from teloi.data.read import Rows, read
from teloi.engine.config import INCIDENTAL, Arm, Budget, CompareConfig, TrainConfig, plain
from teloi.engine.dataset import Encoded, encode
from teloi.engine.directory import check_writable, occupied, writing
from teloi.engine.loop import Record, Trainer
from teloi.engine.metrics import Evaluator, Measured
from teloi.engine.objective import Ledger
from teloi.engine.plan import Plan, make_plan
from teloi.engine.progress import bar, say
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import Base, load_base, make_models
from teloi.errors import DataError, NonFinite, RowError, UsageError
from teloi.files import write_text
from teloi.jobs import default_jobs, in_parallel, one_by_one
from teloi.models.roles import merged

RESULTS = "results.json"
SAMPLES = 12
"""Prompts whose replies the report shows side by side."""

SAME = ("teloi", "data", "model_hash", "training", "generation", "budget", "seeds", "metrics")
"""What must be as it was for a comparison to be resumed, beside its arms."""


def compare(arms: Sequence[Arm], config: CompareConfig, command: str = "", notes: Sequence[str] = ()) -> dict[str, Any]:
    """Train every arm with every seed, measure all on the same held-out rows; returns what `results.json` holds.

    The file is rewritten after every run, so an interrupted comparison keeps what it has measured, and goes on from
    there with `config.resume`. A run whose loss stops being a number is counted as failed; the others go on. `notes`
    are the caller's own, for the reader.
    """
    check_arms(arms)
    path = config.output_dir or Path("runs") / ("compare-" + "-".join(arm.name for arm in arms))
    check_place(path, config)
    rows, held_out = split(config)
    base = load_base(config.train, rows)
    # Rows that one arm cannot use are found before another has trained.
    encoded = [encode(arm.objective, rows, base.processor) for arm in arms]
    evaluator = Evaluator(base, held_out, config.generate, config.max_new_tokens, config.train.micro_tokens)
    metrics = evaluator.metrics(config.metric)
    budget = Budget.parse(config.budget)
    model_hash = fingerprint(base.model)
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
            "hash": rows_hash(rows, held_out),
        },
        "model": base.name,
        "model_hash": model_hash,
        "training": {name: plain(value) for name, value in asdict(config.train).items() if name not in INCIDENTAL},
        "generation": {"prompts": config.generate, "max_new_tokens": config.max_new_tokens},
        "budget": asdict(budget),
        "seeds": list(range(config.seeds)),
        "metrics": [{**asdict(metric), "primary": place == 0} for place, metric in enumerate(metrics)],
        "notes": [*notes, *_notes(base, evaluator, config)],
        "arms": [
            {"name": "base", "method": None, "settings": {}, "baseline": True, "runs": []},
            *(
                {
                    "name": arm.name,
                    "method": arm.method,
                    "settings": {n: plain(v) for n, v in {**arm.objective.settings(), **arm.settings}.items()},
                    "baseline": False,
                    "runs": [],
                }
                for arm in arms
            ),
        ],
        "samples": [],
    }
    if config.resume:
        take_up(path, results)
    there = sum(len(arm["runs"]) for arm in results["arms"][1:])
    say(
        f"{base.name} in {base.dtype}; {len(rows):,} training rows of {rows.name}, {len(held_out):,} held out; "
        f"{len(arms)} arms x {config.seeds} seeds, {budget} each; decided by {metrics[0].label}"
        + (f"; {there} runs are there already" if there else "")
    )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    samples = Samples(evaluator, results["samples"])
    with bar(len(arms) * config.seeds + 1, "compare") as advance:

        def keep(arm: dict[str, Any], run: dict[str, Any], replies: list[str] | None) -> None:
            arm["runs"] = sorted([*arm["runs"], run], key=lambda run: run["seed"])
            if replies is not None:
                samples.add(arm["name"], replies, first=run["seed"] == 0)
            results["samples"] = samples.rows
            with writing(path):
                write_text(path / RESULTS, json.dumps(results, indent=1) + "\n")
            advance(f"{arm['name']}, seed {run['seed']}{': failed' if run['failed'] else ''}")

        for _ in range(there + len(results["arms"][0]["runs"])):
            advance("resumed")
        if not results["arms"][0]["runs"]:
            started = time.monotonic()
            measured = evaluator.measure(evaluator.start)
            ledger = Ledger(eval_seconds=time.monotonic() - started)
            keep(results["arms"][0], _run(0, measured, ledger, []), measured.replies)
        missing = [
            (place, seed)
            for place in range(len(arms))
            for seed in range(config.seeds)
            if seed not in [run["seed"] for run in results["arms"][1 + place]["runs"]]
        ]
        prepared = {
            place: prepare(arms[place], config, budget, base, encoded[place], evaluator, model_hash)
            for place in dict.fromkeys(place for place, _ in missing)
        }

        def work(item: tuple[int, int]) -> tuple[dict[str, Any], list[str] | None]:
            place, seed = item
            return prepared[place].run(seed, evaluator)

        def name(item: tuple[int, int]) -> str:
            place, seed = item
            return f"{arms[place].name}, seed {seed}"

        jobs = config.jobs or default_jobs()
        # Forked, for the model, the examples and the reference's sums are held once and never sent.
        made = one_by_one(work, missing, name) if jobs == 1 else in_parallel(work, missing, jobs, name, fork=True)
        for (place, _), (run, replies) in made:
            keep(results["arms"][1 + place], run, replies)
    return results


def check_arms(arms: Sequence[Arm]) -> None:
    """UsageError for arms that no comparison can hold."""
    if len({arm.name for arm in arms}) < len(arms):
        raise UsageError("two arms have the same name; give one of them different settings")
    if other := next((arm for arm in arms if arm.objective.architecture != "causal"), None):
        raise UsageError(
            f"{other.name} does not train a causal model, and a comparison has metrics for no other: "
            f"teloi train {other.method} with --eval-data reports its loss on held-out rows"
        )


def check_place(path: Path, config: CompareConfig) -> None:
    """UsageError where the results cannot go there, or would replace something."""
    check_writable(path)
    if occupied(path) and not (path / RESULTS).exists():
        raise UsageError(f"{path} is not empty and holds no comparison: choose another --output-dir")
    if occupied(path) and not config.overwrite and not config.resume:
        raise UsageError(
            f"{path} holds another comparison: choose another --output-dir, go on with --resume or --overwrite it"
        )


def take_up(path: Path, results: dict[str, Any]) -> None:
    """Put what an interrupted comparison has measured into the results of this one, which must be the same."""
    if not (path / RESULTS).exists():
        return
    earlier = json.loads((path / RESULTS).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(results))

    def arms(of: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{name: value for name, value in arm.items() if name != "runs"} for arm in of["arms"]]

    changed = [name for name in SAME if earlier.get(name) != now[name]]
    if changed or arms(earlier) != arms(now):
        what = " and ".join(changed) or "settings of an arm"
        raise UsageError(f"{path} holds another comparison, so it cannot be resumed: another {what}")
    results |= {"arms": earlier["arms"], "samples": earlier["samples"]}


def rows_hash(*parts: Rows) -> str:
    """Changes with any row."""
    digest = hashlib.sha256()
    for rows in parts:
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def split(config: CompareConfig) -> tuple[Rows, Rows]:
    """Training and held-out rows: `eval_data`, else the data's own test split, else every tenth row held out."""
    limit = config.train.limit
    rows = read(config.data, "train", limit)
    held_out: Rows | None = None
    if config.eval_data:
        held_out = _held_out(config.eval_data, config)
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


def _held_out(spec: str, config: CompareConfig) -> Rows:
    """The test split of the held-out data; all of a set that has no such part and is not what is trained on."""
    try:
        return read(spec, "test", config.eval_limit)
    except RowError:
        raise
    except DataError:
        if spec == config.data:
            raise
        return read(spec, "train", config.eval_limit)


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
        model = copy.deepcopy(self.base.model)
        models = make_models(self.arm.objective, self.base, config, model, example=self.examples[0])
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


class Samples:
    """The first prompts with every arm's reply side by side, of its first seed where that is there."""

    def __init__(self, evaluator: Evaluator, rows: list[dict[str, Any]]) -> None:
        """`rows`: what an interrupted comparison had of them."""
        self.evaluator = evaluator
        self.rows = rows or [
            {
                "prompt": question
                if isinstance(question, str)
                else "\n\n".join(f"{m['role']}: {m['content']}" for m in question),
                "checks": evaluator.requirements(index),
                "reference": None,
                "replies": {},
            }
            for index, question in enumerate(evaluator.questions[:SAMPLES])
        ]

    def add(self, arm: str, texts: Sequence[str], first: bool) -> None:
        """The replies of an arm with some seed; those of its `first` replace others."""
        for index, row in enumerate(self.rows):
            if first or arm not in row["replies"]:
                row["replies"][arm] = {"text": texts[index], "ok": self.evaluator.passes(index, texts[index])}


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
