"""Losses of single tokens from their logits: was this token replaced, which was here before, and the z-loss."""

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


def nll_and_z(logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """-log softmax(logits)[target] of each position, and beside it the z-loss: (log sum exp logits) squared.

    One pass over the logits gives both, in float32 (float64 for float64). The z-loss keeps the softmax's denominator
    near 1, at a small weight (1e-4).

    Source: Chowdhery et al. 2022 (PaLM, section 5), as in Charpentier & Samuel 2024 (GPT-BERT).
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    normaliser = logits.logsumexp(-1)
    return torch.stack([normaliser - logits.gather(-1, targets[:, None])[:, 0], normaliser.square()], dim=1)


def sample_tokens(logits: Float[Tensor, "n v"], uniform: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """One token a row, drawn from softmax(logits) by a number in [0, 1): the first whose cumulated probability exceeds
    it. No gradient."""
    upto = logits.detach().double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(upto, uniform[:, None].to(upto.dtype), right=True).squeeze(1)
    return drawn.clamp(max=logits.shape[-1] - 1)
