"""Pretraining language models with human preferences (Korbak et al., 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses


def of_batch(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    """The score is the predicted token's, the value the predicting position's. A threshold of 0 is the official name
    of the soft mode. The configurations of RWR are AWR with alpha 1: here with values that are not untrained."""
    logits, values = (inputs[name].requires_grad_() for name in ("logits", "values"))
    ul, awr = params["ul"], params["awr"]
    logps = losses.logps_from_logits(logits[:, :-1].flatten(0, 1), inputs["input_ids"][:, 1:].flatten())
    scores, value = inputs["token_scores"][:, 1:].flatten(), values[:, :-1].flatten()
    aligned = scores <= ul["score_threshold"] if ul["score_threshold"] else 1 - scores
    unlikelihood = losses.unlikelihood(logps, aligned, ul["alpha"]).mean()
    weighted = losses.reward_weighted(logps, scores, awr["beta"], value).mean()
    advantage = awr["alpha"] * weighted + (1 - awr["alpha"]) * losses.value_error(scores, value).mean()
    gradients = torch.autograd.grad(advantage, (logits, values), retain_graph=True)
    beta = params["rwr_beta"]
    return {
        "mle_loss": -logps.mean(),
        "ul_loss": unlikelihood,
        "awr_loss": advantage,
        "rwr_paper_loss": losses.reward_weighted(logps, scores, beta).mean(),
        "rwr_repo_config_loss": losses.reward_weighted(logps, scores, beta, value).mean(),
        "ul_grad_logits": torch.autograd.grad(unlikelihood, logits, retain_graph=True)[0],
        "awr_grad_logits": gradients[0],
        "awr_grad_values": gradients[1],
    }


ADAPTERS = {"losses": of_batch}
