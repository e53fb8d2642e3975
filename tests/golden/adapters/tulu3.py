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


def rlvr_ppo(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    lengths, size = inputs["in_sequence_lengths"] + 1, inputs["in_logprobs"].shape[1]
    tokens, slots = losses.real(lengths, size), losses.real(lengths + 1, size)
    finished = (inputs["in_responses"] == params["eos_id"]).any(1)
    scores = losses.unfinished(inputs["in_scores"], finished, params["penalty"])
    kl = losses.kl_estimate(inputs["in_logprobs"], inputs["in_ref_logprobs"], "k1")
    rewards = losses.scores_at_ends(scores, lengths, size, "next") - params["beta"] * kl * tokens
    values = inputs["in_values"] * slots
    found = losses.gae(rewards, values, params["gamma"], params["lam"])
    advantages, returns = losses.whiten(found, tokens), found + values
    new = inputs["in_new_logprobs"].requires_grad_()
    clip = params["cliprange"]
    policy = losses.clipped_surrogate(new[tokens], inputs["in_logprobs"][tokens], advantages[tokens], clip, clip)
    value = losses.clipped_value_loss(
        inputs["in_new_values"][slots], values[slots], returns[slots], params["cliprange_value"]
    )
    return {
        "out_final_scores": scores,
        "out_rewards": rewards,
        "out_advantages": advantages,
        "out_returns": returns,
        "out_policy_loss": policy.mean(),
        "out_value_loss": value.mean(),
        "out_grad_new_logprobs": torch.autograd.grad(policy.mean(), new)[0],
        "out_padding_mask": (~tokens).long(),
        "out_padding_mask_p1": (~slots).long(),
    }


ADAPTERS = {"dpo": dpo, "rlvr_ppo": rlvr_ppo}
