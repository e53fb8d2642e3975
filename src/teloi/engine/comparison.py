"""What the arms of a comparison share before any has trained, and how `results.json` begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import teloi
from teloi.data.read import Rows
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
from teloi.engine.config import INCIDENTAL, Arm, Budget, CompareConfig, plain, scratch_preset
from teloi.engine.dataset import Encoded, encode
from teloi.engine.evaluator import Evaluator
from teloi.engine.held_out import HeldOut, read_data, rows_hash
from teloi.engine.metrics import Metric
from teloi.engine.objective import Architecture, Objective
from teloi.engine.recipe import Recipe
from teloi.engine.reference import fingerprint
from teloi.engine.setup import Base, load_bases, tokenizer_for
from teloi.errors import UsageError
from teloi.measure.probing import LONGEST

BASE = "base"


@dataclass(frozen=True)
class Comparison:
    """Data, start models and metrics of a comparison; `starts`, `encoded` (nothing of a recipe, whose stages encode
    for themselves) and `scorings` arm by arm."""

    arms: Sequence[Arm]
    config: CompareConfig
    rows: Rows
    held_out: HeldOut
    bases: Mapping[Architecture, Base]
    starts: Sequence[Base]
    encoded: Sequence[Encoded | None]
    scorings: Sequence[Sequence[Scoring]]
    evaluator: Evaluator
    metrics: Sequence[Metric]
    redraws: bool
    """Whether every seed draws its initial weights anew."""

    @property
    def untrained(self) -> list[Untrained]:
        """The start models as arms, which come before the others."""
        return [
            Untrained(base, untrained_scorings(base, self.arms, self.scorings), self.config.train, self.redraws)
            for base in self.bases.values()
        ]

    def worker(self, at: int) -> Prepared | Chained:
        """What trains and measures the seeds of an arm."""
        arm, start, encoded = self.arms[at], self.starts[at], self.encoded[at]
        if encoded is None:
            assert isinstance(arm.objective, Recipe)
            train = replace(settings_for(arm, self.config.train), budget=self.config.budget)
            return Chained(arm.objective, arm.method, start, train, self.rows, self.scorings[at], self.redraws)
        budget = Budget.parse(self.config.budget)
        return prepare(arm, self.config, budget, start, encoded, self.scorings[at], self.redraws)


def set_up(arms: Sequence[Arm], config: CompareConfig) -> Comparison:
    """Read the data, load the start models, encode the rows for every arm. Whatever is wrong with rows or arms is
    found here, before one has trained."""
    architectures = list(dict.fromkeys(arm.objective.architecture for arm in arms))
    rows, held_out = read_data(config, causal=architectures == ["causal"])
    objectives = [arm.objective for arm in arms if isinstance(arm.objective, Objective)]
    tokenizer = next(filter(None, map(tokenizer_for, objectives)), None)
    bases = load_bases(config.train, rows, architectures, tokenizer)
    # An objective may give the tokenizer a token: each arm has its own.
    starts = [own_tokenizer(bases[arm.objective.architecture]) for arm in arms]
    encoded = [
        encode(arm.objective, rows, start.processor) if isinstance(arm.objective, Objective) else None
        for arm, start in zip(arms, starts, strict=True)
    ]
    scorings = [arm.objective.scorings(start.processor) for arm, start in zip(arms, starts, strict=True)]
    check_writers(arms, scorings)
    evaluator = Evaluator(held_out, bases, config)
    metrics = evaluator.metrics(config.metric, scorings)
    redraws = scratch_preset(config.train.model) is not None and evaluator.behaviour is None
    return Comparison(arms, config, rows, held_out, bases, starts, encoded, scorings, evaluator, metrics, redraws)


def head(comparison: Comparison, path: Path, command: str, notes: Sequence[str]) -> dict[str, Any]:
    """What `results.json` holds before a run: everything but runs and samples."""
    config, bases, evaluator = comparison.config, comparison.bases, comparison.evaluator
    untrained, metrics = comparison.untrained, comparison.metrics
    several = len(untrained) > 1
    start_models: list[dict[str, Any]] = [
        {
            "name": f"untrained {one.base.architecture}" if several else BASE,
            "method": None,
            "settings": {},
            "baseline": True,
            "undefined": _undefined(evaluator, metrics, one.scorings),
            "runs": [],
        }
        for one in untrained
    ]
    trained: list[dict[str, Any]] = [
        {
            "name": arm.name,
            "method": arm.method,
            "settings": shown_settings(arm, config.train),
            "baseline": False,
            "against": f"untrained {arm.objective.architecture}" if several else BASE,
            "undefined": _undefined(evaluator, metrics, ways),
            "runs": [],
        }
        for arm, ways in zip(comparison.arms, comparison.scorings, strict=True)
    ]
    return {
        "teloi": teloi.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "path": str(path),
        "data": {
            "train": comparison.rows.name,
            "eval": comparison.held_out.name,
            "train_rows": len(comparison.rows),
            "eval_rows": comparison.held_out.size,
            "hash": rows_hash(comparison.rows, *comparison.held_out.rows),
        },
        "model": next(iter(bases.values())).name,
        "model_hash": "-".join(fingerprint(base.model) for base in bases.values()),
        "training": {name: plain(value) for name, value in asdict(config.train).items() if name not in INCIDENTAL},
        "generation": {"prompts": config.generate, "max_new_tokens": config.max_new_tokens},
        "budget": asdict(Budget.parse(config.budget)),
        "seeds": list(range(config.seeds)),
        "metrics": [{**asdict(metric), "primary": place == 0} for place, metric in enumerate(metrics)],
        "notes": [*notes, *_notes(comparison)],
        "arms": start_models + trained,
        "samples": [],
    }


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


def described(base: Base) -> str:
    """A start model in words."""
    kind = "" if base.architecture == "causal" else f"{base.architecture} "
    return f"{kind}{base.name} in {base.dtype}"


def _undefined(evaluator: Evaluator, metrics: Sequence[Metric], scorings: Sequence[Scoring]) -> dict[str, str]:
    """The metrics that an arm cannot have, and why."""
    reasons = {metric.name: evaluator.why_not(metric.name, scorings) for metric in metrics}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _notes(comparison: Comparison) -> list[str]:
    """Choices the run made, for the reader of the report."""
    arms, bases, scorings = comparison.arms, comparison.bases, comparison.scorings
    held_out, behaviour = comparison.held_out, comparison.evaluator.behaviour
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
        if comparison.redraws
        else "Seeds change the order of the data; all arms share the start model and the held-out rows."
    )
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
    if behaviour and behaviour.prompts:
        notes.append(
            f"{len(behaviour.prompts)} held-out prompts are answered greedily, in at most "
            f"{comparison.config.max_new_tokens} tokens."
        )
    return notes
