"""A tiny model and tiny examples for whatever the engine does."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from teloi.batch.tree import Branch, Tree
from teloi.data.formats import PromptOnly
from teloi.data.processor import Processor
from teloi.engine.objective import Objective
from teloi.models.attention import TREE
from teloi.models.roles import REFERENCE_SUMS, CachedReference, LanguageModel, Models
from teloi.models.scratch import train_tokenizer


@pytest.fixture(scope="session")
def processor() -> Processor:
    """A byte-level tokenizer of a few tokens, for what samples."""
    return Processor(train_tokenizer(["the cat sat on the mat"], VOCABULARY), 64)


VOCABULARY = 280


@pytest.fixture(scope="session")
def tiny():
    """A two-layer Llama that takes packed trees."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.set_attn_implementation(TREE)
    return model


@pytest.fixture
def models(tiny, processor) -> Callable[[Objective], Models]:
    """Fresh models in the roles an objective asks for."""

    def make(objective: Objective, dtype: torch.dtype = torch.float32) -> Models:
        made = Models(LanguageModel(copy.deepcopy(tiny).to(dtype), "packed"), processor=processor)
        if "reference" in objective.roles:
            made.reference = CachedReference()
        made.parts = objective.build(made)
        return made

    return make


def random_trees(count: int, branches: int, seed: int = 0) -> list[Tree]:
    """Trees of random tokens, with what the objectives of the catalogue read from their columns."""
    draw = np.random.default_rng(seed)

    def tokens() -> np.ndarray:
        return draw.integers(3, VOCABULARY, draw.integers(1, 8)).astype(np.int32)

    return [
        Tree(
            tokens(),
            tuple(Branch.scored(tokens()) for _ in range(branches)),
            {
                REFERENCE_SUMS: draw.normal(-20, 3, branches).astype(np.float32),
                "desirable": np.bool_(draw.random() < 0.5),
            },
            PromptOnly("a prompt"),
        )
        for _ in range(count)
    ]


def length_reward(prompts, completions, **columns) -> list[float]:
    """A reward that differs between samples of any model: the share of letters."""
    return [sum(character.isalpha() for character in text) / (len(text) + 1) for text in completions]
