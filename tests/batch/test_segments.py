"""Packed segments against a brute-force mask: every layer adds it to the scores of the whole row, and nothing else is
shared with the function under test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, PretrainedConfig, PreTrainedModel

from teloi.batch.segments import SegmentBatch
from teloi.batch.sequence import Sequence
from teloi.models.attention import TREE
from teloi.models.roles import LanguageModel
from teloi.models.scratch import scratch_model, train_tokenizer

TOKENIZER = train_tokenizer(["the cat sat on the mat"], 280)
WINDOW = 3


def model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    size: Any = {"vocab_size": 280, "bos_token_id": None, "eos_token_id": None}
    match kind:
        case "llama":
            made = scratch_model("tiny", TOKENIZER)
        case "gpt2":
            config: PretrainedConfig = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **size)
            made = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        case _:
            heads: Any = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": WINDOW}
            config = MistralConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, **heads, **size)
            made = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    made.eval()
    return made


def rows() -> list[Sequence]:
    draw = np.random.default_rng(0)

    def row(lengths: list[int], both: bool) -> Sequence:
        ids = draw.integers(3, 280, sum(lengths)).astype(np.int32)
        labels = np.where(draw.random(sum(lengths)) < 0.5, draw.integers(3, 280, sum(lengths)), -100).astype(np.int32)
        columns = {"lengths": np.array(lengths), "bidirectional": np.bool_(both)}
        return Sequence({"input_ids": ids, "labels": labels}, columns)

    return [row([5, 3], True), row([4, 6, 1], False), row([7], True)]


def brute_force(made: PreTrainedModel, batch: list[Sequence], window: int | None) -> torch.Tensor:
    """Log-probabilities of the labels, one row at a time under a mask made position by position."""
    found = []
    for row in batch:
        lengths = row.columns["lengths"].tolist()
        owner = [k for k, length in enumerate(lengths) for _ in range(length)]
        position = [t for length in lengths for t in range(length)]
        mask = torch.full((len(owner), len(owner)), torch.finfo(torch.float32).min)
        for q in range(len(owner)):
            for k in range(len(owner)):
                seen = owner[q] == owner[k] and (row.columns["bidirectional"] or k <= q)
                if seen and (window is None or abs(q - k) < window):
                    mask[q, k] = 0
        with torch.no_grad():
            logits = made(
                input_ids=torch.as_tensor(row.ids["input_ids"], dtype=torch.int64)[None],
                position_ids=torch.tensor(position)[None],
                attention_mask=mask[None, None],
                use_cache=False,
            ).logits[0]
        labels = row.ids["labels"]
        for t in np.flatnonzero(labels != -100):
            found.append(logits[t].log_softmax(-1)[int(labels[t])])
    return torch.stack(found)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_a_decoder_reads_segments_as_a_brute_force_mask_says(kind) -> None:
    made, window = model(kind), WINDOW if kind == "mistral" else None
    expected = brute_force(made, rows(), window)
    made.set_attn_implementation(TREE)
    with torch.no_grad():
        found = LanguageModel(made, "packed").logps(SegmentBatch(rows()))  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_counts_tell_the_two_kinds_apart() -> None:
    batch = SegmentBatch(rows())
    labelled = [int((row.ids["labels"] != -100).sum()) for row in rows()]
    assert batch.counts == {
        "tokens": sum(labelled), "rows": 3, "bidirectional": labelled[0] + labelled[2], "causal": labelled[1]
    }  # fmt: skip
    assert batch.size == 8 + 11 + 7
    assert batch.bidirectional.tolist() == [True] * labelled[0] + [False] * labelled[1] + [True] * labelled[2]
    with pytest.raises(ValueError, match="packed rows"):
        batch.layout("padded")
