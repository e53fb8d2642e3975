"""VacancySBERT (Bocharova et al., 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses
from teloi.measure.retrieval import cosines, ranks, recall_at


def mnr(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    sides = [inputs[side].requires_grad_() for side in ("title", "skills")]
    logits = losses.contrast(sides[0], sides[1], float(params["scale"]))
    by_row, symmetric = losses.info_nce(logits).mean(), losses.symmetric_info_nce(logits).mean()
    loss = {
        "MultipleNegativesRankingLoss": by_row,
        "MultipleNegativesSymmetricRankingLoss": symmetric,
    }[params["loss"]]
    gradients = torch.autograd.grad(loss, sides)
    return {
        "loss": loss,
        "loss_row": by_row,
        "loss_sym": symmetric,
        "grad_title": gradients[0],
        "grad_skills": gradients[1],
    }


def recall(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    places = ranks(cosines(inputs["query"], inputs["cand"]), inputs["gold"])
    return {"rank": places, "recall": recall_at(places, params["k"])}


ADAPTERS = {"mnr": mnr, "recall": recall}
