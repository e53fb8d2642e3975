"""InfoNCE against its definition worked out in plain Python, its symmetries, its masks, and finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from teloi import losses

quick = settings(max_examples=50)
seeds = st.integers(0, 10_000)
sizes = st.integers(1, 6)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def coins(*shape: int, seed: int, p: float = 0.5) -> Tensor:
    return torch.rand(*shape, generator=generator(seed)) < p


def close(ours: Tensor, expected: Tensor | Sequence[float] | float) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def slope(value: Tensor, at: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, at)
    return gradient


def surprise(row: list[float], positive: list[bool], allowed: list[bool]) -> float:
    """-log of the positives' share of the row's exponentials; 0 where no positive is allowed."""
    mass = sum(exp(x) for x, p, a in zip(row, positive, allowed, strict=True) if p and a)
    total = sum(exp(x) for x, a in zip(row, allowed, strict=True) if a)
    return -log(mass / total) if mass else 0.0


@quick
@given(sizes, st.integers(0, 5), seeds)
def test_column_i_is_the_positive_of_row_i_and_further_columns_are_negatives(n: int, more: int, seed: int) -> None:
    logits = 3 * normal(n, n + more, seed=seed)
    expected = [
        surprise(row, [j == i for j in range(n + more)], [True] * (n + more)) for i, row in enumerate(logits.tolist())
    ]
    close(losses.info_nce(logits), expected)


@quick
@given(sizes, sizes, seeds)
def test_several_positives_and_masks(n: int, m: int, seed: int) -> None:
    logits, positive, allowed = 3 * normal(n, m, seed=seed), coins(n, m, seed=seed + 1), coins(n, m, seed=seed + 2)
    rows = coins(n, seed=seed + 3, p=0.7)
    ours = losses.info_nce(logits, positive, rows=rows, candidates=allowed)
    expected = [
        surprise(*sides) if scored else 0.0
        for *sides, scored in zip(logits.tolist(), positive.tolist(), allowed.tolist(), rows.tolist(), strict=True)
    ]
    close(ours, expected)
    close(
        losses.info_nce(logits, positive, candidates=allowed[:1]),
        [
            surprise(row, right, allowed[0].tolist())
            for row, right in zip(logits.tolist(), positive.tolist(), strict=True)
        ],
    )


@quick
@given(sizes, st.integers(2, 6), seeds)
def test_soft_targets_are_cross_entropy(n: int, m: int, seed: int) -> None:
    logits, targets = normal(n, m, seed=seed), normal(n, m, seed=seed + 1).softmax(1)
    close(losses.info_nce(logits, targets), torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    sharp = torch.randint(m, (n,), generator=generator(seed))
    one_hot = torch.nn.functional.one_hot(sharp, m)
    for form in (one_hot.double(), one_hot.bool()):
        close(losses.info_nce(logits, form), losses.info_nce(logits, sharp))
    allowed = coins(n, m, seed=seed + 2)
    close(
        losses.info_nce(logits, one_hot.double(), candidates=allowed),
        losses.info_nce(logits, sharp, candidates=allowed),
    )


@quick
@given(st.integers(2, 6), seeds)
def test_order_of_rows_and_columns_does_not_matter(n: int, seed: int) -> None:
    logits, order = normal(n, n + 2, seed=seed), torch.randperm(n, generator=generator(seed))
    both = torch.cat([order, torch.tensor([n + 1, n])])
    for loss in (losses.info_nce, losses.symmetric_info_nce):
        close(loss(logits[order][:, both]), loss(logits)[order])
    rows, columns = coins(n, seed=seed + 1), coins(n + 2, seed=seed + 2)
    close(
        losses.symmetric_info_nce(logits[order][:, both], rows=rows[order], columns=columns[both]),
        losses.symmetric_info_nce(logits, rows=rows, columns=columns)[order],
    )


@quick
@given(sizes, st.integers(0, 3), seeds)
def test_symmetric_is_the_average_of_the_one_sided_losses(n: int, more: int, seed: int) -> None:
    logits = normal(n, n + more, seed=seed)
    there, back = losses.info_nce(logits), losses.info_nce(logits[:, :n].T)
    close(losses.symmetric_info_nce(logits), (there + back) / 2)
    close(losses.symmetric_info_nce(logits, weights=(0.5, 3.0)), (0.5 * there + 3 * back) / 2)
    same = losses.same_group(*2 * [torch.randint(-1, 2, (n,), generator=generator(seed))])
    square = logits[:, :n]
    there, back = losses.info_nce(square, same), losses.info_nce(square.T, same)
    close(losses.symmetric_info_nce(square, same), (there + back) / 2)


@quick
@given(st.integers(2, 6), seeds)
def test_what_lacks_a_partner_is_a_negative_and_nothing_else(n: int, seed: int) -> None:
    """Alignment of images with the instructions that some of them lack: brute force over the existing pairs."""
    logits, told = normal(n, n, seed=seed), coins(n, seed=seed + 1)
    scores = logits.tolist()
    pairs = [i for i in range(n) if told[i]]
    expected = [0.0] * n
    for i in pairs:
        among_images = -log(exp(scores[i][i]) / sum(exp(scores[k][i]) for k in range(n)))
        among_instructions = -log(exp(scores[i][i]) / sum(exp(scores[i][k]) for k in pairs))
        expected[i] = (among_images + among_instructions) / 2
    close(losses.symmetric_info_nce(logits, columns=told), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_that_is_not_scored_has_no_gradient_whatever_it_holds(dtype: torch.dtype) -> None:
    logits = torch.tensor(
        [[1.0, 2.0, float("nan")], [float("inf"), float("nan"), 0.0], [0.5, 0.0, float("inf")]], dtype=dtype
    ).requires_grad_()
    allowed = torch.tensor([True, True, False])[None]
    rows = torch.tensor([True, False, True])
    for targets in (None, torch.eye(3, dtype=torch.bool), torch.eye(3, dtype=dtype)):
        values = losses.info_nce(logits, targets, rows=rows, candidates=allowed)
        assert values[0].item() == pytest.approx(log(1 + exp(1.0)))
        assert values[1:].tolist() == [0.0, 0.0]  # the last one's positive is excluded
        gradient = slope(values.sum(), logits)
        assert gradient[0, :2].abs().min() > 0
        assert gradient[0, 2] == 0
        assert not gradient[1:].any()


def test_without_a_scored_row_the_term_is_zero() -> None:
    sides = [normal(3, 4, seed=seed).requires_grad_() for seed in (0, 1)]
    logits = losses.contrast(sides[0], sides[1], 20.0)
    values = losses.symmetric_info_nce(logits, columns=torch.zeros(3, dtype=torch.bool))
    assert values.tolist() == [0.0] * 3
    assert not any(gradient.any() for gradient in torch.autograd.grad(values.sum(), sides))


def test_a_single_row_has_nothing_to_learn_from() -> None:
    logits = torch.tensor([[3.0]], requires_grad=True)
    value = losses.symmetric_info_nce(logits)
    assert value.tolist() == [0.0]
    assert not slope(value.sum(), logits).any()


def test_two_equal_positives_cost_at_least_log_2_unless_they_are_a_group() -> None:
    logits = torch.tensor([[50.0, 50.0, 0.0], [50.0, 50.0, 0.0], [0.0, 0.0, 50.0]], dtype=torch.float64)
    close(losses.info_nce(logits), [log(2), log(2), 0.0])
    same = losses.same_group(torch.tensor([7, 7, 8]), torch.tensor([7, 7, 8]))
    close(losses.info_nce(logits, same), [0.0] * 3)
    own = torch.eye(3, dtype=torch.bool)
    close(losses.info_nce(logits, candidates=~same | own), [0.0] * 3)


def test_no_group_is_nobodys() -> None:
    expected = [[True, False], [False, False], [False, False]]
    assert losses.same_group(torch.tensor([3, -1, 4]), torch.tensor([3, -1])).tolist() == expected


def test_gathered_columns_are_found_by_number() -> None:
    logits = normal(2, 6, seed=0)
    close(losses.info_nce(logits, torch.tensor([2, 3])), losses.info_nce(logits[:, [2, 3, 0, 1, 4, 5]]))


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "mse"])
def test_gradients_are_finite_differences(metric: str) -> None:
    sides = [normal(*shape, seed=seed).requires_grad_() for seed, shape in enumerate([(3, 4), (3, 4), (2, 4)])]
    temperature = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    same = losses.same_group(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 0, -1, -1]))
    rows, columns = torch.tensor([True, True, False]), torch.tensor([True, False, True, True, True])

    def loss(a: Tensor, p: Tensor, h: Tensor, t: Tensor) -> Tensor:
        logits = losses.contrast(a, p, losses.inverse_temperature(t), negatives=h, metric=metric)  # type: ignore[arg-type]
        return losses.info_nce(logits) + losses.symmetric_info_nce(logits, same, rows=rows, columns=columns)

    assert torch.autograd.gradcheck(loss, (*sides, temperature))


def test_columns_stand_in_order_and_the_queue_gets_no_gradient() -> None:
    anchors, positives, negatives, queue = (normal(n, 4, seed=n).requires_grad_() for n in (2, 3, 4, 5))
    logits = losses.contrast(anchors, positives, 20.0, negatives=negatives, queue=queue)
    apart = [
        20 * torch.nn.functional.cosine_similarity(anchors[:, None], side, dim=2)
        for side in (positives, negatives, queue)
    ]
    close(logits, torch.cat(apart, 1))
    logits.logsumexp(1).sum().backward()
    assert anchors.grad is not None
    assert negatives.grad is not None
    assert queue.grad is None


@quick
@given(sizes, sizes, seeds)
def test_similarities_are_their_definitions(n: int, m: int, seed: int) -> None:
    a, b = normal(n, 5, seed=seed), normal(m, 5, seed=seed + 1)
    difference = (a[:, None] - b).square()
    close(losses.similarity(a, b, "dot"), (a[:, None] * b).sum(2))
    close(losses.similarity(a, b, "l2"), -difference.sum(2))
    close(losses.similarity(a, b, "mse"), -difference.mean(2))
    close(losses.similarity(a, b), torch.nn.functional.cosine_similarity(a[:, None], b, dim=2))
    pairs = min(n, m)
    close(losses.cosine_pull(a[:pairs], b[:pairs]), -losses.similarity(a, b).diagonal())


def test_autocast_does_not_round() -> None:
    a, b = (normal(4, 64, seed=seed).float() for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = losses.info_nce(losses.contrast(a, b, 20.0))
    torch.testing.assert_close(rounded, losses.info_nce(losses.contrast(a, b, 20.0)), rtol=0, atol=0)
    assert losses.similarity(a.bfloat16(), b.bfloat16()).dtype == torch.float32


def test_large_logits_stay_finite_in_float32() -> None:
    logits = torch.tensor([[-5e3, 5e3], [5e3, -5e3]], requires_grad=True)
    value = losses.symmetric_info_nce(logits)
    assert value.tolist() == [1e4, 1e4]
    assert slope(value.sum(), logits).isfinite().all()


def test_temperature_is_clipped_after_exp() -> None:
    for temperature, scale in ((-100.0, 100.0), (log(0.07), 1 / 0.07), (100.0, 0.01)):
        assert losses.inverse_temperature(torch.tensor(temperature)).item() == pytest.approx(scale)


def test_errors() -> None:
    for loss in (losses.info_nce, losses.symmetric_info_nce):
        with pytest.raises(ValueError, match="3 rows but 2 columns"):
            loss(torch.zeros(3, 2))


@quick
@given(st.integers(1, 8), st.integers(2, 5), seeds)
def test_token_cross_entropy(n: int, c: int, seed: int) -> None:
    logits, labels = normal(n, c, seed=seed), torch.randint(c, (n,), generator=generator(seed))
    weights = normal(c, seed=seed + 1).exp()
    labels[coins(n, seed=seed + 2, p=0.3)] = -100
    rows = list(zip(logits.tolist(), labels.tolist(), strict=True))
    expected = [-log(exp(row[label]) / sum(map(exp, row))) if label >= 0 else 0.0 for row, label in rows]
    close(losses.token_cross_entropy(logits, labels), expected)
    close(
        losses.token_cross_entropy(logits, labels, weights),
        [
            value * weights[label].item() if label >= 0 else 0.0
            for value, (_, label) in zip(expected, rows, strict=True)
        ],
    )
