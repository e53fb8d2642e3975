"""One policy behind two doors: told what to do by a goal or by an instruction, as a unit vector in one space."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

Sees = Literal["start-goal", "goal", "current-goal"]


class TaskPolicy(nn.Module):
    """Encoders of goals and of instructions, a policy on (state, task vector), and a learned temperature.

    Source: Myers et al. 2023 (GRIF), with perceptrons for its image and text encoders. n: rows, s: numbers of a state,
    a: of an action, e: of a text's features, d: of a task vector.
    """

    def __init__(
        self,
        state: int,
        action: int,
        text: int,
        *,
        sees: Sees = "start-goal",
        width: int = 128,
        policy_width: int = 192,
        dim: int = 32,
        dropout: float = 0.0,
        temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.sees = sees
        self.of_goal = perceptron(state if sees == "goal" else 3 * state, width, width, dim, dropout=dropout)
        self.of_text = perceptron(text, width, width, dim, dropout=dropout)
        self.policy = perceptron(state + dim, policy_width, policy_width, action, dropout=dropout)
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))  # [1]: FSDP shards no scalars

    def goal(
        self, start: Float[Tensor, "n s"], current: Float[Tensor, "n s"], goal: Float[Tensor, "n s"]
    ) -> Float[Tensor, "n d"]:
        """The task vector of getting from the start to the goal; what it is told of that is `sees`."""
        if self.sees == "goal":
            return normalize(self.of_goal(goal), dim=1)
        begin = start if self.sees == "start-goal" else current
        return normalize(self.of_goal(torch.cat([begin, goal, goal - begin], 1)), dim=1)

    def instruction(self, features: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        """The task vector of an instruction."""
        return normalize(self.of_text(features), dim=1)

    def act(self, state: Float[Tensor, "n s"], task: Float[Tensor, "n d"]) -> Float[Tensor, "n a"]:
        """The mean action."""
        action: Tensor = self.policy(torch.cat([state, task], 1))
        return action


def perceptron(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])
