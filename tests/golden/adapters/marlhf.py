"""RLHF with macro actions (Chai et al., 2025)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses


def ma_ppo(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    first = params["prompt_len"] - 1
    size = inputs["logprobs"].shape[1]
    length = size - first
    match params["condition"]:
        case "fixed":
            starts = losses.fixed_starts(length, params["ngram"], keep_empty=True)
        case "randomized":
            starts = losses.listed_starts(length, inputs["length_list"].tolist(), keep_empty=True)
        case "ppl":
            starts = losses.perplexity_starts(inputs["token_ppl"], keep_empty=True)
    cut = torch.tensor(starts)
    score = inputs["score"].clamp(-params["score_clip"], params["score_clip"])
    kl = losses.kl_estimate(inputs["logprobs"], inputs["ref_logprobs"], "k1")
    rewards = losses.scores_at_ends(score, torch.tensor([size]), size) - params["kl_coef"] * kl
    values = losses.aggregate(inputs["values"][0, first:], cut, params["value_function"])
    macro = losses.aggregate(rewards[0, first:], cut, params["value_function"])
    found = losses.gae(macro[None], values[None], params["gamma"], params["lam"])
    returns = found + values
    new = [inputs["new_logprobs"].requires_grad_(), inputs["new_values"].requires_grad_()]
    old = inputs["logprobs"][0, first:]
    actor = losses.clipped_surrogate(
        new[0][0, first:], old, losses.spread(found[0], cut, length), params["clip"], params["clip"]
    ).mean()
    critic = losses.clipped_value_loss(
        new[1][0, first:], inputs["values"][0, first:], losses.spread(returns[0], cut, length), params["value_clip"]
    ).mean()
    return {
        "out_boundaries": cut + first,
        "out_token_rewards": rewards,
        "out_macro_values": values[None],
        "out_macro_rewards": macro[None],
        "out_advantages": found,
        "out_returns": returns,
        "out_actor_loss": actor,
        "out_critic_loss": critic,
        "out_grad_new_logprobs": torch.autograd.grad(actor, new[0])[0],
        "out_grad_new_values": torch.autograd.grad(critic, new[1])[0],
    }


def boundaries_parsing(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    starts = losses.parsed_starts(params["tree"], params["cutoff"])
    return {"out_boundaries": torch.tensor(starts) + params["prompt_len"] - 1}


ADAPTERS = {"ma_ppo": ma_ppo, "boundaries_parsing": boundaries_parsing}
