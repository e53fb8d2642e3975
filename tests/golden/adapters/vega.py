"""Vega v1 (Zhong et al., 2023) and what it is made of: ELECTRA, SimCSE, SiFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from teloi import losses
from teloi.data.corruption.tokens import detection_labels, recovery_labels
from teloi.models.roles import slopes


def rtd(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    ids, corrupted = inputs["input_ids"].numpy(), inputs["corrupted_ids"].numpy()
    masked, attended = inputs["mask_positions"].bool(), inputs["attention_mask"].bool()
    replaced = detection_labels(masked.numpy(), ids=ids, corrupted=corrupted)
    labels = torch.from_numpy(recovery_labels(ids, masked.numpy()))
    mlm = losses.token_cross_entropy(inputs["generator_logits"][masked], labels[masked]).mean()
    # Two classes, of which the first has the logit 0, are one logit. The reference computed these in float32.
    one = inputs["disc_logits"][attended].float()
    two = torch.stack([torch.zeros_like(one), one], -1)
    found = losses.token_cross_entropy(two, torch.from_numpy(replaced)[attended]).mean().double()
    total = mlm + params["disc_weight"] * found
    return {"rtd_labels": replaced, "loss_mlm": mlm, "loss_rtd": found, "loss_total": total}


def simcse(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    first, second = inputs["z"].unbind(1)
    scale = 1 / params["temperature"]
    values = losses.simcse(first, second, scale, torch.arange(len(first)))
    return {"logits": losses.contrast(first, second, scale), "loss": values.mean()}


def sift(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    matrix = inputs["W"].requires_grad_()
    normal = layer_norm(inputs["embedding"], inputs["embedding"].shape[-1:], eps=1e-7)

    def network(delta: Tensor) -> Tensor:
        return torch.tanh(normal + delta).mean(1) @ matrix

    clean, start = network(torch.zeros_like(normal)), inputs["delta0"].requires_grad_()
    slope = slopes(losses.symmetric_cross_entropy(network(start), clean.detach()), start)
    delta = losses.ascend(start, slope, params["adv_lr"])
    loss = losses.symmetric_cross_entropy(network(delta), clean).mean()
    (slope,) = torch.autograd.grad(loss, matrix)
    return {"clean_logits": clean, "delta1": delta, "loss_adv": loss, "grad_W": slope}


def symmetric(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    perturbed, clean = (inputs[name].requires_grad_() for name in ("logits_pert", "logits_clean"))
    values = losses.symmetric_cross_entropy(perturbed, clean)
    slopes = torch.autograd.grad(values.mean(), (perturbed, clean))
    return {
        "per_row_official": values,
        "grad_pert": slopes[0],
        "grad_clean": slopes[1],
        "per_row_true_symmetric_kl": losses.symmetric_kl(perturbed, clean),
    }


ADAPTERS = {"rtd": rtd, "simcse": simcse, "sift": sift, "symmetric_kl": symmetric}
