"""E2S2: encoding-enhanced sequence-to-sequence pretraining (Zhong et al., 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses
from teloi.batch.sequence import IGNORED
from teloi.data.corruption.infilling import noise_labels


def joint_loss(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    pad, target, labels = params["padding_idx"], inputs["target"], inputs["wso_labels"]
    scored = target.masked_fill(target == pad, IGNORED).flatten()
    nll = {
        view: losses.token_cross_entropy(inputs[f"decoder_logits_{view}"].flatten(0, 1), scored).sum()
        for view in ("noised", "masked")
    }
    logits = inputs["encoder_token_logits"].flatten(0, 1)
    # The official loss takes the label 1, shuffled, for padding.
    official = losses.token_cross_entropy(logits, labels.masked_fill(labels == pad, IGNORED).flatten()).sum()
    states = {view: inputs[f"encoder_hidden_{view}"].transpose(0, 1) for view in ("noised", "masked")}
    # ... and pools padding too.
    pooled = {view: losses.mean_pool(s, torch.ones(s.shape[:2], dtype=torch.int64)) for view, s in states.items()}
    contrast = losses.two_view_nce(pooled["noised"], pooled["masked"], 1 / params["temperature"]).sum()
    contrast = contrast * int(params["ntokens"] / len(target))
    weighted = [(0.5, nll["noised"]), (0.5, nll["masked"])]
    weighted += [(params["lambda_cl"], contrast), (params["lambda_de"], official)]
    return {
        "loss_dec_noised": nll["noised"],
        "loss_dec_masked": nll["masked"],
        "loss_encoder_denoise_official": official,
        "loss_encoder_denoise_intended": losses.token_cross_entropy(logits, labels.flatten()).sum(),
        "loss_contrastive": contrast,
        "loss_total_official": sum(weight * value for weight, value in weighted),
    }


def contrastive(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    values = losses.two_view_nce(inputs["hidden1"], inputs["hidden2"], 1 / params["temperature"])
    return {"loss_sum": values.sum()}


def labels(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    """The cases do not say which positions were drawn for replacement, so those are taken whose token it changed."""
    source, shuffled, after = (inputs[name].numpy() for name in ("source", "after_shuffle", "after_random"))
    drawn = shuffled != after
    return {
        "labels_after_shuffle": noise_labels(source, shuffled, drawn & False),
        "labels_final": noise_labels(source, shuffled, drawn),
    }


ADAPTERS = {"joint_loss": joint_loss, "contrastive": contrastive, "noise_labels": labels}
