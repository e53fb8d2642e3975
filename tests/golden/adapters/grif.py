"""GRIF: goal representations for instruction following (Myers et al., 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses
from teloi.measure.retrieval import ranks, recall_at


def alignment(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    """Rows are start-goal representations, columns instructions."""
    sides = [inputs[side].requires_grad_() for side in ("image_rep", "lang_rep")]
    images, instructions = (inputs[mask].bool() for mask in ("image_mask", "lang_mask"))
    scale = losses.inverse_temperature(torch.tensor(params["log_temperature"], dtype=torch.float64))
    logits = losses.contrast(sides[0], sides[1], scale, metric=params["metric"])
    values = losses.symmetric_info_nce(
        logits,
        rows=images,
        columns=instructions,
        weights=(params["other_alignment"], params["alignment"]),
    )
    pairs = images & instructions
    loss = values[pairs].mean()
    gradients = torch.autograd.grad(loss, sides)
    gold, scores = torch.arange(len(pairs))[pairs], logits.detach()
    return {
        "loss": loss,
        "acc_image_given_lang": recall_at(ranks(scores.T[pairs], gold, images), [1])[0],
        "acc_lang_given_image": recall_at(ranks(scores[pairs], gold, instructions), [1])[0],
        "grad_image_rep": gradients[0],
        "grad_lang_rep": gradients[1],
    }


def contrastive(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    sides = [inputs[side].requires_grad_() for side in ("image_rep", "text_rep")]
    scale = losses.inverse_temperature(torch.tensor(params["log_temperature"], dtype=torch.float64))
    logits = losses.contrast(sides[0], sides[1], scale)
    same = losses.same_group(inputs["instruction_id"], inputs["instruction_id"])
    loss = losses.symmetric_info_nce(logits, same).mean()
    gradients = torch.autograd.grad(loss, sides)
    scores = logits.detach()
    return {
        "loss": loss,
        "img2text_loss": losses.info_nce(logits, same).mean(),
        "text2img_loss": losses.info_nce(logits.T, same.T).mean(),
        "img2text_accuracy": recall_at(ranks(scores, same), [1])[0],
        "text2img_accuracy": recall_at(ranks(scores.T, same.T), [1])[0],
        "grad_image_rep": gradients[0],
        "grad_text_rep": gradients[1],
    }


ADAPTERS = {"alignment": alignment, "contrastive": contrastive}
