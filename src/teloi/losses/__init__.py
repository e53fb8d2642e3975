"""Training objectives as pure functions of tensors: no model, no tokenizer, no I/O.

Names are resolved when they are first asked for: importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teloi.losses.advantages import (
        before_first,
        clipped_value_loss,
        gae,
        real,
        scores_at_ends,
        scores_at_segments,
        unfinished,
        whiten,
    )
    from teloi.losses.cloning import gaussian_nll
    from teloi.losses.contrastive import (
        contrast,
        cosine_pull,
        info_nce,
        inverse_temperature,
        mean_pool,
        same_group,
        simcse,
        similarity,
        symmetric_info_nce,
        two_view_nce,
    )
    from teloi.losses.finetuning import ascend, calibrated_cross_entropy, symmetric_cross_entropy, symmetric_kl
    from teloi.losses.logps import (
        logps_from_logits,
        per_token,
        perplexity,
        segment_mean,
        segment_sum,
        sequence_logps,
        token_logps,
    )
    from teloi.losses.macro import (
        aggregate,
        fixed_starts,
        listed_starts,
        parsed_starts,
        perplexity_starts,
        spread,
    )
    from teloi.losses.momentum import (
        draw_weighted,
        hard_negative_weights,
        matching,
        matching_labels,
        momentum_info_nce,
    )
    from teloi.losses.nash import (
        best_response,
        both_orders,
        bradley_terry,
        decreasing_step,
        divergence,
        equilibrium,
        exploitability,
        mirror_step,
        mixture_logps,
        nash_md,
        penalised_preference,
        regularised_step,
    )
    from teloi.losses.policy import (
        clipped_surrogate,
        group_advantages,
        kl_estimate,
        leave_one_out_advantages,
        reinforce,
    )
    from teloi.losses.preference import (
        aot,
        aot_unpaired,
        apo_down,
        apo_zero,
        bco_pair,
        cpo,
        discopop,
        dpo,
        dpo_norm,
        exo_pair,
        hinge,
        implicit_reward,
        ipo,
        ipo_sum,
        log_ratio,
        nca_pair,
        orpo,
        reward_pair,
        robust,
        simpo,
        sppo_hard,
    )
    from teloi.losses.scored import reward_weighted, reward_weights, unlikelihood, value_error
    from teloi.losses.soft_labels import (
        distillation,
        distillation_weight,
        highest,
        label_entropy,
        learnable_hardness,
        selection_score,
    )
    from teloi.losses.tokens import nll_and_z, sample_tokens, token_cross_entropy
    from teloi.losses.unpaired import kl_baseline, kto

__all__ = [
    "aggregate",
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "ascend",
    "bco_pair",
    "before_first",
    "best_response",
    "both_orders",
    "bradley_terry",
    "calibrated_cross_entropy",
    "clipped_surrogate",
    "clipped_value_loss",
    "contrast",
    "cosine_pull",
    "cpo",
    "decreasing_step",
    "discopop",
    "distillation",
    "distillation_weight",
    "divergence",
    "dpo",
    "dpo_norm",
    "draw_weighted",
    "equilibrium",
    "exo_pair",
    "exploitability",
    "fixed_starts",
    "gae",
    "gaussian_nll",
    "group_advantages",
    "hard_negative_weights",
    "highest",
    "hinge",
    "implicit_reward",
    "info_nce",
    "inverse_temperature",
    "ipo",
    "ipo_sum",
    "kl_baseline",
    "kl_estimate",
    "kto",
    "label_entropy",
    "learnable_hardness",
    "leave_one_out_advantages",
    "listed_starts",
    "log_ratio",
    "logps_from_logits",
    "matching",
    "matching_labels",
    "mean_pool",
    "mirror_step",
    "mixture_logps",
    "momentum_info_nce",
    "nash_md",
    "nca_pair",
    "nll_and_z",
    "orpo",
    "parsed_starts",
    "penalised_preference",
    "per_token",
    "perplexity",
    "perplexity_starts",
    "real",
    "regularised_step",
    "reinforce",
    "reward_pair",
    "reward_weighted",
    "reward_weights",
    "robust",
    "same_group",
    "sample_tokens",
    "scores_at_ends",
    "scores_at_segments",
    "segment_mean",
    "segment_sum",
    "selection_score",
    "sequence_logps",
    "simcse",
    "similarity",
    "simpo",
    "sppo_hard",
    "spread",
    "symmetric_cross_entropy",
    "symmetric_info_nce",
    "symmetric_kl",
    "token_cross_entropy",
    "token_logps",
    "two_view_nce",
    "unfinished",
    "unlikelihood",
    "value_error",
    "whiten",
]

# The module of each public name that is not in `preference`.
_ROOMS = {
    name: room
    for room, names in {
        "advantages": (
            "before_first",
            "clipped_value_loss",
            "gae",
            "real",
            "scores_at_ends",
            "scores_at_segments",
            "unfinished",
            "whiten",
        ),
        "cloning": ("gaussian_nll",),
        "contrastive": (
            "contrast",
            "cosine_pull",
            "info_nce",
            "inverse_temperature",
            "mean_pool",
            "same_group",
            "simcse",
            "similarity",
            "symmetric_info_nce",
            "two_view_nce",
        ),
        "finetuning": ("ascend", "calibrated_cross_entropy", "symmetric_cross_entropy", "symmetric_kl"),
        "logps": (
            "logps_from_logits",
            "per_token",
            "perplexity",
            "segment_mean",
            "segment_sum",
            "sequence_logps",
            "token_logps",
        ),
        "macro": (
            "aggregate",
            "fixed_starts",
            "listed_starts",
            "parsed_starts",
            "perplexity_starts",
            "spread",
        ),
        "momentum": (
            "draw_weighted",
            "hard_negative_weights",
            "matching",
            "matching_labels",
            "momentum_info_nce",
        ),
        "nash": (
            "best_response",
            "both_orders",
            "bradley_terry",
            "decreasing_step",
            "divergence",
            "equilibrium",
            "exploitability",
            "mirror_step",
            "mixture_logps",
            "nash_md",
            "penalised_preference",
            "regularised_step",
        ),
        "policy": (
            "clipped_surrogate",
            "group_advantages",
            "kl_estimate",
            "leave_one_out_advantages",
            "reinforce",
        ),
        "scored": ("reward_weighted", "reward_weights", "unlikelihood", "value_error"),
        "soft_labels": (
            "distillation",
            "distillation_weight",
            "highest",
            "label_entropy",
            "learnable_hardness",
            "selection_score",
        ),
        "tokens": ("nll_and_z", "sample_tokens", "token_cross_entropy"),
        "unpaired": ("kl_baseline", "kto"),
    }.items()
    for name in names
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ROOMS.get(name, 'preference')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
