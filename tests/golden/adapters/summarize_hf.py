"""Learning to summarize from human feedback (Stiennon et al., 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses
from tests.golden.ppo import update


def rm_loss(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    pair = [inputs["rewards_chosen"].requires_grad_(), inputs["rewards_rejected"].requires_grad_()]
    centring = float(params["center_rewards_coefficient"] or 0.0)
    margin = inputs["margin"] if params["margin"] else 0.0
    loss = losses.reward_pair(pair[0], pair[1], margin, centring).mean()
    return {"out_loss": loss, "out_grad": torch.cat(torch.autograd.grad(loss, pair))}


def ppo_rollout(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    lengths, size = inputs["last_index"] + 1, inputs["logprobs"].shape[1]
    tokens, slots = losses.real(lengths, size), losses.real(lengths + 1, size)
    kl = losses.kl_estimate(inputs["logprobs"], inputs["ref_logprobs"], params["kl_estimator"])
    rewards = losses.scores_at_ends(inputs["scores"], lengths, size, "next") - params["kl_coef"] * kl * tokens
    if params["whiten_rewards"]:
        rewards = losses.whiten(rewards, slots, keep_mean=True)
    values = inputs["values"] * slots
    raw = losses.gae(rewards, values, params["gamma"], params["lam"])
    new = inputs["new_logprobs"].requires_grad_(), inputs["new_values"].requires_grad_()
    found, gradients = update(
        new,
        (new[0], inputs["logprobs"]),
        (new[1], values),
        losses.whiten(raw, tokens),
        raw + values,
        (tokens, slots),
        params,
    )
    return {
        "out_rewards": rewards,
        **found,
        "out_grad_new_logprobs": gradients[0],
        "out_grad_new_values": gradients[1],
    }


def truncate(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    ids, padding = inputs["responses"], params["padding_token"]
    kept = losses.real(losses.before_first(ids, params["stop_token"]) + 1, ids.shape[1])
    processed = ids.where(kept, padding)
    return {
        "out_processed": processed,
        "out_reward_index": (losses.before_first(processed, padding) - 1).clamp(min=0),
    }


ADAPTERS = {"rm_loss": rm_loss, "ppo_rollout": ppo_rollout, "truncate": truncate}
