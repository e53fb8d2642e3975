"""What the frozen states of an encoder hold: linear probes, and rank correlation with judgements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn.functional import cross_entropy

from teloi.batch.sequence import Sequence as Example
from teloi.batch.sequence import SequenceBatch, neighbours
from teloi.models.roles import evaluation
from teloi.models.sequences import ScoredModel

POSITIONS = 8192
"""Positions encoded at a time."""


def encoder_states(model: ScoredModel, texts: Sequence[ArrayLike]) -> list[NDArray[np.float32]]:
    """Last states of the encoder of a sequence-to-sequence model, float32 [t, d] for each text of t token ids."""
    examples = [Example({"input_ids": np.asarray(text, np.int32)}) for text in texts]
    found: dict[int, NDArray[np.float32]] = {}
    with evaluation(model.model):
        for part in neighbours([example.size for example in examples], POSITIONS):
            states = model.encoded(SequenceBatch([examples[i] for i in part], device=model.model.device))
            for i, one in zip(part, states.float().cpu().numpy(), strict=True):
                found[i] = one[: examples[i].size].copy()
    return [found[i] for i in range(len(examples))]


def probe_accuracy(
    train: ArrayLike, labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike, penalty: float = 1.0
) -> float:
    """Accuracy on test vectors [m, d] of multinomial logistic regression on training vectors [n, d].

    Dimensions are scaled to mean 0 and deviation 1 over the training vectors. Fitted to the end: sum of the
    cross-entropies plus penalty / 2 times the squared weights (intercepts are free), as scikit-learn has it with
    C = 1 / penalty. Labels are of any kind; a test label that no training row has is never right.
    """
    x, z = np.asarray(train, np.float64), np.asarray(test, np.float64)
    mean, deviation = x.mean(0), x.std(0)
    x, z = ((side - mean) / np.where(deviation > 0, deviation, 1) for side in (x, z))
    classes, numbers = np.unique(np.asarray(labels), return_inverse=True)
    weights = _fitted(torch.as_tensor(x), torch.as_tensor(numbers), len(classes), penalty)
    scores = np.c_[z, np.ones(len(z))] @ weights
    return float((classes[scores.argmax(1)] == np.asarray(test_labels)).mean())


def _fitted(x: torch.Tensor, labels: torch.Tensor, classes: int, penalty: float) -> NDArray[np.float64]:
    """Weights [d + 1, classes], the last row the intercepts."""
    weights = torch.zeros(x.shape[1] + 1, classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        fit = cross_entropy(x @ weights[:-1] + weights[-1], labels)
        total = fit + penalty / (2 * len(x)) * weights[:-1].square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return np.asarray(weights.detach())
