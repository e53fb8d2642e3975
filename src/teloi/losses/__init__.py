"""Training objectives as pure functions of tensors: no model, no tokenizer, no I/O.

Names are resolved when they are first asked for: importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teloi.losses.logps import (
        logps_from_logits,
        per_token,
        perplexity,
        segment_mean,
        segment_sum,
        sequence_logps,
        token_logps,
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
        robust,
        simpo,
        sppo_hard,
    )
    from teloi.losses.unpaired import kl_baseline, kto

__all__ = [
    "aot",
    "aot_unpaired",
    "apo_down",
    "apo_zero",
    "bco_pair",
    "cpo",
    "discopop",
    "dpo",
    "dpo_norm",
    "exo_pair",
    "hinge",
    "implicit_reward",
    "ipo",
    "ipo_sum",
    "kl_baseline",
    "kto",
    "log_ratio",
    "logps_from_logits",
    "nca_pair",
    "orpo",
    "per_token",
    "perplexity",
    "robust",
    "segment_mean",
    "segment_sum",
    "sequence_logps",
    "simpo",
    "sppo_hard",
    "token_logps",
]

_LOGPS = {
    "logps_from_logits",
    "per_token",
    "perplexity",
    "segment_mean",
    "segment_sum",
    "sequence_logps",
    "token_logps",
}
_UNPAIRED = {"kl_baseline", "kto"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "logps" if name in _LOGPS else "unpaired" if name in _UNPAIRED else "preference"
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
