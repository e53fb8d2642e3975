"""sentence-transformers as the oracle of the in-batch losses: value and gradients on the same tensors."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from teloi import losses
from teloi.data.formats import Pair, TitleSkills
from teloi.engine.objective import Now
from teloi.engine.step import Step
from teloi.methods.represent.contrastive import InBatch
from teloi.methods.represent.vacancysbert import VacancySBERT
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model
from teloi.models.sequences import SentenceEncoder, embed_texts
from tests.engine.conftest import tiny_processor

sentence_transformers: Any = importlib.import_module("sentence_transformers")
peer: Any = importlib.import_module("sentence_transformers.sentence_transformer.losses")


class Given(torch.nn.Module):
    """An encoder that hands out the embeddings that it is given, one column of the batch after the other."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["embedding"]}


def theirs(loss: Any, columns: list[Tensor]) -> Tensor:
    value: Tensor = loss([{"embedding": column} for column in columns], torch.empty(0))
    return value


def embeddings(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(6, 8, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("hard", [0, 1, 3])
def test_multiple_negatives_ranking(hard: int, scale: float) -> None:
    columns = embeddings(2 + hard)
    negatives = torch.cat(columns[2:]) if hard else None
    ours = losses.info_nce(losses.contrast(columns[0], columns[1], scale, negatives=negatives)).mean()
    agree(ours, theirs(peer.MultipleNegativesRankingLoss(Given(), scale=scale), columns), columns)


@pytest.mark.filterwarnings("ignore:The MultipleNegativesSymmetricRankingLoss is deprecated")
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_multiple_negatives_symmetric_ranking(scale: float) -> None:
    columns = embeddings(2)
    ours = losses.symmetric_info_nce(losses.contrast(columns[0], columns[1], scale)).mean()
    agree(ours, theirs(peer.MultipleNegativesSymmetricRankingLoss(Given(), scale=scale), columns), columns)


@pytest.mark.filterwarnings("ignore:The MultipleNegativesSymmetricRankingLoss is deprecated")
@pytest.mark.parametrize(
    ("objective", "theirs_is"),
    [
        (InBatch(), "MultipleNegativesRankingLoss"),
        (InBatch(symmetric=True), "MultipleNegativesSymmetricRankingLoss"),
        (VacancySBERT(), "MultipleNegativesRankingLoss"),
        (VacancySBERT(symmetric=True), "MultipleNegativesSymmetricRankingLoss"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("chunk", [None, 20])
def test_the_whole_pipeline(objective: InBatch, theirs_is: str, chunk: int | None, tmp_path: Path) -> None:
    """Our encoder, batch and step against their model and loss, on the same tokens: loss and every gradient; then the
    vectors of the checkpoint that we leave."""
    processor = tiny_processor("encoder")
    torch.manual_seed(0)
    encoder = SentenceEncoder(scratch_model("tiny", processor.tokenizer, "encoder"), chunk)
    models = Models(encoder, processor=processor)  # type: ignore[arg-type]
    words = ["cat", "mat", "dog", "log", "owl", "fox"]
    rows: list[Any] = [
        Pair(f"the {word}", f"{word} on a {other}") if objective.reads is Pair else TitleSkills(word, (other, "sat"))
        for word, other in zip(words, words[1:] + words[:1], strict=True)
    ]
    now = Now(0, 1, places=tuple(range(len(rows))))
    batch = objective.collate([objective.encode(row, processor) for row in rows], now, "cpu")
    ours, _ = Step(models, objective).shares(batch, now, batch.counts)
    ours.backward()
    gradients = {name: p.grad for name, p in encoder.model.named_parameters() if p.grad is not None}

    encoder.model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    objective.export(models, tmp_path)
    model = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    features = [{"input_ids": batch.ids[name], "attention_mask": batch.mask[name]} for name in batch.ids]
    expected = getattr(peer, theirs_is)(model, scale=objective.scale)(features, torch.empty(0))
    expected.backward()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    wanted = {name: p.grad for name, p in model[0].auto_model.named_parameters() if p.grad is not None}
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)

    texts = ["the cat", "a much longer text about a dog on a log"]
    torch.testing.assert_close(
        torch.as_tensor(embed_texts(encoder, processor, texts)), model.encode(texts, convert_to_tensor=True).cpu()
    )
    assert model.max_seq_length == processor.max_length


def agree(ours: Tensor, expected: Tensor, columns: list[Tensor]) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    for mine, their in zip(torch.autograd.grad(ours, columns), torch.autograd.grad(expected, columns), strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-8, atol=1e-9)
