from __future__ import annotations

import numpy as np
import pytest
import torch

from teloi.measure.probes import encoder_states, probe_accuracy
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel


def test_states_are_the_encoders_whatever_shares_the_batch() -> None:
    tokenizer = train_tokenizer(["some words"], 400, "seq2seq")
    torch.manual_seed(0)
    model = ScoredModel(scratch_model("tiny", tokenizer, "seq2seq"))
    texts = [np.arange(110, 110 + n) for n in (5, 2, 9)]
    for text, found in zip(texts, encoder_states(model, texts), strict=True):
        with torch.no_grad():
            alone = model.inner.get_encoder()(input_ids=torch.as_tensor(text)[None]).last_hidden_state[0]
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_probe_finds_a_line_through_shifted_and_scaled_data() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5)) * (1, 10, 0.01, 1, 1) + (0, 50, 0, -3, 0)
    labels = np.where(x[:, 1] > 52, "above", np.where(x[:, 2] > 0, "right", "left"))
    x = np.c_[x, np.ones(600)]  # what does not vary does no harm
    assert probe_accuracy(x[:400], labels[:400], x[400:], labels[400:]) > 0.9
    shuffled = rng.permutation(labels[:400])
    assert probe_accuracy(x[:400], shuffled, x[400:], labels[400:]) < 0.65
    assert probe_accuracy(x[:400], labels[:400], x[400:], ["unknown"] * 200) == 0


def test_a_probe_is_at_the_optimum_of_its_loss() -> None:
    """Where the penalty is large, weights vanish and the intercepts say the commonest label."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(90, 3)), np.array([0] * 50 + [1] * 40)
    x[labels == 1] += 5
    assert probe_accuracy(x, labels, x, labels) == 1
    assert probe_accuracy(x, labels, x, labels, penalty=1e4) == pytest.approx(50 / 90)
