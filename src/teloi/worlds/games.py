"""Games of one prompt written down as tables: what the policy of a model, or an algorithm's, is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from teloi import losses


@dataclass(frozen=True)
class Game:
    """`preferences[i, j]` is P(i > j) of n answers; `reference` is the policy from which others start and to which
    they are held."""

    preferences: Float[Tensor, "n n"]
    reference: Float[Tensor, " n"]

    def gap(self, policy: Float[Tensor, " n"], tau: float) -> float:
        """What a best response gains on a policy: 0 at the equilibrium."""
        return float(losses.exploitability(policy, self.reference, self.preferences, tau))


def random_game(rng: np.random.Generator, circular: float, answers: int = 8) -> Game:
    """P = sigmoid(a_i - a_j + circular * C_ij) with worths a ~ N(0, 0.3^2) and an antisymmetric C of standard normals;
    the reference is a softmax of standard normals. With `circular` 0 the worths rank all answers."""
    worth, noise = rng.normal(0, 0.3, answers), np.triu(rng.normal(size=(answers, answers)), 1)
    logits = torch.as_tensor(worth[:, None] - worth + circular * (noise - noise.T))
    return Game(torch.sigmoid(logits), torch.softmax(torch.as_tensor(rng.normal(size=answers)), 0))
