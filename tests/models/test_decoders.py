"""Whatever decoder is at hand: the layout that the probe chooses gives the log-probabilities of each sequence alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BloomConfig, Lfm2Config, LlamaConfig, PretrainedConfig, Qwen3MoeConfig

from teloi.batch.tree import Branch, Kind, Tree, TreeBatch
from teloi.models.attention import TREE
from teloi.models.probe import choose_layout
from teloi.models.roles import LanguageModel
from tests.models.test_probe import GROUPED, RIGHT, SMALL, WRONG

TIED = {name: LlamaConfig(**GROUPED, tie_word_embeddings=tied) for name, tied in (("tied", True), ("untied", False))}
CONFIGS: dict[str, PretrainedConfig] = {
    **RIGHT,
    **WRONG,
    **TIED,
    "qwen3 of experts": Qwen3MoeConfig(**GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    "lfm2 (short convolutions)": Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"]),
    "bloom (distances)": BloomConfig(vocab_size=64, hidden_size=64, n_layer=2, n_head=4),
    "llama, scaled rotation": LlamaConfig(
        **{**GROUPED, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}
    ),
}


def trees() -> list[Tree]:
    """Five trees of one to three branches, longer than the windows of the models that have one."""
    draw = np.random.default_rng(0)

    def ids(most: int) -> Any:
        return draw.integers(3, SMALL["vocab_size"], draw.integers(2, most)).astype(np.int32)

    return [Tree(ids(20), tuple(Branch.scored(ids(14)) for _ in range(1 + i % 3))) for i in range(5)]


def alone(model: Any, made: list[Tree]) -> Tensor:
    """By the definition: every sequence by itself through the plain model."""
    found = []
    with torch.no_grad():
        for tree in made:
            for branch in tree.branches:
                row = torch.as_tensor(np.concatenate([tree.prompt, branch.ids]), dtype=torch.int64)[None]
                logps = torch.log_softmax(model(input_ids=row, use_cache=False).logits[0].float(), -1)
                start = len(tree.prompt)
                found += [logps[start + i - 1, token] for i, token in enumerate(branch.ids.tolist())]
    return torch.stack(found)


def make(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()


def agree(model: Any, inner: Any = None) -> Kind:
    """Assert that the chosen layout, and padding, give what each sequence gives alone; the layout."""
    inner, made = inner or model, trees()
    expected, layout = alone(model, made), choose_layout(inner)
    kinds: tuple[Kind, ...] = ("padded", layout) if layout == "packed" else ("padded",)
    for kind in kinds:
        if kind == "packed":
            inner.set_attn_implementation(TREE)
        with torch.no_grad():
            found = LanguageModel(model, kind).logps(TreeBatch(made))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    return layout


@pytest.mark.parametrize("name", CONFIGS)
def test_every_decoder_trains_on_the_numbers_of_each_sequence_alone(name: str) -> None:
    layout = agree(make(CONFIGS[name]))
    assert layout == ("padded" if name in WRONG or "(" in name else "packed")


@pytest.mark.parametrize("name", TIED)
def test_a_vocabulary_of_another_size(name: str) -> None:
    model = make(TIED[name])
    model.resize_token_embeddings(70)
    assert agree(model) == "packed"


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_an_adapter(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    inner = make(RIGHT[name])
    targets = ["c_attn"] if name == "gpt2" else ["q_proj", "v_proj"]
    model: Any = get_peft_model(inner, LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.2)  # fresh ones are 0, and change nothing
    before = alone(inner, trees())
    with model.disable_adapter():
        assert not torch.allclose(alone(model, trees()), before, atol=1e-3)
    assert agree(model.eval(), inner) == "packed"


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt-neox", "mixtral"])
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    gradients = []
    for recompute in (False, True):
        model = make(RIGHT[name]).train()
        model.set_attn_implementation(TREE)
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        LanguageModel(model, "packed").logps(TreeBatch(trees())).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
