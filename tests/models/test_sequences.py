"""Models of sequences against a plain forward pass with labels, row by row and without padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    ModernBertConfig,
    RobertaConfig,
    T5Config,
)

from teloi.batch.sequence import IGNORED, Sequence, SequenceBatch, like_lengths
from teloi.models.sequences import ScoredModel, SentenceEncoder

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODERN: dict[str, Any] = {**SMALL, **SPECIAL, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4}
MASKED = {"bert": BertConfig(**SMALL), "roberta": RobertaConfig(**SMALL), "modernbert": ModernBertConfig(**MODERN)}
T5 = T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, **SPECIAL)


def drawn(rng: np.random.Generator, low: int = 1, high: int = 12) -> np.ndarray:
    return rng.integers(3, 40, rng.integers(low, high)).astype(np.int32)


@pytest.mark.parametrize("name", MASKED)
def test_masked_models_are_scored_at_their_labels_only(name) -> None:
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(MASKED[name]).eval()
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(5):
        ids = drawn(rng, 3)
        labels = np.where(rng.random(len(ids)) < 0.5, drawn(rng, len(ids), len(ids) + 1), IGNORED).astype(np.int32)
        rows.append(Sequence({"input_ids": ids, "labels": labels}))
    batch = SequenceBatch(rows)
    with torch.no_grad():
        found = ScoredModel(model).logps(batch)
        expected = []
        for row in rows:
            logits = model(input_ids=torch.as_tensor(row.ids["input_ids"], dtype=torch.int64)[None]).logits[0]
            logps = torch.log_softmax(logits, -1)
            expected += [logps[t, label] for t, label in enumerate(row.ids["labels"]) if label != IGNORED]
    assert batch.counts == {"tokens": len(expected), "rows": 5, "positions": sum(row.size for row in rows)}
    torch.testing.assert_close(found, torch.stack(expected), atol=2e-5, rtol=1e-4)


def test_a_sequence_to_sequence_model_gives_the_loss_of_its_own_forward() -> None:
    torch.manual_seed(0)
    config = T5
    config.decoder_start_token_id = 0
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    rng = np.random.default_rng(0)
    rows = [Sequence({"input_ids": drawn(rng), "targets": drawn(rng)}) for _ in range(5)]
    with torch.no_grad():
        found = ScoredModel(model).logps(SequenceBatch(rows))
        expected = []
        for row in rows:
            ids, labels = (torch.as_tensor(row.ids[n], dtype=torch.int64)[None] for n in ("input_ids", "targets"))
            expected.append(-model(input_ids=ids, labels=labels).loss * labels.shape[1])
    sums = [part.sum() for part in torch.split(found, [len(row.ids["targets"]) for row in rows])]
    torch.testing.assert_close(torch.stack(sums), torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_embeddings_do_not_depend_on_padding_and_chunks_keep_the_gradient() -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(MASKED["bert"]).eval()
    rng = np.random.default_rng(0)
    # Long and short ones in turns, which are read in groups of like length.
    rows = [Sequence({"input_ids": drawn(rng, low, 3 * low)}) for low in (1, 60) * 6]
    assert len(like_lengths([row.size for row in rows])) > 1
    gradients = []
    for chunk in (None, 15):
        model.zero_grad()
        embedded = SentenceEncoder(model, chunk).embed(SequenceBatch(rows))
        # A loss that couples the whole batch.
        torch.log_softmax(embedded @ embedded.T, -1).diagonal().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, chunked, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        for row, vector in zip(rows, embedded, strict=True):
            ids = torch.as_tensor(row.ids["input_ids"], dtype=torch.int64)[None]
            alone = model(input_ids=ids).last_hidden_state[0].mean(0)
            torch.testing.assert_close(vector, alone, atol=1e-5, rtol=1e-4)
