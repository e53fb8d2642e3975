"""What the states of an encoder hold, token by token, and a linear probe of given strength on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teloi.batch.sequence import Sequence as Example
from teloi.batch.sequence import SequenceBatch, neighbours
from teloi.measure.probing import fit, logits, standardised
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

    Standardised and fitted as `probing` does it, with a penalty that is given. Labels are of any kind; a test label
    that no training row has is never right.
    """
    x, unseen = standardised(train, test)
    classes, numbers = np.unique(np.asarray(labels), return_inverse=True)
    said = logits(unseen, fit(x, numbers, len(classes), penalty)).argmax(1)
    return float((classes[said] == np.asarray(test_labels)).mean())
