"""Tülu 3 (Lambert et al., 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses


def dpo(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    reduce, loss = {
        "dpo": (losses.segment_sum, losses.dpo),
        "dpo_norm": (losses.segment_mean, losses.dpo_norm),
    }[params["kind"]]
    beta = float(params["beta"])
    token_logps = inputs["in_policy_token_logps"].requires_grad_()
    scored = inputs["in_labels"][:, 1:] != -100
    rows = scored.nonzero()[:, 0]
    policy = reduce(token_logps[:, :-1][scored], rows, len(scored))
    reference = reduce(inputs["in_ref_token_logps"][:, :-1][scored], rows, len(scored))
    chosen, rejected = losses.log_ratio(policy, reference).view(2, params["batch"])
    value = loss(chosen, rejected, beta, float(params["label_smoothing"]))
    return {
        "out_policy_seq": policy,
        "out_ref_seq": reference,
        "out_losses": value,
        "out_chosen_rewards": losses.implicit_reward(chosen, beta),
        "out_rejected_rewards": losses.implicit_reward(rejected, beta),
        "out_grad_policy_token_logps": torch.autograd.grad(value.mean(), token_logps)[0],
    }


ADAPTERS = {"dpo": dpo}
