"""Classification of tokens by small heads: was this token replaced, and which was here before."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy


def token_cross_entropy(
    logits: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    class_weights: Float[Tensor, " c"] | None = None,
) -> Float[Tensor, " n"]:
    """weight[label] * -log softmax(logits)[label] of each position; 0, without gradient, where the label is -100.

    The training loss is the sum divided by the number of labelled positions: a mean over all but padding for
    replaced-token detection (c = 2), over the chosen positions for masked and swapped language models (c = the
    vocabulary; where that is large, `token_logps` does without an [n c] tensor).

    Args:
        logits: one row a position; the softmax is taken in float32 (float64 for float64).
        labels: classes in [0, c), or -100.
        class_weights: factors by label, 1 without; the sum is not divided by them.

    Source: Di Liello et al. 2022 (RTS, C-RTS, SLM).
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(logits, labels, class_weights, ignore_index=-100, reduction="none")
