"""sentence-transformers as the oracle of the in-batch losses: value and gradients on the same tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from teloi import losses

peer = pytest.importorskip("sentence_transformers.sentence_transformer.losses")


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


def agree(ours: Tensor, expected: Tensor, columns: list[Tensor]) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    for mine, their in zip(torch.autograd.grad(ours, columns), torch.autograd.grad(expected, columns), strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-8, atol=1e-9)
