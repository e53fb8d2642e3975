"""Distillation of next-token distributions, and how learnable a teacher finds a text.

v: the vocabulary, the same for both models; n: predicted tokens.

Source: Rawat et al. 2024 (SALT), sections 3 and 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def distillation(
    student: Float[Tensor, "n v"], teacher: Float[Tensor, "n v"], temperature: float = 1.0
) -> Float[Tensor, " n"]:
    """-sum over v of q(v) log p(v), q = softmax(teacher / temperature) and p = softmax(student): a cross-entropy, which
    exceeds the KL by `label_entropy`.

    The student is not tempered, and there is no factor of temperature squared. No gradient flows to the teacher.
    Softmax and sum are taken in float32 (float64 for float64 logits).
    """
    logps: Tensor = student.log_softmax(-1, dtype=_wide(student))
    return -(_labels(teacher, temperature) * logps).sum(-1)


def label_entropy(teacher: Float[Tensor, "n v"], temperature: float = 1.0) -> Float[Tensor, " n"]:
    """Entropy of the teacher's labels q, in nats: the part of `distillation` that no student can lower."""
    parts: Tensor = torch.special.entr(_labels(teacher, temperature))
    return parts.sum(-1)


def distillation_weight(step: int, stage: int, weight: float) -> float:
    """Weight of the distillation at a step (from 0): `weight` in the first `stage` steps, then 0."""
    return weight if step < stage else 0.0


def learnable_hardness(logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"], k: int) -> Float[Tensor, " n"]:
    """-log p(target) where the target is among the k likeliest tokens, else 0: noise that cannot be learned.

    Fewer than k tokens are likelier than such a target, so that ties count for it. With k = v nothing is 0.
    """
    logps = logits.log_softmax(-1, dtype=_wide(logits))
    chosen = logps.gather(-1, targets[:, None])
    return torch.where((logps > chosen).sum(-1) < k, -chosen[:, 0], 0.0)


def selection_score(hardness: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The median of `learnable_hardness` over the tokens of a text; of an even number, the mean of the two in the
    middle. ValueError for a text without tokens."""
    if not len(hardness):
        raise ValueError("a text without predicted tokens has no score")
    ordered = hardness.sort().values
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def highest(scores: Float[Tensor, " n"], m: int) -> Int[Tensor, " m"]:
    """Indices of the m highest scores, highest first; of equal ones the lower index first."""
    return scores.argsort(descending=True, stable=True)[:m]


def _labels(teacher: Tensor, temperature: float) -> Tensor:
    return (teacher.detach().to(_wide(teacher)) / temperature).softmax(-1)


def _wide(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
