"""Tülu 3 (Lambert et al., 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses
from teloi.data.decontamination import matching, overlaps
from teloi.worlds.verifiers import gsm8k


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


def gsm8k_verifier(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Tensor]:
    right = [gsm8k(one["prediction"], one["label"]) for one in inputs["string_inputs"]]
    return {"out_score": torch.tensor(right, dtype=torch.float64)}


def decontam(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Tensor]:
    tests, trains = inputs["string_inputs"]["test"], inputs["string_inputs"]["train"]
    scores = torch.zeros(len(tests), len(trains), dtype=torch.float64)
    for one in overlaps(tests, trains, params["n"]):
        scores[one.test, one.train] = one.overlap
    matched = torch.zeros(len(tests), len(trains), dtype=torch.bool)
    for one in matching([[test] for test in tests], trains, params["n"], params["threshold"]):
        matched[one.test, one.train] = True
    return {
        "out_score": scores,
        "out_contaminated_train": matched.any(0).long(),
        "out_test_flag": matched.any(1).long(),
    }


ADAPTERS = {"dpo": dpo, "rlvr_ppo": rlvr_ppo, "gsm8k_verifier": gsm8k_verifier, "decontam": decontam}
