"""SimCSE: two views by dropout alone, copies are no negatives, and what training it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from teloi.data.formats import LanguageModeling
from teloi.engine.config import TrainConfig
from teloi.engine.fit import as_base, fit
from teloi.engine.objective import Now
from teloi.errors import DataError, RowError, UsageError
from teloi.methods.represent.simcse import SimCSE
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model
from teloi.models.sequences import SentenceEncoder, embed_texts
from tests.engine.conftest import tiny_processor

PROCESSOR = tiny_processor("encoder")
NOW = Now(0, 2, places=tuple(range(8)))
TEXTS = ["the cat sat", "on the mat", "a dog", "rain fell on the dog", "the mat sat on the cat"]


def encoder(objective: SimCSE) -> SentenceEncoder:
    torch.manual_seed(0)
    model = scratch_model("tiny", PROCESSOR.tokenizer, "encoder")
    objective.shape(model, None)
    return SentenceEncoder(model)


def values(objective: SimCSE, model: SentenceEncoder, texts: list[str]) -> torch.Tensor:
    examples = [objective.encode(LanguageModeling(text), PROCESSOR) for text in texts]
    models: Any = Models(model, processor=PROCESSOR)  # type: ignore[arg-type]
    return objective.loss(models, objective.collate(examples, NOW, "cpu"), NOW)["contrast"].values


def test_without_dropout_the_loss_is_that_of_the_cosines_of_different_texts() -> None:
    objective = SimCSE(temperature=0.1)
    model = encoder(objective)
    model.model.eval()
    with torch.no_grad():
        vectors = embed_texts(model, PROCESSOR, TEXTS)
        found = values(objective, model, TEXTS)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    logits = torch.as_tensor(units @ units.T / 0.1)
    torch.testing.assert_close(found, -logits.log_softmax(1).diagonal(), atol=1e-4, rtol=1e-4)


def test_views_differ_by_dropout_and_copies_are_no_negatives() -> None:
    objective = SimCSE(dropout=0.3)
    model = encoder(objective)
    model.model.train()
    torch.manual_seed(1)
    two = values(objective, model, TEXTS[:2])
    assert (two > 0).all()
    assert values(objective, model, [TEXTS[0]] * 3).tolist() == [0.0] * 3


def test_training_spreads_texts_apart() -> None:
    base = as_base(encoder(SimCSE()).model, PROCESSOR.tokenizer, "encoder", 64)
    rows = [{"text": text} for text in TEXTS]
    config = TrainConfig(num_train_epochs=40, batch_size=5, learning_rate=1e-3, seed=0)

    def alike(model: Any) -> float:
        vectors = embed_texts(SentenceEncoder(model), PROCESSOR, TEXTS)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return float((units @ units.T)[~np.eye(len(TEXTS), dtype=bool)].mean())

    before = alike(base.model)
    assert alike(fit(SimCSE(), base, rows, config).base.model) < before - 0.2


def test_what_cannot_work_is_refused() -> None:
    for wrong in ({"dropout": 0.0}, {"temperature": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            SimCSE(**wrong)
    objective = SimCSE()
    model = encoder(objective)
    model.model.train()
    with pytest.raises(UsageError, match="batch_size"):
        values(objective, model, TEXTS[:1])
    with pytest.raises(RowError, match="column 'text'"):
        objective.encode(LanguageModeling([{"role": "user", "content": "the cat"}]), PROCESSOR)
    with pytest.raises(DataError, match="one text"):
        objective.prepare([objective.encode(LanguageModeling("the cat"), PROCESSOR)], 0)
