"""The settings of a run and of a comparison. Field docstrings are the command's help; names are `TrainingArguments`'
where it has one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from teloi.engine.objective import Objective
from teloi.engine.stopping import HELD_OUT, StopWhen
from teloi.errors import UsageError

if TYPE_CHECKING:
    from teloi.engine.recipe import Recipe

SCHEDULES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial"),
    *("constant", "constant_with_warmup", "inverse_sqrt", "cosine_with_cooldown"),
)
"""transformers' schedules that need nothing but the number of steps, and our own."""

INCIDENTAL = ("output_dir", "resume", "overwrite", "dry_run", "save_steps", "report_to")
"""Settings that change how a run is watched or stored, not what comes out of it."""


@dataclass(frozen=True)
class Budget:
    """How much training: so many tokens (positions the policy trains on, prompt included), rows or optimiser steps."""

    value: int
    unit: Literal["tokens", "rows", "steps"] = "tokens"

    @classmethod
    def parse(cls, text: str) -> Budget:
        """ "200k", "1.5M tokens", "300 rows", "50steps". UsageError for anything else."""
        match = re.fullmatch(r"\s*([\d_.]+)\s*([kKmMgG]?)\s*(tokens?|rows?|steps?)?\s*", text)
        try:
            number = float(match[1].replace("_", "")) if match else 0.0
        except ValueError:
            number = 0.0
        value = number * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2].lower()] if match else 0
        if match is None or not 1 <= round(min(value, 1e18)) < 10**18:
            raise UsageError(f"budget {text!r} is not of the form 200k, 1.5M tokens, 300 rows or 50 steps")
        unit = (match[3] or "tokens").rstrip("s") + "s"
        return cls(round(value), unit)  # type: ignore[arg-type]  # the pattern admits these three only

    def __str__(self) -> str:
        return f"{self.value} {self.unit}"


def scratch_preset(model: str) -> str | None:
    """The preset of a model that starts from random weights, by its name "scratch:PRESET"; None for any other."""
    preset = model.removeprefix("scratch:")
    return None if preset == model else preset


@dataclass(frozen=True)
class TrainConfig:
    """Settings that every method shares."""

    model: str = "smollm2-135m-instruct"
    """Hugging Face directory or hub id; "smollm2-135m-instruct" is the embedded model; "scratch:tiny", "scratch:small"
    or "scratch:base" start from random weights with a tokenizer trained on the data."""
    data: str | None = None
    """Training rows: a file (.jsonl, .json, .csv, .tsv, .parquet, .txt, also .gz), a directory, a hub id, or the name
    of an embedded data set. Default: the embedded data that suits the method."""
    eval_data: str | None = None
    """Held-out rows, in the same forms; the loss on them is reported at the end and every `eval_steps`."""
    output_dir: Path | None = None
    """Where the checkpoint, run.yaml, metrics.jsonl, the model card and the curves go. Default: runs/METHOD."""
    limit: int | None = None
    """Read at most this many rows."""
    num_train_epochs: float = 1.0
    """Passes over the data, unless `max_steps` or `budget` says how much."""
    max_steps: int | None = None
    """Stop after so many optimiser steps."""
    budget: str | None = None
    """Train on so much: "200k" (tokens), "300 rows", "50 steps"; passes over the data repeat until it is spent."""
    batch_size: int = 16
    """Rows in each optimiser step."""
    micro_tokens: int = 2048
    """Tokens computed at a time: a step is cut into micro-batches of at most this many. Memory, not results, depends on
    it."""
    max_length: int = 1024
    """Longest example in tokens, prompt and completion together."""
    overlong: Literal["drop", "truncate", "fail"] = "drop"
    """What happens to longer examples; how many were dropped or truncated is reported."""
    learning_rate: float = 1e-5
    """Peak learning rate."""
    lr_scheduler_type: str = "linear"
    """Schedule after warm-up, by transformers' names: linear, cosine, cosine_with_restarts, polynomial, constant,
    constant_with_warmup or inverse_sqrt; or cosine_with_cooldown, GPT-BERT's: to a tenth, then to 0 over as many steps
    as the warm-up took."""
    warmup_ratio: float = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 switches that off."""
    adam_beta1: float = 0.9
    """Decay of AdamW's first moment."""
    adam_beta2: float = 0.999
    """Decay of AdamW's second moment."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Numbers the model computes with. bfloat16 keeps float32 master weights in the optimiser. auto: bfloat16 for real
    models where the processor has it, float32 for tiny ones."""
    lora: bool = False
    """Train a low-rank adapter (LoRA) instead of all weights; the base model is then its own reference."""
    lora_r: int = 16
    """Rank of the adapter."""
    lora_alpha: int = 32
    """Scale of the adapter: its output is multiplied by alpha / r."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    torch_compile: bool = False
    """Compile the model: pays on long runs only."""
    layout: Literal["auto", "packed", "padded"] = "auto"
    """packed: trees in rows without padding; padded: one row a completion. auto asks a small model of the same
    architecture whether packing is right for it."""
    seed: int = 0
    """Seed of initialisation, order and every random draw."""
    stop_when: str | None = None
    """End the run once a logged number says so: "kl > 10", "reward >= 0.9", "kl > 10 or eval_loss < 1.2"."""
    save_steps: int | None = None
    """Write a checkpoint every so many steps. Default: every five minutes."""
    logging_steps: int = 1
    """Log every so many steps."""
    eval_steps: int | None = None
    """Evaluate on `eval_data` every so many steps. Default: at the end only."""
    report_to: str = "none"
    """Tracker by transformers' names: tensorboard, wandb, trackio, ..."""
    resume: bool = False
    """Continue a run that was interrupted, from its last checkpoint, to the same weights."""
    overwrite: bool = False
    """Replace what another run left in the output directory."""
    dry_run: bool = False
    """Show one decoded batch, its size and the time the run would take, and train nothing."""

    def __post_init__(self) -> None:
        positive = {
            name: getattr(self, name)
            for name in ("batch_size", "micro_tokens", "max_length", "logging_steps", "lora_r", "lora_alpha")
        }
        positive |= {
            n: v for n in ("limit", "max_steps", "save_steps", "eval_steps") if (v := getattr(self, n)) is not None
        }
        for name, value in positive.items():
            if value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        for name in ("num_train_epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("weight_decay", "max_grad_norm", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must not be below 0: {getattr(self, name)}")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if not 0 <= self.warmup_ratio <= 1:
            raise UsageError(f"warmup_ratio must lie between 0 and 1, not {self.warmup_ratio}")
        if self.lr_scheduler_type not in SCHEDULES:
            raise UsageError(
                f"there is no schedule {self.lr_scheduler_type!r}: lr_scheduler_type is one of {', '.join(SCHEDULES)}"
            )
        if self.resume and self.overwrite:
            raise UsageError("resume continues a run and overwrite replaces it: choose one")
        if self.budget is not None:
            Budget.parse(self.budget)
        asked = StopWhen.parse(self.stop_when).names if self.stop_when is not None else []
        if (unmeasured := [name for name in asked if name.startswith(HELD_OUT)]) and self.eval_data is None:
            raise UsageError(f"stop_when: {unmeasured[0]} is measured on held-out rows, and there is no eval_data")

    @property
    def amount(self) -> Budget | None:
        """The parsed budget."""
        return None if self.budget is None else Budget.parse(self.budget)


@dataclass(frozen=True)
class CompareConfig:
    """Settings of a comparison: every arm gets the same model, data, budget and seeds."""

    data: str = "instructions"
    """Training rows, cast to each method's format."""
    eval_data: tuple[str, ...] | None = None
    """Held-out rows the metrics are measured on, one set or several of different kinds: prompts with checks or
    preferences; plain text (bits per character); minimal pairs (good, bad, paradigm); labelled texts (text, label), on
    which a linear probe reads the frozen model. Default: the data set's own test split, else a tenth of the data, held
    out by row."""
    budget: str = "100k"
    """Training of each arm and seed: "100k" (tokens), "300 rows", "50 steps"."""
    metric: str = "auto"
    """What decides, by its name in results.json: checks, preference_accuracy, probe, minimal_pairs,
    bits_per_character, ... auto: the first of these that the held-out rows allow for all arms."""
    seeds: int = 3
    """Training runs for each arm, seeds 0, 1, ..."""
    eval_limit: int = 128
    """Measure on at most so many held-out rows of a set."""
    probe_rows: int = 1000
    """Fit a probe on at most so many labelled rows."""
    generate: int = 64
    """Held-out prompts answered greedily for behavioural metrics and the samples of the report; 0 for none."""
    max_new_tokens: int = 64
    """Longest reply in tokens."""
    jobs: int | None = None
    """Runs at a time, each on one core. Default: one a core on a small machine without a GPU, else one run on all
    cores."""
    output_dir: Path | None = None
    """Where results.json, report.html and the figures go. Default: runs/compare-METHOD-METHOD..."""
    overwrite: bool = False
    """Replace what another comparison left in the output directory."""
    resume: bool = False
    """Go on with a comparison that was interrupted: what it has measured is kept."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Settings of every arm's training."""

    def __post_init__(self) -> None:
        for name, least in (
            ("seeds", 1),
            ("eval_limit", 1),
            ("probe_rows", 10),
            ("generate", 0),
            ("max_new_tokens", 1),
        ):
            if (value := getattr(self, name)) is not None and value < least:
                raise UsageError(f"{name} must be at least {least}, not {value}")
        Budget.parse(self.budget)


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: an objective, or a recipe whose stages share the budget, and the training settings it
    does not share with the others."""

    name: str
    method: str
    objective: Objective | Recipe
    settings: Mapping[str, Any] = field(default_factory=dict)


def check_sampling(temperature: float, top_p: float, top_k: int) -> None:
    """UsageError for settings that no token can be drawn by."""
    if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
        raise UsageError("temperature must be above 0, top_k not negative, and top_p above 0 and not above 1")


def plain(value: Any) -> Any:
    """A setting as YAML and JSON hold and give it back."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
