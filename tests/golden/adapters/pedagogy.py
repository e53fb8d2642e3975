"""Pedagogical alignment of large language models (Sonkar et al., 2024)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from teloi import losses


def pairs(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    """Rows: the first half chosen, the second half rejected."""
    mask = inputs["in_completion_mask"].bool()
    rows = mask.nonzero()[:, 0]
    policy = losses.segment_sum(inputs["in_policy_token_logps"][mask], rows, len(mask))
    reference = losses.segment_sum(inputs["in_ref_token_logps"][mask], rows, len(mask))
    chosen, rejected = losses.log_ratio(policy, reference).view(2, -1)
    beta = float(params["beta"])
    if params["loss"] == "sigmoid":
        value = losses.dpo(chosen, rejected, beta)
    elif params["loss"] == "ipo":
        chosen_length, rejected_length = mask.sum(1).view(2, -1)
        value = losses.ipo(chosen, rejected, chosen_length, rejected_length, beta)
    else:
        raise NotImplementedError(f"loss {params['loss']}")
    return {"out_loss": value.mean()}


def kto(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    baseline = losses.kl_baseline(losses.log_ratio(inputs["in_kl_policy_logps"], inputs["in_kl_ref_logps"]))
    ratio = losses.log_ratio(inputs["in_policy_logps"], inputs["in_ref_logps"])
    weights = (float(params[name]) for name in ("beta", "desirable_weight", "undesirable_weight"))
    value = losses.kto(ratio, inputs["in_label"].bool(), baseline, *weights)
    return {"out_loss": value.mean(), "out_kl": baseline, "out_per_example": value}


def ppl(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    direct = inputs["in_is_direct"].bool()
    outputs = {}
    for group, chosen in (("scaffold", ~direct), ("direct", direct)):
        logps, lengths = inputs["in_token_logps"][chosen], inputs["in_lengths"][chosen]
        outputs[f"out_ppl_{group}_tokenmean"] = losses.perplexity(logps, lengths)
        outputs[f"out_ppl_{group}_repo"] = losses.perplexity(logps, lengths, variant="official")
    return outputs


ADAPTERS = {"dpo": pairs, "ipo": pairs, "kto": kto, "ppl": ppl}
