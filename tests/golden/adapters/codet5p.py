"""CodeT5+ (Wang et al., 2023): the contrastive and matching losses of its second stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

from teloi import losses
from teloi.models.momentum import Queue, follow


def contrastive_queue(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    sides = ("code", "text")
    matrices = {side: inputs[f"W_{side}_m"].clone() for side in sides}
    follow(matrices, {side: inputs[f"W_{side}"] for side in sides}, params["momentum"])
    said, followed, queues = {}, {}, {}
    for side in sides:
        states, old = inputs[f"{side}_cls"], inputs[f"{side}_queue"].T
        said[side] = linear(states, inputs[f"W_{side}"].T)
        followed[side] = normalize(linear(states, matrices[side].T), dim=1)
        queues[side] = Queue(*old.shape).double()
        queues[side].vectors.copy_(old)
    temperature = torch.tensor(params["temperature"], dtype=torch.float64)
    scale = losses.inverse_temperature(temperature.log(), *params["temperature_clamp"])
    values, weights = {}, {}
    for side, other in (sides, sides[::-1]):
        queue = queues[other].vectors
        values[side] = losses.momentum_info_nce(
            said[side], followed[side], followed[other], queue, scale, alpha=params["alpha"]
        )
        logits = losses.contrast(said[side], followed[other], scale, queue=queue)
        weights[f"neg_{other}_weights_for_{side}"] = losses.hard_negative_weights(logits)
    for side, vectors in followed.items():
        queues[side].push(vectors, torch.arange(len(vectors))[:, None])
    return {
        "loss_contrastive": torch.stack([values[side].mean() for side in sides]).mean(),
        "W_code_m_after": matrices["code"],
        **{f"{side}_queue_after": queues[side].vectors.T for side in sides},
        "queue_ptr_after": queues["code"].at.squeeze(),
        **weights,
    }


def matching(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    return {
        "labels": losses.matching_labels(params["B"]),
        "loss_match": losses.matching(inputs["match_logits"]).mean(),
    }


ADAPTERS = {"contrastive_queue": contrastive_queue, "matching": matching}
