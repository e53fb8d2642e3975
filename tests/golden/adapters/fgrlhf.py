"""Fine-grained human feedback (Wu et al., 2023)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from teloi import losses
from tests.golden.ppo import update


def ppo(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    lengths, size = inputs["lengths"], inputs["logprobs"].shape[1]
    mask = losses.real(lengths, size)
    rows, ends, weights, rewards = inputs["segment_rewards"].unbind(1)
    raw = losses.scores_at_segments(rows.long(), ends.long(), weights * rewards, lengths, size)
    penalised = raw - params["kl_coef"] * losses.kl_estimate(inputs["logprobs"], inputs["ref_logprobs"], "k1") * mask
    official: dict[str, Any] = {"bessel": False, "divisor": "sqrt_std", "everywhere": True}
    shaped = losses.whiten(penalised, mask, keep_mean=True, **official) if params["whiten_rewards"] else penalised
    raw_advantages = losses.gae(shaped, inputs["values"], params["gamma"], params["lam"])
    new = inputs["new_logprobs"].requires_grad_(), inputs["new_values"].requires_grad_()
    found, gradients = update(
        new,
        (new[0], inputs["logprobs"]),
        (new[1], inputs["values"]),
        losses.whiten(raw_advantages, mask, **official),
        raw_advantages + inputs["values"],
        (mask, mask),
        params,
    )
    return {
        "out_raw_rewards": raw,
        "out_penalized_rewards": penalised,
        **found,
        "out_grad_new_logprobs": gradients[0],
        "out_grad_new_values": gradients[1],
    }


ADAPTERS = {"ppo": ppo}
