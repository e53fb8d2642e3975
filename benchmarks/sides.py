"""What the sides of several benchmarks do in their own processes: our trainer as `teloi train` builds it, TRL's at the
settings that are fastest on the machine at hand, tiny models, and the measure of the machine itself."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.harness import Result
from teloi.batch.tree import TreeBatch
from teloi.data.read import Rows
from teloi.engine.config import TrainConfig
from teloi.engine.dataset import encode
from teloi.engine.loop import Trainer
from teloi.engine.objective import Objective
from teloi.engine.plan import pack
from teloi.engine.reference import fingerprint, with_reference_sums
from teloi.engine.setup import keep_memory, load_base, make_models
from teloi.engine.train import plan_for
from teloi.models.load import load_model, load_tokenizer
from teloi.models.roles import CachedReference, Models, evaluation
from teloi.models.scratch import scratch_model, train_tokenizer

SIZE = 2048
"""Of the square matrices whose product measures the machine."""


def trainer(objective: Objective, rows: Sequence[Any], steps: int, **settings: Any) -> Trainer:
    """Our trainer for so many steps, each on all rows, at a constant rate; built as `teloi train` does it."""
    config = TrainConfig(
        batch_size=len(rows), max_steps=steps, num_train_epochs=steps, lr_scheduler_type="constant", **settings
    )
    given = Rows(rows, "rows")
    base = load_base(config, given, objective.architecture)
    examples = encode(objective, given, base.processor).examples
    assert len(examples) == len(rows), "some rows are longer than the context: the sides would differ"
    plan = plan_for(objective, config, examples, base)
    model_hash = fingerprint(base.model)
    models = make_models(objective, base, config, example=examples[0])
    if isinstance(models.reference, CachedReference):
        used = range(len(examples))
        examples, _ = with_reference_sums(examples, used, models.policy, config.micro_tokens, model_hash)
    return Trainer(objective, models, examples, plan, config)


def branch_sums(models: Models, trees: Sequence[Any]) -> list[float]:
    """The log-probability of every branch under the policy, tree by tree."""
    found: dict[int, list[float]] = {}
    with evaluation(models.policy.model):
        for micro in pack(list(range(len(trees))), [tree.size for tree in trees], 2048, models.layout):
            sums = models.policy.branch_sums(TreeBatch([trees[i] for i in micro], models.device))
            found.update(zip(micro, sums.T.tolist(), strict=True))
    return [value for i in range(len(trees)) for value in found[i]]


def peer_trainer(
    kind: str,
    rows: Sequence[Any],
    model: Any,
    tokenizer: Any,
    *,
    device: str,
    autocast: bool,
    batch: int,
    lora: bool = False,
    steps: int = 1,
    optimizer: Any = None,
    marks: Callable[..., None] | None = None,
    given: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """TRL's trainer of that kind, for so many optimiser steps on all rows. `settings` are its configuration's, `given`
    goes to the trainer itself.

    Rows stay in their order, shortest first, so that those of a batch are about as long; nothing is saved, logged or
    recomputed. `marks` is called before and after each step."""
    from datasets import Dataset

    keep_memory()  # a quarter faster for them too
    more = dict(given or {})
    if optimizer is not None:
        more["optimizers"] = (optimizer, None)
    if lora:
        from peft import LoraConfig

        plain = TrainConfig()
        more["peft_config"] = LoraConfig(
            r=plain.lora_r, lora_alpha=plain.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    trl = importlib.import_module("trl")
    arguments = getattr(trl, f"{kind}Config")(
        output_dir="unused",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=autocast,
        gradient_checkpointing=False,
        lr_scheduler_type="constant",
        learning_rate=1e-5,
        max_steps=steps,
        per_device_train_batch_size=batch,
        **{"gradient_accumulation_steps": max(1, len(rows) // batch), "train_sampling_strategy": "sequential"}
        | settings,
    )
    made = getattr(trl, f"{kind}Trainer")
    return made(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        callbacks=[] if marks is None else [Marks(marks)],
        **more,
    )


class Marks(TrainerCallback):
    """Calls a function before each step of a transformers trainer (if `begins`), and behind it."""

    def __init__(self, marks: Callable[..., None], begins: bool = True) -> None:
        self.marks = marks
        self.begins = begins

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.begins:
            self.marks()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.marks()


def load(model: str, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer as TRL takes them."""
    return load_model(model, dtype=getattr(torch, dtype)), load_tokenizer(model)


# -- the machine, and models that take no time


def machine(device: str) -> Result:
    """Floating-point operations a second of a large matrix product, by the numbers it computes with."""
    peak = {}
    for name in ("float32", "bfloat16"):
        one, other = (torch.randn(SIZE, SIZE, device=device).to(getattr(torch, name)) for _ in range(2))
        product = one @ other
        best = float("inf")
        for _ in range(8):
            started = time.perf_counter()
            torch.mm(one, other, out=product)
            product[0, 0].item()  # waits for a GPU
            best = min(best, time.perf_counter() - started)
        peak[name] = 2 * SIZE**3 / best
    found: Result = {"peak": peak, "threads": torch.get_num_threads()}
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def write_tiny(path: str) -> Result:
    """A causal model and an encoder with random weights, in PATH/causal and PATH/encoder."""
    texts = [f"{word} it was a {other} day" for word in ("so", "well", "now") for other in ("fine", "long", "cold")]
    for architecture, kind in (("causal", "causal"), ("encoder", "masked")):
        tokenizer = train_tokenizer(texts * 9, 400, kind)
        if architecture == "causal":
            tokenizer.chat_template = (
                "{% for m in messages %}{{ '<|begin|>' + m['role'] + '\n' + m['content'] + '<|end|>' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
            )
        torch.manual_seed(0)
        scratch_model("tiny", tokenizer, architecture).save_pretrained(Path(path) / architecture)
        tokenizer.save_pretrained(Path(path) / architecture)
    return {}
