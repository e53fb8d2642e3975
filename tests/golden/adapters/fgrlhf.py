"""Fine-grained human feedback (Wu et al., 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from teloi import losses
from teloi.data.segmentation import sentences, subsentences
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


def segmentation(inputs: dict[str, Tensor], params: dict[str, Any]) -> dict[str, Tensor]:
    rule = params["min_words"], params["break_after_word_ending_in"]
    starts = [[*(start for start, _ in subsentences(text, *rule)), len(text)] for text in params["texts"]]
    bounds = [[0, *(end for _, end in sentences(text))] for text in params["texts"]]
    return {"out_subsentence_starts": padded(starts), "out_sentence_bounds": padded(bounds)}


def padded(rows: list[list[int]]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)


ADAPTERS = {"ppo": ppo, "subsentences": segmentation}
