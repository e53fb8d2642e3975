"""Can this architecture take trees packed into one row? Asked once, before the first step.

Silently wrong attention is the worst failure a packed batch can have, so the answer comes from a computation: a model
of the same architecture, cut to one layer of each type with random weights and a window of four, reads one 16-token
tree packed and padded; the log-probabilities agree to 1e-4 or the engine pads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from teloi.batch.tree import Branch, Kind, Tree, TreeBatch
from teloi.models.attention import TREE

VOCABULARY = 64
TOLERANCE = 1e-4


def choose_layout(model: PreTrainedModel) -> Kind:
    """ "packed" when the model's architecture reads a tree as it reads each branch alone, else "padded"."""
    try:
        return "packed" if tree_error(model.config) < TOLERANCE else "padded"
    except Exception:  # any failure inside a foreign model means: not this way
        return "padded"


def lay_out(model: PreTrainedModel, kind: Kind | None = None) -> Kind:
    """Make a causal model ready for batches of that kind, or of the kind that is right for it; returns the kind."""
    kind = kind or choose_layout(model)
    if kind == "packed":
        model.set_attn_implementation(TREE)
    return kind


def sees_future(model: PreTrainedModel) -> bool:
    """Whether a prediction (in float32) changes with what comes after it: then it is no causal model at all."""
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=model.device)
    with torch.no_grad():
        one, other = model(input_ids=ids, use_cache=False).logits[:, :3].float()
    return not torch.allclose(one, other, atol=1e-4, rtol=1e-4)


def tree_error(config: PretrainedConfig) -> float:
    """Largest relative difference of log-probabilities between a packed and a padded tree, on a small model of this
    config."""
    from teloi.models.roles import LanguageModel

    small = _shrink(config)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _quiet():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(small, attn_implementation="sdpa", dtype=torch.float32).eval()
        ids = np.random.default_rng(0).integers(3, VOCABULARY, 16).astype(np.int32)
        batch = TreeBatch(
            [Tree(ids[:6], (Branch.scored(ids[6:9]), Branch.scored(ids[9:14]), Branch.scored(ids[14:])))] * 2
        )
        expected = LanguageModel(model, "padded").logps(batch)
        model.set_attn_implementation(TREE)
        found = LanguageModel(model, "packed").logps(batch)
    return float(((found - expected).abs() / expected.abs().clamp(min=1)).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """No remarks about the small model's special tokens."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _shrink(config: PretrainedConfig) -> PretrainedConfig:
    """The same architecture with one layer of each type, a small vocabulary and short windows."""
    small: Any = copy.deepcopy(config)
    types = sorted(set(getattr(config, "layer_types", None) or ["full_attention"]))
    small.num_hidden_layers = len(types)
    if getattr(config, "layer_types", None):
        small.layer_types = types
    if getattr(config, "sliding_window", None):
        small.sliding_window = 4
    small.vocab_size = VOCABULARY
    # Larger weights than a fresh model's: attention that goes wrong must be seen far above the tolerance.
    small.initializer_range = 0.1
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(small, name, None)
    small.quantization_config = None
    del small.quantization_config
    return small  # type: ignore[no-any-return]  # a config, of which nothing is declared
