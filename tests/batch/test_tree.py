"""Packed and padded trees against each branch read alone: any trees in, the same log-probabilities out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PretrainedConfig, PreTrainedModel

from teloi.batch.tree import Branch, Kind, Tree, TreeBatch
from teloi.models.attention import TREE
from teloi.models.roles import LanguageModel

SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SMALL),
    "mistral with a window of 3": MistralConfig(**SMALL, sliding_window=3),
    "gpt2": GPT2Config(vocab_size=32, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2),
}


def make(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float64)
    model.eval()
    return model


MODELS = {name: make(config) for name, config in CONFIGS.items()}

ids = st.lists(st.integers(0, 31), min_size=1, max_size=6)
branches = st.lists(st.tuples(ids, st.integers(0, 63)), min_size=1, max_size=3)
trees = st.lists(st.tuples(st.lists(st.integers(0, 31), max_size=6), branches), min_size=1, max_size=4)


def build(spec: list[tuple[list[int], list[tuple[list[int], int]]]]) -> list[Tree]:
    """Trees of a drawn specification; the bits of a branch's number say which of its tokens count."""
    return [
        Tree(
            np.asarray(prompt, np.int32),
            tuple(
                Branch(np.asarray(b, np.int32), np.asarray([bits >> i & 1 for i in range(len(b))], np.float32))
                for b, bits in made
            ),
        )
        for prompt, made in spec
    ]


def alone(model: PreTrainedModel, tree: Tree, branch: Branch) -> list[Tensor]:
    """By the definition: one sequence, plain forward, log-softmax, the tokens that count and follow something."""
    row = torch.as_tensor(np.concatenate([tree.prompt, branch.ids]), dtype=torch.int64)[None]
    logps = torch.log_softmax(model(input_ids=row, use_cache=False).logits[0], -1)
    start = len(tree.prompt)
    return [
        logps[start + i - 1, int(branch.ids[i])] for i in range(len(branch.ids)) if branch.weights[i] and start + i > 0
    ]


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=40)
@given(spec=trees)
def test_log_probabilities_are_those_of_each_branch_alone(name: str, kind: Kind, spec) -> None:
    model = MODELS[name]
    made = build(spec)
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        expected = [logp for tree in made for branch in tree.branches for logp in alone(model, tree, branch)]
        model.set_attn_implementation(TREE if kind == "packed" else "sdpa")
        batch = TreeBatch(made)
        found = LanguageModel(model, kind).logps(batch)
    assert len(found) == len(expected) == batch.counts["tokens"]
    if expected:
        torch.testing.assert_close(found.double(), torch.stack(expected), atol=1e-5, rtol=1e-5)


@settings(max_examples=50)
@given(spec=trees)
def test_sums_means_and_lengths_are_those_of_a_loop(spec) -> None:
    made = [Tree(t.prompt, (t.branches[0], t.branches[-1])) for t in build(spec)]
    batch = TreeBatch(made)
    logps = torch.randn(batch.counts["tokens"])
    sums, means = batch.branch_sums(logps), batch.branch_means(logps)
    values = iter(logps.tolist())
    for t, tree in enumerate(made):
        for slot, branch in enumerate(tree.branches):
            counted = [i for i in range(len(branch.ids)) if branch.weights[i] and len(tree.prompt) + i > 0]
            mine = [next(values) for _ in counted]
            assert sums[slot, t].item() == pytest.approx(sum(mine), abs=1e-5)
            assert means[slot, t].item() == pytest.approx(sum(mine) / max(len(mine), 1), abs=1e-5)
            assert batch.branch_lengths[slot, t] == len(counted)


def test_gradients_of_both_layouts_agree() -> None:
    made = build([([1, 2, 3], [([4, 5], 3), ([6], 1)]), ([7], [([8, 9, 10], 7), ([11, 12], 2)])])
    gradients = []
    for kind in ("packed", "padded"):
        model = make(CONFIGS["llama"])
        model.set_attn_implementation(TREE if kind == "packed" else "sdpa")
        LanguageModel(model, kind).logps(TreeBatch(made)).sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for packed, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-6, rtol=1e-4)


def test_a_batch_that_is_encoded_in_chunks_gives_the_same_gradient() -> None:
    made = build([([1, 2, 3], [([4, 5], 3), ([6], 1)])] * 5)
    gradients = []
    for chunk in (None, 7):
        model = make(CONFIGS["llama"])
        model.set_attn_implementation(TREE)
        LanguageModel(model, "packed", chunk).logps(TreeBatch(made)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, chunked, atol=1e-10, rtol=1e-6)


def test_trees_of_different_arity_have_no_slots() -> None:
    made = build([([1], [([2], 1)]), ([1], [([2], 1), ([3], 1)])])
    with pytest.raises(ValueError, match=r"\[1, 2\] branches"):
        TreeBatch(made).branch_sums(torch.zeros(3))


def test_columns_are_stacked_over_the_trees() -> None:
    tree = Tree(
        np.array([1], np.int32), (Branch.scored([2]),), {"label": np.bool_(True), "sums": np.ones(2, np.float32)}
    )
    batch = TreeBatch([tree, tree])
    assert batch.columns["label"].tolist() == [True, True]
    assert batch.columns["sums"].shape == (2, 2)


def test_bfloat16_on_a_cpu_gives_the_same_up_to_its_rounding() -> None:
    """It takes another way through attention than float32 does."""
    made = build([([1, 2, 3], [([4, 5], 3), ([6], 1)]), ([7], [([8, 9, 10], 7)])])
    model = make(CONFIGS["llama"])
    with torch.no_grad():
        expected = LanguageModel(model, "padded").logps(TreeBatch(made))
        model = model.bfloat16()
        model.set_attn_implementation(TREE)
        found = LanguageModel(model, "packed").logps(TreeBatch(made))
    torch.testing.assert_close(found, expected.float(), atol=0.1, rtol=0.05)
