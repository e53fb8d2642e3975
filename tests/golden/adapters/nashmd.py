"""Nash learning from human feedback (Munos et al., 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses


def mixture_logits(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    share = float(params["mixture_coef"])
    return {"out_mixture_logprobs": losses.mixture_logps(inputs["policy_logits"], inputs["ref_logits"], share)}


def pg_loss(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    logps, mask = inputs["policy_logps"].requires_grad_(), inputs["mask"].bool()
    reference, preference = inputs["ref_logps"], inputs["preference"]
    loss = losses.nash_md(logps, reference, mask, preference, float(params["tau"]), "token").mean()
    return {
        "out_loss": loss,
        "out_score": -losses.nash_md(logps, reference, mask, preference, 0.0),
        "out_kl": (losses.kl_estimate(logps.detach(), reference, "k1") * mask).sum(1),
        "out_grad": torch.autograd.grad(loss, logps)[0],
    }


def tabular(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    preferences, reference, tau = inputs["P"], inputs["mu"], float(params["tau"])
    policies, opponents = [reference], []
    for step in range(params["K"]):
        policy, opponent = losses.regularised_step(
            policies[-1], reference, preferences, tau, losses.decreasing_step(step, tau)
        )
        policies.append(policy)
        opponents.append(opponent)
    return {
        "out_policies": torch.stack(policies),
        "out_opponents": torch.stack(opponents),
        "out_nash": losses.equilibrium(reference, preferences, tau),
    }


ADAPTERS = {"mixture_logits": mixture_logits, "pg_loss": pg_loss, "tabular": tabular}
