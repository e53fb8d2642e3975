"""The probe: architectures that read a packed tree rightly, those that do not, and models that see the future."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen3Config,
)

from teloi.models import probe

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED: dict[str, Any] = {**SMALL, "num_key_value_heads": 2}
OPT: dict[str, Any] = {"ffn_dim": 128, "word_embed_proj_dim": 64}
RIGHT: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=16),
    "mistral": MistralConfig(**GROUPED, sliding_window=8),
    "gemma3": Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, n_positions=128),
    "gpt-neox": GPTNeoXConfig(**SMALL),
    "phi3": Phi3Config(**GROUPED, pad_token_id=0),
    "olmo2": Olmo2Config(**GROUPED),
    "opt": OPTConfig(**{k: v for k, v in SMALL.items() if k != "intermediate_size"}, **OPT),
    "mixtral": MixtralConfig(**GROUPED, num_local_experts=4),
}
WRONG: dict[str, PretrainedConfig] = {
    "mamba2": Mamba2Config(vocab_size=64, hidden_size=64, num_hidden_layers=2, num_heads=8, head_dim=16, n_groups=1),
    "gemma2 (soft cap in its attention)": Gemma2Config(**GROUPED, head_dim=16, sliding_window=8),
}


def make(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", RIGHT)
def test_a_decoder_with_attention_takes_trees(name) -> None:
    assert probe.choose_layout(make(RIGHT[name])) == "packed"
    assert probe.tree_error(RIGHT[name]) < 1e-6


@pytest.mark.parametrize("name", WRONG)
def test_others_are_padded(name) -> None:
    assert probe.choose_layout(make(WRONG[name])) == "padded"


@pytest.mark.parametrize("name", RIGHT)
def test_the_probe_sees_attention_that_crosses_branches(name, monkeypatch) -> None:
    """With plain causal attention over the packed row the error lies far above the tolerance."""
    monkeypatch.setattr(probe, "TREE", "sdpa")
    try:
        error = probe.tree_error(RIGHT[name])
    except TypeError:  # the layer refuses the tree: no silent error either
        return
    assert error > 100 * probe.TOLERANCE


def test_a_model_that_reads_both_ways_is_seen() -> None:
    assert probe.sees_future(make(BertConfig(**SMALL)))
    assert not any(probe.sees_future(make(config)) for config in RIGHT.values())
    assert not probe.sees_future(make(WRONG["mamba2"]))
