"""Unpacking DPO and PPO (Ivison et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from teloi import losses
from tests.golden.ppo import update

SIDES = ("chosen", "rejected")


def pairwise_losses(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    if params["f_divergence"] != "reverse_kl":
        raise NotImplementedError(f"f_divergence {params['f_divergence']}: only reverse_kl")
    beta, smoothing, tau = (float(params[name]) for name in ("beta", "label_smoothing", "discopop_tau"))
    policy = [inputs[f"policy_{side}_logps"].requires_grad_() for side in SIDES]
    reference = [inputs[f"ref_{side}_logps"] for side in SIDES]
    lengths = [inputs[f"{side}_len"] for side in SIDES]
    chosen, rejected = (losses.log_ratio(*pair) for pair in zip(policy, reference, strict=True))
    chosen_mean, rejected_mean = (losses.per_token(*pair) for pair in zip((chosen, rejected), lengths, strict=True))
    by_name: dict[str, Callable[[], Tensor]] = {
        "sigmoid": lambda: losses.dpo(chosen, rejected, beta),
        "hinge": lambda: losses.hinge(chosen, rejected, beta),
        "ipo": lambda: losses.ipo(chosen, rejected, lengths[0], lengths[1], beta),
        "exo_pair": lambda: losses.exo_pair(chosen, rejected, beta, smoothing),
        "nca_pair": lambda: losses.nca_pair(chosen, rejected, beta),
        "robust": lambda: losses.robust(chosen, rejected, beta, smoothing),
        "bco_pair": lambda: losses.bco_pair(chosen, rejected, beta),
        "sppo_hard": lambda: losses.sppo_hard(chosen, rejected, beta),
        "aot": lambda: losses.aot(policy[0], policy[1], reference[0], reference[1], beta, smoothing),
        "aot_unpaired": lambda: losses.aot_unpaired(chosen, rejected, beta, smoothing),
        "apo_zero": lambda: losses.apo_zero(chosen, rejected, beta),
        "apo_down": lambda: losses.apo_down(chosen, rejected, beta),
        "discopop": lambda: losses.discopop(chosen, rejected, beta, tau),
        "sigmoid_norm": lambda: losses.dpo_norm(chosen_mean, rejected_mean, beta),
    }
    outputs: dict[str, Tensor] = {}
    for name, loss in by_name.items():
        try:
            value = loss()
        except ValueError:
            continue  # undefined at this label smoothing: no output, which fails a case that expects one
        outputs[f"out_{name}"] = value
        gradients = torch.autograd.grad(value.mean(), policy, retain_graph=True)
        outputs[f"out_grad_chosen_{name}"], outputs[f"out_grad_rejected_{name}"] = gradients
    return outputs


def easylm_pair(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    beta = float(params["beta"])
    policy = [inputs[f"policy_{side}_logps"].requires_grad_() for side in SIDES]
    reference = [inputs[f"ref_{side}_logps"] for side in SIDES]
    chosen, rejected = (losses.log_ratio(*pair) for pair in zip(policy, reference, strict=True))
    if params["ipo"]:
        value = losses.ipo_sum(chosen, rejected, beta)
    else:
        value = losses.dpo(chosen, rejected, beta, float(params["label_smoothing"]))
    gradients = torch.autograd.grad(value.mean(), policy)
    return {
        "out_losses": value,
        "out_chosen_rewards": losses.implicit_reward(chosen, beta),
        "out_rejected_rewards": losses.implicit_reward(rejected, beta),
        "out_grad_chosen": gradients[0],
        "out_grad_rejected": gradients[1],
    }


def sequence_logps(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    return {"out_logps": losses.sequence_logps(inputs["logits"], inputs["labels"], inputs["loss_mask"])}


def kto(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    policy = [inputs[f"{side}_logps"].requires_grad_() for side in ("desirable", "undesirable")]
    reference = [inputs[f"ref_{side}_logps"] for side in ("desirable", "undesirable")]
    desirable = [
        torch.full_like(side, label, dtype=torch.bool) for side, label in zip(policy, (True, False), strict=True)
    ]
    baseline = losses.kl_baseline(losses.log_ratio(inputs["kl_logps"], inputs["ref_kl_logps"]))
    ratio = losses.log_ratio(torch.cat(policy), torch.cat(reference))
    weights = (float(params[name]) for name in ("beta", "desirable_weight", "undesirable_weight"))
    value = losses.kto(ratio, torch.cat(desirable), baseline, *weights)
    gradients = torch.autograd.grad(value.mean(), policy)
    return {
        "out_losses": value,
        "out_kl": baseline,
        "out_loss": value.mean(),
        "out_grad_desirable": gradients[0],
        "out_grad_undesirable": gradients[1],
    }


def easylm_ppo(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    lengths, size = inputs["lengths"], inputs["logprobs"].shape[1]
    mask = losses.real(lengths, size)
    kl = losses.kl_estimate(inputs["logprobs"], inputs["ref_logprobs"], "k1")
    rewards = losses.scores_at_ends(inputs["scores"], lengths, size) - params["kl_coef"] * kl
    shaped, values = rewards * mask, inputs["values"] * mask
    if params["whiten_rewards"]:
        shaped = losses.whiten(shaped, mask, keep_mean=True, eps=1e-6)
    raw = losses.gae(shaped, values, params["gamma"], params["lam"])
    new = inputs["new_logits"].requires_grad_(), inputs["new_values"].requires_grad_()
    found, gradients = update(
        new,
        (
            losses.logps_from_logits(new[0].flatten(0, 1), inputs["cont_ids"].flatten()).view(mask.shape),
            inputs["logprobs"],
        ),
        (new[1], values),
        losses.whiten(raw, mask, eps=1e-6, everywhere=True),
        raw + values,
        (mask, mask),
        params,
    )
    return {"out_rewards": rewards, **found, "out_grad_new_logits": gradients[0], "out_grad_new_values": gradients[1]}


ADAPTERS = {
    "easylm_ppo": easylm_ppo,
    "pairwise_losses": pairwise_losses,
    "easylm_pair": easylm_pair,
    "sequence_logps": sequence_logps,
    "kto": kto,
}
