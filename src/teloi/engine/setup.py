"""What every run needs before its first step: the models in their roles, the numbers they compute with, the
processor."""

from __future__ import annotations

import copy
import ctypes
import functools
import gc
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from teloi.batch.tree import Kind
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.engine.config import TrainConfig, scratch_preset
from teloi.engine.objective import Architecture, Objective
from teloi.engine.processes import device
from teloi.errors import ModelError, UsageError
from teloi.models.dropout import set_dropout
from teloi.models.load import check_vocabulary, load_model, load_tokenizer
from teloi.models.probe import lay_out, sees_future
from teloi.models.roles import CachedReference, FrozenReference, LanguageModel, Models
from teloi.models.scratch import NAMES, scratch_model, scratch_tokenizer, scratch_tokenizers, train_tokenizer
from teloi.models.sequences import Classifier, ScoredModel, SentenceEncoder

NO_MODEL = "none"
"""Value of `model` where an objective builds all it trains; its tokenizer knows bytes."""

BYTES = 260
"""Tokens of such a tokenizer."""

REAL = 20_000_000
"""Parameters from which a model is worth bfloat16."""


@dataclass
class Base:
    """A loaded start model with its processor; runs take copies of it. `model` is None where an objective builds
    all."""

    model: Any
    processor: Processor
    layout: Kind
    name: str
    architecture: Architecture = "causal"

    @property
    def batches(self) -> str:
        """What its batches are made of, in words."""
        if self.architecture == "causal":
            packed = self.layout == "packed"
            return "trees packed into rows, no padding" if packed else "one padded row a completion"
        return "arrays" if self.architecture == "none" else "padded texts"

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.") if self.model is not None else "float32"


def load_bases(
    config: TrainConfig, rows: Rows, architectures: Sequence[Architecture], tokenizer: Any = None
) -> dict[Architecture, Base]:
    """The start models of several architectures, with one vocabulary. UsageError where only "scratch:PRESET" has all of
    them."""
    if len(architectures) == 1:
        return {architectures[0]: load_base(config, rows, architectures[0], tokenizer)}
    if (preset := _preset(config)) is None:
        raise UsageError(
            f"these methods train models of different architectures ({', '.join(architectures)}), and {config.model} "
            "is one model: --model scratch:small makes one of each, of the same size"
        )
    tokenizers = scratch_tokenizers(preset, _texts(rows), architectures)
    return {
        architecture: load_base(config, rows, architecture, tokenizers[architecture]) for architecture in architectures
    }


def redrawn(base: Base, config: TrainConfig) -> Any:
    """A model like the base's: with weights drawn anew by the seed where it is made from scratch, else a copy."""
    if (preset := _preset(config)) is None:
        return copy.deepcopy(base.model)
    torch.manual_seed(config.seed)
    model = _placed(scratch_model(preset, base.processor.tokenizer, base.architecture), base.model.dtype)
    lay_out(model, base.layout)
    return model.eval()


def load_base(config: TrainConfig, rows: Rows, architecture: Architecture = "causal", tokenizer: Any = None) -> Base:
    """The start model and tokenizer that a configuration names; "scratch:PRESET" makes both from the data, the model
    alone where a tokenizer is given."""
    keep_memory()
    add_in_order()
    logging.disable_progress_bar()  # transformers' bars for loading and saving say nothing here
    torch.manual_seed(config.seed)
    preset = _preset(config)
    if config.model == NO_MODEL:
        if architecture != "none":
            raise UsageError(f"--model {NO_MODEL} is for methods that build all they train; this one trains a model")
        tokenizer = train_tokenizer([" "], BYTES)
    elif preset is not None:
        tokenizer = tokenizer or scratch_tokenizer(preset, _texts(rows), architecture)
    else:
        tokenizer = load_tokenizer(config.model)
    if architecture == "none":
        return Base(None, Processor(tokenizer, config.max_length, config.overlong), "padded", NO_MODEL, architecture)
    if preset is not None:
        model = scratch_model(preset, tokenizer, architecture)
    else:
        model = load_model(config.model, dtype=torch.float32, architecture=architecture)
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:
        raise ModelError(
            f"{config.model}: its tokenizer has more tokens than the model has embeddings; resize them first"
        )
    if architecture == "causal" and sees_future(model):
        raise ModelError(f"{config.model} reads in both directions ({type(model).__name__}), so it is no causal model")
    model = _placed(model, _dtype(config, model))
    limit = min(config.max_length, getattr(model.config, "max_position_embeddings", None) or config.max_length)
    processor = Processor(tokenizer, limit, config.overlong)
    return Base(model.eval(), processor, _layout(model, config, architecture), config.model, architecture)


def _preset(config: TrainConfig) -> str | None:
    preset = scratch_preset(config.model)
    if preset is not None and preset not in NAMES:
        raise UsageError(f"no scratch model {preset!r}: choose one of {', '.join(NAMES)}")
    return preset


def make_models(
    objective: Objective, base: Base, config: TrainConfig, model: Any = None, example: Any = None
) -> Models:
    """The roles an objective asks for. The policy is `model`, a copy of the base's, or the base's own: trained in
    place. `example`: one of the run's, for parts whose shapes follow the data."""
    release()
    if unknown := set(objective.roles) - {"policy", "reference", "teacher"}:
        raise UsageError(f"{type(objective).__name__} asks for roles nobody provides: {', '.join(sorted(unknown))}")
    model = base.model if model is None else model
    policy = model
    if model is not None:
        torch.manual_seed(config.seed)
        objective.shape(model, example)
        if config.gradient_checkpointing:
            with warnings.catch_warnings():
                # transformers has a new name for it, which its older versions do not know.
                warnings.simplefilter("ignore", FutureWarning)
                model.gradient_checkpointing_enable({"use_reentrant": False})
        if config.lora:
            policy = _with_adapter(model, config, base.architecture)
        if config.torch_compile:
            model.base_model.compile()
    if "reference" in objective.roles:
        # The ratio of policy to reference must be 1 where they are equal: what is dropped at random would move it.
        set_dropout(model, 0.0)
    models = Models(role(policy, base, config.micro_tokens if objective.coupled else None), processor=base.processor)
    if "reference" in objective.roles:
        if objective.reference_sums:
            models.reference = CachedReference()
        elif config.lora:
            models.reference = FrozenReference(models.policy, policy.disable_adapter)
        else:
            frozen = copy.deepcopy(model).requires_grad_(False).eval()
            models.reference = FrozenReference(role(frozen, base))
    if (teacher := teacher_of(objective)) is not None:
        check_vocabulary(base.processor.tokenizer, teacher)
        models.teacher = frozen_model(teacher, base, config)
    torch.manual_seed(config.seed)
    models.example = example
    models.parts = objective.build(models)
    return models


def teacher_of(objective: Objective) -> str | None:
    """The model that teaches in a run: what the setting `teacher` of an objective with that role names."""
    return str(objective.settings()["teacher"]) if "teacher" in objective.roles else None


def tokenizer_for(objective: Objective) -> PreTrainedTokenizerBase | None:
    """The tokenizer that a scratch model must have for an objective: its teacher's."""
    teacher = teacher_of(objective)
    return None if teacher is None else load_tokenizer(teacher)


def frozen_model(name: str, base: Base, config: TrainConfig) -> Any:
    """A model that is only asked, as objectives of the base's architecture see it."""
    model = load_model(name, dtype=torch.float32, architecture=base.architecture)
    model = _placed(model, _dtype(config, model))
    layout = _layout(model, config, base.architecture)
    return role(model.requires_grad_(False).eval(), replace(base, layout=layout))


def role(model: Any, base: Base, chunk: int | None = None) -> Any:
    """A model as objectives of its architecture see it."""
    match base.architecture:
        case "causal":
            return LanguageModel(model, base.layout, chunk)
        case "encoder":
            return SentenceEncoder(model, chunk)
        case "masked" | "seq2seq":
            return ScoredModel(model)
        case "classifier":
            return Classifier(model)
        case "none":
            return None


def _layout(model: PreTrainedModel, config: TrainConfig, architecture: Architecture) -> Kind:
    if architecture != "causal":
        return "padded"
    return lay_out(model, None if config.layout == "auto" else config.layout)


TASKS = {
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "encoder": "FEATURE_EXTRACTION",
    "classifier": "SEQ_CLS",
}
"""peft's names of architectures, where it has one."""


def _with_adapter(model: PreTrainedModel, config: TrainConfig, architecture: Architecture) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    adapter = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type=TASKS.get(architecture)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between transformers and peft
            # In the model's own numbers: the optimiser keeps float32 masters, and no activation is cast.
            return get_peft_model(model, adapter, autocast_adapter_dtype=False)
    except ValueError as error:
        raise UsageError(f"--lora does not fit {type(model).__name__}: {' '.join(str(error).split())}") from None


def _placed(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """In the numbers that it computes with, where this process computes."""
    found: PreTrainedModel = model.to(device=device(), dtype=dtype)  # type: ignore[call-arg]  # transformers hides .to
    return found


def _dtype(config: TrainConfig, model: PreTrainedModel) -> torch.dtype:
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    real = sum(p.numel() for p in model.parameters()) >= REAL
    return torch.bfloat16 if real and has_bfloat16() else torch.float32


def has_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


def _texts(rows: Rows) -> Iterator[str]:
    """Every string of every row, for training a tokenizer."""

    def strings(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [s for v in value.values() for s in strings(v)]
        return [s for v in value for s in strings(v)] if isinstance(value, (list, tuple)) else []

    return (text for row in rows for text in strings(dict(row)))


@functools.cache
def keep_memory() -> None:
    """Have glibc keep freed memory instead of returning it to the system after every step: a quarter faster on CPU."""
    if (libc := _glibc()) is not None:
        mmap_threshold, trim_threshold, most = -3, -1, 2**31 - 1
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, most)


def release() -> None:
    """Return the memory of models that nobody holds any more: a process that trains one after the other would keep the
    most that each of them took."""
    gc.collect()  # trainer, models and hooks refer to each other
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" and not torch.cuda.is_available() else None


@functools.cache
def add_in_order() -> None:
    """Have a GPU add up in the same order each time, so that a run that is resumed or repeated gets the same bits."""
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first matrix product
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Set on the module itself, where its type declares none.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
