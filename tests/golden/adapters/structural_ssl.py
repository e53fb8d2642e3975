"""Structural self-supervised objectives (Di Liello, 2023)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teloi import losses
from teloi.data.corruption.clusters import Clusters, cluster_probabilities, count_update
from teloi.data.corruption.ragged import Array, Bools
from teloi.data.corruption.tokens import (
    IGNORED,
    detection_labels,
    draw_positions,
    mask_tokens,
    recovery_labels,
    substitute,
)

SEEDS = 5000


def probabilities(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    counts, beta = inputs["counts"].numpy(), float(params["beta"])
    return {
        "probs_official": cluster_probabilities(counts, beta, "official"),
        "probs_rowwise": cluster_probabilities(counts, beta),
    }


def update(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    ids, corrupted, labels, predictions, attended, of = (
        inputs[name].numpy()
        for name in (
            "original_ids",
            "tampered_ids",
            "labels",
            "predictions",
            "attention_mask",
            "token_to_cluster",
        )
    )
    counted = partial(
        count_update,
        ids,
        corrupted,
        labels,
        predictions,
        Clusters(of, params["n_clusters"]),
        included=attended.astype(bool),
        only_changed=params["update_only_on_predictions"],
    )
    return {"update_official": counted(variant="official"), "update_accumulated": counted()}


def rts_slm(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    """The cases hold the corrupted ids, but not which positions were drawn, and a draw that equals its original
    leaves no trace. They were made with NumPy's default generator and a small seed that is not stated: so the
    corruption is drawn again, in the official order, until it gives the case's ids, each one of them. Without such a
    seed, drawn is what changed."""
    ids, words = inputs["input_ids"].numpy(), inputs["word_ids"].numpy()
    vocabulary, probability = int(params["vocab_size"]), float(params["probability"])

    def drawn(corrupt: Callable[[Bools, np.random.Generator], Array], corrupted: Array) -> Bools:
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            grouped = words if params["whole_word"] else None
            chosen = draw_positions(words != IGNORED, probability, rng, grouped, variant="official")
            if np.array_equal(corrupt(chosen, rng), corrupted):
                return chosen
        return np.asarray(ids != corrupted)

    def rts(chosen: Bools, rng: np.random.Generator) -> Array:
        return substitute(ids, chosen, vocabulary, rng, variant="official")

    def slm(chosen: Bools, rng: np.random.Generator) -> Array:
        return mask_tokens(ids, chosen, 0, vocabulary, rng, mix=(0.0, 1.0, 0.0), variant="official")

    detection = detection_labels(drawn(rts, inputs["rts_ids"].numpy()))
    recovery = recovery_labels(ids, drawn(slm, inputs["slm_ids"].numpy()))
    detecting = losses.token_cross_entropy(inputs["rts_logits"], torch.from_numpy(detection))
    recovering = losses.token_cross_entropy(inputs["slm_logits"], torch.from_numpy(recovery))
    return {
        "rts_labels": detection,
        "slm_labels": recovery,
        "rts_loss": detecting.mean(),
        "slm_loss": recovering[recovery != IGNORED].mean(),
    }


ADAPTERS = {"crts_probs": probabilities, "crts_update": update, "rts_slm": rts_slm}
