"""Fine-tuning that guards against noise: embeddings moved to where the output changes most, labels tempered by what the
model itself said before."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


def symmetric_cross_entropy(perturbed: Float[Tensor, "n c"], clean: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """-sum p_clean log p_perturbed - sum p_perturbed log p_clean of each row; the loss is the mean over rows.

    The weights p are detached, the logarithms are not: the clean side gets gradients too. SiFT's code calls it a
    symmetric KL; where both are equal it is twice their entropy and not 0.

    Source: He et al. 2021 (DeBERTa), section 4; official code microsoft/DeBERTa.
    """
    one, other = perturbed.log_softmax(-1), clean.log_softmax(-1)
    return -(other.detach().exp() * one).sum(-1) - (one.detach().exp() * other).sum(-1)


def symmetric_kl(one: Float[Tensor, "n c"], other: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """KL(p_one || p_other) + KL(p_other || p_one) of each row of logits: 0 where they agree."""
    one, other = one.log_softmax(-1), other.log_softmax(-1)
    return ((one.exp() - other.exp()) * (one - other)).sum(-1)


def ascend(
    start: Float[Tensor, "*shape h"], slope: Float[Tensor, "*shape h"], rate: float
) -> Float[Tensor, "*shape h"]:
    """One step of a perturbation to where the network's output differs more from the clean one.

        start + rate * slope / (1e-6 + max |slope|)

    Args:
        start: the first perturbation, of each token [... h].
        slope: the gradient of the summed divergence at `start`; the maximum is over its last axis.

    Returns:
        The perturbation, detached. Where the gradient is not finite it stays as it was.

    Source: He et al. 2021 (SiFT, scale-invariant fine-tuning).
    """
    direction = slope / (1e-6 + slope.abs().amax(-1, keepdim=True))
    return (start + rate * direction.nan_to_num(0.0, 0.0, 0.0)).detach()


def calibrated_cross_entropy(
    logits: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    before: Float[Tensor, "n c"],
    share: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    """Cross-entropy against (1 - share) onehot(label) + share before; the loss is the mean over rows.

    Args:
        before: what the model said earlier, probabilities; no gradient flows into them.
        share: of them in the target, from 0 (plain cross-entropy) to 1.
    """
    share = share[:, None]
    target = (1 - share) * one_hot(labels, logits.shape[1]).to(logits.dtype) + share * before.detach()
    return cross_entropy(logits, target, reduction="none")
