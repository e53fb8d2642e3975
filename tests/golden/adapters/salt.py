"""SALT: a small language model helps the training of a large one (Rawat et al., 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses


def kd_and_selection(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Any]:
    student, labels = inputs["student_logits"].requires_grad_(), inputs["labels"]
    kept = labels >= 0
    targets, said, taught = labels[kept], student[kept], inputs["teacher_logits"][kept]
    omega, temperature = params["omega"], params["temperature"]
    ce = -losses.logps_from_logits(said, targets).mean()
    values = losses.distillation(said, taught, temperature)
    loss = (1 - omega) * ce + omega * values.mean()
    hardness = losses.learnable_hardness(taught, targets, params["top_k"])
    scores = torch.stack([losses.selection_score(row) for row in hardness.split(kept.sum(1).tolist())])
    steps = range(params["n_steps"])
    return {
        "ce": ce,
        "kd": values.mean(),
        "kl": (values - losses.label_entropy(taught, temperature)).mean(),
        "loss": loss,
        "grad_student": torch.autograd.grad(loss, student)[0],
        "scores": scores,
        "selected": losses.highest(scores, params["select_m"]),
        "omega_step": torch.tensor(
            [losses.distillation_weight(s, params["n_kd"], omega) for s in steps], dtype=torch.float64
        ),
    }


ADAPTERS = {"kd_and_selection": kd_and_selection}
