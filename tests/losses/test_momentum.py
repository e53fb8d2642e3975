"""Contrast with a following copy against sums written out, its draws against their chances, and matching by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from teloi import losses


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_against_the_sums_of_the_definition(alpha: float) -> None:
    anchors, followers, positives, queue = (vectors(n, seed) for seed, n in enumerate((4, 4, 4, 6)))
    candidates = torch.rand(4, 10, generator=torch.Generator().manual_seed(9)) < 0.7
    candidates |= torch.eye(4, 10, dtype=torch.bool)
    found = losses.momentum_info_nce(anchors, followers, positives, queue, 5.0, alpha=alpha, candidates=candidates)
    columns = [*positives, *queue]
    for i in range(4):
        chosen = [j for j in range(10) if candidates[i, j]]
        say = {j: math.exp(5 * float(cosine_similarity(anchors[i], columns[j], dim=0))) for j in chosen}
        follow = {j: math.exp(5 * float(cosine_similarity(followers[i], columns[j], dim=0))) for j in chosen}
        expected = 0.0
        for j in chosen:
            target = alpha * follow[j] / sum(follow.values()) + (1 - alpha) * (i == j)
            expected -= target * math.log(say[j] / sum(say.values()))
        assert float(found[i]) == pytest.approx(expected, rel=1e-9)


def test_only_the_anchors_get_a_gradient() -> None:
    sides = anchors, followers, positives, queue = [vectors(4, seed).requires_grad_() for seed in range(4)]
    losses.momentum_info_nce(anchors, followers, positives, queue, 5.0, alpha=0.4).sum().backward()
    assert [side.grad is not None for side in sides] == [True, False, False, False]


def test_hard_negatives_are_drawn_by_their_similarity_and_never_the_own_partner() -> None:
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    wrong = torch.ones(5, 5, dtype=torch.bool)
    wrong[0, 3] = wrong[3, 0] = False
    weights = losses.hard_negative_weights(logits, wrong)
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(1))
    for i in range(5):
        others = [j for j in range(5) if j != i and wrong[i, j]]
        drawn = losses.draw_weighted(weights[i].expand(4000, 5), draws)
        assert set(drawn.tolist()) <= set(others)
        chances = logits[i, others].softmax(0)
        for j, chance in zip(others, chances.tolist(), strict=True):
            assert float((drawn == j).float().mean()) == pytest.approx(chance, abs=0.04)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 1e-7])
def test_draws_stay_where_there_is_weight(uniform: float) -> None:
    weights = torch.tensor([[0.0, 2.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1e-30]])
    drawn = losses.draw_weighted(weights, torch.full((2,), uniform)).tolist()
    assert drawn[0] in (1, 3)
    assert drawn[1] == 4


def test_matching_asks_for_the_first_third_to_be_right() -> None:
    logits = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    found = losses.matching(logits)
    expected = [-math.log(float(row.softmax(0)[1 if i < 3 else 0])) for i, row in enumerate(logits)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
