"""Distillation and selection against the examples of the definition, and their limits."""

from __future__ import annotations

import math

import pytest
import torch

from teloi import losses


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_sharp_labels_are_hard_labels() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    hard = -losses.logps_from_logits(student, teacher.argmax(-1))
    torch.testing.assert_close(losses.distillation(student, teacher, 1e-3), hard)
    assert losses.label_entropy(teacher, 1e-3).abs().max() < 1e-3


def test_of_equal_models_only_the_entropy_is_left() -> None:
    teacher = torch.randn(5, 7)
    torch.testing.assert_close(losses.distillation(teacher, teacher), losses.label_entropy(teacher))
    uniform = losses.label_entropy(torch.zeros(1, 7))
    assert uniform.item() == pytest.approx(math.log(7), rel=1e-6)


def test_the_gradient_is_that_of_the_kl_and_reaches_the_student_alone() -> None:
    student, teacher = (torch.randn(5, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    losses.distillation(student, teacher, 0.5).sum().backward()
    assert teacher.grad is None
    expected = student.detach().softmax(-1) - (teacher.detach() / 0.5).softmax(-1)
    torch.testing.assert_close(student.grad, expected)


def test_noise_counts_as_nothing() -> None:
    logits = logits_of([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    targets = torch.tensor([1, 2, 1])
    found = losses.learnable_hardness(logits, targets, 2)
    assert found.tolist() == pytest.approx([-math.log(0.3), 0.0, -math.log(0.4)])
    assert losses.learnable_hardness(logits, targets, 1).tolist() == pytest.approx([0.0, 0.0, -math.log(0.4)])
    assert (losses.learnable_hardness(logits, targets, 3) > 0).all()


@pytest.mark.parametrize(
    ("hardness", "score"),
    [((0.2, 1.5, 0, 0.9, 0), 0.2), ((1.0, 1.2, 0.9, 1.4, 0.8), 1.0), ((0, 0, 0), 0), ((1.0, 4.0, 2.0, 9.0), 3.0)],
)
def test_a_text_scores_its_median(hardness, score) -> None:
    assert losses.selection_score(torch.tensor(hardness, dtype=torch.float64)).item() == pytest.approx(score)


def test_a_text_without_tokens_has_no_score() -> None:
    with pytest.raises(ValueError, match="no score"):
        losses.selection_score(torch.zeros(0))


def test_of_equal_scores_the_first_is_taken() -> None:
    assert losses.highest(torch.tensor([0.0, 2.0, 0.0, 2.0, 0.0]), 4).tolist() == [1, 3, 0, 2]


def test_the_weight_is_a_step() -> None:
    assert [losses.distillation_weight(step, 2, 0.6) for step in range(4)] == [0.6, 0.6, 0.0, 0.0]
