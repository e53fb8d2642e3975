"""`teloi compare`: several objectives from one start model, on the same rows, under one budget, over several seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import teloi
from teloi.data.scoring import Scoring
from teloi.engine.arms import (
    Chained,
    Prepared,
    Untrained,
    own_tokenizer,
    prepare,
    settings_for,
    shown_settings,
    untrained_scorings,
)
from teloi.engine.behaviour import Behaviour
from teloi.engine.config import INCIDENTAL, Arm, Budget, CompareConfig, plain, scratch_preset
from teloi.engine.dataset import encode
from teloi.engine.directory import check_writable, occupied, writing
from teloi.engine.evaluator import Evaluator
from teloi.engine.held_out import read_data, rows_hash
from teloi.engine.metrics import Metric
from teloi.engine.objective import Architecture, Objective
from teloi.engine.processes import device
from teloi.engine.progress import bar, say
from teloi.engine.recipe import Recipe
from teloi.engine.reference import fingerprint
from teloi.engine.setup import Base, load_bases, tokenizer_for
from teloi.errors import UsageError
from teloi.files import json_text, write_text
from teloi.jobs import default_jobs, in_parallel, one_by_one
from teloi.measure.probing import LONGEST

BASE = "base"
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
    architectures = list(dict.fromkeys(arm.objective.architecture for arm in arms))
    rows, held_out = read_data(config, causal=architectures == ["causal"])
    jobs = config.jobs or default_jobs()
    if jobs > 1 and device().type == "cuda":
        raise UsageError("several runs at a time are for CPUs, on a GPU they follow one another: leave --jobs out")
    objectives = [arm.objective for arm in arms if isinstance(arm.objective, Objective)]
    tokenizer = next(filter(None, map(tokenizer_for, objectives)), None)
    bases = load_bases(config.train, rows, architectures, tokenizer)
    # An objective may give the tokenizer a token: each arm has its own.
    starts = [own_tokenizer(bases[arm.objective.architecture]) for arm in arms]
    # Rows that one arm cannot use are found before another has trained.
    encoded = [
        encode(arm.objective, rows, start.processor) if isinstance(arm.objective, Objective) else None
        for arm, start in zip(arms, starts, strict=True)
    ]
    scorings = [arm.objective.scorings(start.processor) for arm, start in zip(arms, starts, strict=True)]
    check_writers(arms, scorings)
    evaluator = Evaluator(held_out, bases, config)
    metrics = evaluator.metrics(config.metric, scorings)
    budget = Budget.parse(config.budget)
    redraws = scratch_preset(config.train.model) is not None and evaluator.behaviour is None
    untrained = [
        Untrained(base, untrained_scorings(base, arms, scorings), config.train, redraws) for base in bases.values()
    ]
    several = len(untrained) > 1
    results: dict[str, Any] = {
        "teloi": teloi.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "path": str(path),
        "data": {
            "train": rows.name,
            "eval": held_out.name,
            "train_rows": len(rows),
            "eval_rows": held_out.size,
            "hash": rows_hash(rows, *held_out.rows),
        },
        "model": next(iter(bases.values())).name,
        "model_hash": "-".join(fingerprint(base.model) for base in bases.values()),
        "training": {name: plain(value) for name, value in asdict(config.train).items() if name not in INCIDENTAL},
        "generation": {"prompts": config.generate, "max_new_tokens": config.max_new_tokens},
        "budget": asdict(budget),
        "seeds": list(range(config.seeds)),
        "metrics": [{**asdict(metric), "primary": place == 0} for place, metric in enumerate(metrics)],
        "notes": [*notes, *_notes(bases, arms, scorings, evaluator, config, redraws)],
        "arms": [
            *(
                {
                    "name": f"untrained {one.base.architecture}" if several else BASE,
                    "method": None,
                    "settings": {},
                    "baseline": True,
                    "undefined": _undefined(evaluator, metrics, one.scorings),
                    "runs": [],
                }
                for one in untrained
            ),
            *(
                {
                    "name": arm.name,
                    "method": arm.method,
                    "settings": shown_settings(arm, config.train),
                    "baseline": False,
                    "against": f"untrained {arm.objective.architecture}" if several else BASE,
                    "undefined": _undefined(evaluator, metrics, ways),
                    "runs": [],
                }
                for arm, ways in zip(arms, scorings, strict=True)
            ),
        ],
        "samples": [],
    }
    if config.resume:
        take_up(path, results)
    there = sum(len(arm["runs"]) for arm in results["arms"] if arm["method"] is not None)
    say(
        f"{' and '.join(described(base) for base in bases.values())}; {len(rows):,} training rows of {rows.name}, "
        f"measured on {held_out.name}; {len(arms)} arms x {config.seeds} seeds, {budget} each; decided by "
        f"{metrics[0].label}" + (f"; {there} runs are there already" if there else "")
    )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    samples = Samples(evaluator.behaviour, results["samples"])
    workers: dict[int, Untrained | Prepared | Chained] = dict(enumerate(untrained))
    done = [{run["seed"] for run in arm["runs"]} for arm in results["arms"]]
    missing = [
        (place, seed)
        for place in range(len(results["arms"]))
        for seed in (range(config.seeds) if place >= len(untrained) else untrained[place].seeds(config.seeds))
        if seed not in done[place]
    ]
    with bar(sum(map(len, done)) + len(missing), "compare") as advance:

        def keep(arm: dict[str, Any], run: dict[str, Any], replies: list[str] | None) -> None:
            arm["runs"] = sorted([*arm["runs"], run], key=lambda run: run["seed"])
            if replies:
                samples.add(arm["name"], replies, first=run["seed"] == 0)
            results["samples"] = samples.rows
            with writing(path):
                write_text(path / RESULTS, json_text(results) + "\n")
            advance(f"{arm['name']}, seed {run['seed']}{': failed' if run['failed'] else ''}")

        for _ in range(sum(map(len, done))):
            advance("resumed")
        first = [item for item in missing if item[0] < len(untrained) and not redraws]
        for place, seed in first:  # in this process: a large start model may need all cores
            keep(results["arms"][place], *untrained[place].run(seed, evaluator, metrics))
        missing = [item for item in missing if item not in first]
        for place in dict.fromkeys(place for place, _ in missing if place >= len(untrained)):
            at = place - len(untrained)
            arm, start, examples = arms[at], starts[at], encoded[at]
            if isinstance(arm.objective, Recipe):
                train = replace(settings_for(arm, config.train), budget=config.budget)
                workers[place] = Chained(arm.objective, arm.method, start, train, rows, scorings[at], redraws)
            elif examples is not None:
                workers[place] = prepare(arm, config, budget, start, examples, scorings[at], redraws)

        def work(item: tuple[int, int]) -> tuple[dict[str, Any], list[str] | None]:
            place, seed = item
            return workers[place].run(seed, evaluator, metrics)

        def name(item: tuple[int, int]) -> str:
            place, seed = item
            return f"{results['arms'][place]['name']}, seed {seed}"

        # Forked, for the model, the examples and the reference's sums are held once and never sent.
        made = one_by_one(work, missing, name) if jobs == 1 else in_parallel(work, missing, jobs, name, fork=True)
        for (place, _), (run, replies) in made:
            keep(results["arms"][place], run, replies)
    return results


def check_arms(arms: Sequence[Arm]) -> None:
    """UsageError for arms that no comparison can hold."""
    if len({arm.name for arm in arms}) < len(arms):
        raise UsageError("two arms have the same name; give one of them different settings")
    for arm in arms:
        if isinstance(arm.objective, Recipe) and not arm.objective.shares_budget:
            raise UsageError(
                f"the stages of {arm.name} have budgets of their own, so it has no place among arms of one"
            )
    if other := next((arm for arm in arms if arm.objective.architecture == "none"), None):
        raise UsageError(
            f"{other.name} builds its own model, which reads no text, and a comparison has metrics for no such: "
            f"teloi train {other.method} with --eval-data reports its loss on held-out rows"
        )


def check_writers(arms: Sequence[Arm], scorings: Sequence[Sequence[Scoring]]) -> None:
    """UsageError for an arm that leaves a causal model which is no language model any more."""
    for arm, ways in zip(arms, scorings, strict=True):
        if arm.objective.architecture == "causal" and not ways:
            raise UsageError(
                f"{arm.name} leaves a model that judges answers and writes none, so it has no place beside models that "
                "write: rm-ppo trains a reward model and then a policy against it"
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


def described(base: Base) -> str:
    """A start model in words."""
    kind = "" if base.architecture == "causal" else f"{base.architecture} "
    return f"{kind}{base.name} in {base.dtype}"


def _undefined(evaluator: Evaluator, metrics: Sequence[Metric], scorings: Sequence[Scoring]) -> dict[str, str]:
    """The metrics that an arm cannot have, and why."""
    reasons = {metric.name: evaluator.why_not(metric.name, scorings) for metric in metrics}
    return {name: reason for name, reason in reasons.items() if reason is not None}


class Samples:
    """The first prompts with every arm's reply side by side, of its first seed where that is there."""

    def __init__(self, behaviour: Behaviour | None, rows: list[dict[str, Any]]) -> None:
        """`rows`: what an interrupted comparison had of them."""
        self.behaviour = behaviour
        self.rows = rows or [
            {
                "prompt": question
                if isinstance(question, str)
                else "\n\n".join(f"{m['role']}: {m['content']}" for m in question),
                "checks": behaviour.requirements(index) if behaviour else [],
                "reference": None,
                "replies": {},
            }
            for index, question in enumerate(behaviour.questions[:SAMPLES] if behaviour else ())
        ]

    def add(self, arm: str, texts: Sequence[str], first: bool) -> None:
        """The replies of an arm with some seed; those of its `first` replace others."""
        for index, row in enumerate(self.rows):
            if self.behaviour and (first or arm not in row["replies"]):
                row["replies"][arm] = {"text": texts[index], "ok": self.behaviour.passes(index, texts[index])}


def _notes(
    bases: Mapping[Architecture, Base],
    arms: Sequence[Arm],
    scorings: Sequence[Sequence[Scoring]],
    evaluator: Evaluator,
    config: CompareConfig,
    redraws: bool,
) -> list[str]:
    """Choices the run made, for the reader of the report."""
    notes = [f"The {name} model computes in {base.dtype}; batches are {base.batches}." for name, base in bases.items()]
    if len(bases) > 1:
        names = {"causal": "Llama", "seq2seq": "T5, half of them in the encoder, half in the decoder"}
        kinds = ", ".join(f"{name} ({names.get(name, 'BERT')})" for name in bases)
        notes += [
            f"One model an architecture, of the same width and the same number of layers: {kinds}. Their parameters, "
            "those of heads that a method brings included, stand in the ledger.",
            "One vocabulary, trained once on the training rows: all arms cut a text into the same tokens.",
        ]
    notes.append(
        "A budget of tokens counts every position that a step computes: prompts, and of an encoder-decoder what its "
        "encoder reads and what its decoder writes; reference passes are in the ledger. The column epochs there says "
        "how often an arm has seen its training rows."
    )
    notes.append(
        "Seeds change the initial weights and the order of the data; the arms of a seed share the held-out rows, and "
        "the initial weights where they share an architecture."
        if redraws
        else "Seeds change the order of the data; all arms share the start model and the held-out rows."
    )
    held_out = evaluator.held_out
    if held_out.texts or held_out.pairs:
        ways = "; ".join(
            f"{arm.name} {' and '.join(one.kind for one in found) or 'in no way'}"
            for arm, found in zip(arms, scorings, strict=True)
        )
        notes.append(
            f"How the arms score a text, which is how they were trained: {ways}. Causal: each token given those before "
            "it, behind what the arm begins a text with. Prefix: the same, an encoder reading what comes before. "
            "Masked: each given all others, at a mask; gaps: the same at a sentinel. Texts longer than what an arm was "
            "trained on are scored in pieces."
        )
    for one in held_out.probes:
        notes.append(
            f"Probe on {one.name}: fitted on {len(one.training.classes):,} labelled texts and tested on "
            f"{len(one.test.classes):,}, at most {LONGEST} tokens of each, the same for all arms; the model stays "
            f"frozen. Calling every test text the most frequent class gets {one.largest_share:.1%}."
        )
    decoders = [(a.name, ways) for a, ways in zip(arms, scorings, strict=True) if a.objective.architecture == "causal"]
    both = [name for name, ways in decoders if any(one.kind == "masked" for one in ways)]
    if both and (held_out.probes or held_out.pairs):
        known = bases["causal"].processor.tokenizer.mask_token_id is not None
        too = " and the decoder that nothing has trained" if known else ""
        notes.append(f"A probe reads {', '.join(both)}{too} in both directions, other decoders from left to right.")
    behaviour = evaluator.behaviour
    if behaviour and behaviour.prompts:
        notes.append(
            f"{len(behaviour.prompts)} held-out prompts are answered greedily, in at most "
            f"{config.max_new_tokens} tokens."
        )
    return notes
