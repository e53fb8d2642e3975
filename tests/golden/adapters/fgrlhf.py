"""Fine-grained human feedback (Wu et al., 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses


def ppo(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    lengths, size = inputs["lengths"], inputs["logprobs"].shape[1]
    mask = losses.real(lengths, size)
    rows, ends, weights, rewards = inputs["segment_rewards"].unbind(1)
    raw = losses.scores_at_segments(rows.long(), ends.long(), weights * rewards, lengths, size)
    penalised = raw - params["kl_coef"] * losses.kl_estimate(inputs["logprobs"], inputs["ref_logprobs"], "k1") * mask
    official: dict[str, Any] = {"bessel": False, "divisor": "sqrt_std", "everywhere": True}
    shaped = losses.whiten(penalised, mask, keep_mean=True, **official) if params["whiten_rewards"] else penalised
    found = losses.gae(shaped, inputs["values"], params["gamma"], params["lam"])
    advantages, returns = losses.whiten(found, mask, **official), found + inputs["values"]
    new = [inputs["new_logprobs"].requires_grad_(), inputs["new_values"].requires_grad_()]
    clip = params["cliprange"]
    surrogate = losses.clipped_surrogate(new[0][mask], inputs["logprobs"][mask], advantages[mask], clip, clip).mean()
    value = losses.clipped_value_loss(
        new[1][mask], inputs["values"][mask], returns[mask], params["cliprange_value"]
    ).mean()
    loss = params["pg_coef"] * surrogate + params["vf_coef"] * value
    gradients = torch.autograd.grad(loss, new)
    return {
        "out_raw_rewards": raw,
        "out_penalized_rewards": penalised,
        "out_advantages": advantages,
        "out_returns": returns,
        "out_pg_loss": surrogate,
        "out_vf_loss": value,
        "out_loss": loss,
        "out_grad_new_logprobs": gradients[0],
        "out_grad_new_values": gradients[1],
    }


ADAPTERS = {"ppo": ppo}
