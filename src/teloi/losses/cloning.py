"""Imitation of actions that are vectors."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def gaussian_nll(means: Float[Tensor, "n a"], actions: Float[Tensor, "n a"]) -> Float[Tensor, " n"]:
    """-log N(action; mean, 1) of each row, without its constant: half the squared distance.

    Source: Myers et al. 2023 (GRIF), L_goal and L_lang, whose policies have the fixed standard deviation 1.
    """
    return (means - actions).square().sum(1) / 2
