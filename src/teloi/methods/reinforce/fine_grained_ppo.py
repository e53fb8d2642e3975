"""PPO from fine-grained rewards: several kinds of error, each located in the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from teloi.methods.reinforce.ppo import PPO

if TYPE_CHECKING:
    from torch import Tensor

    from teloi.models.roles import Models


@dataclass(frozen=True)
class FineGrainedPPO(PPO):
    """Fine-grained RLHF (Wu et al., 2023, section 2): PPO from several rewards, each paid where its segments end.

    Reward of a token: the sum over rewards of weight * score of the segment that ends on it, less kl (log p - log ref).
    Rewards are joined by +, each as weight*function@density with density sub-sentence, sentence or whole; a function is
    asked for segments as for completions. Rewards of tokens are divided by their deviation over the step. Loss: ppo's.
    Whitening fgrlhf repeats the released code, which divides by the root of the deviation, in advantages as well, and
    gives padding a share.

    Use it where an error can be located: sentences, steps, lines. The weights steer: more relevance shortens answers,
    more completeness lengthens them. Not if all you have is which answer is better: ppo with rm. A good segment that
    pays makes long answers pay; watch `length`."""

    defaults: ClassVar[Mapping[str, Any]] = {**PPO.defaults, "batch_size": 4}

    reward: str = "0.5*checks+0.3*fresh@sub-sentence"
    """Rewards joined by +, each weight*function@density: "checks", "fresh", my_rewards.py:function, or the run of a
    reward model (rm, segment-rm). A weight is 1 and a density the whole where they are left out."""
    k: int = 4
    """Completions sampled of each prompt."""
    temperature: float = 0.7
    """Of sampling."""
    top_k: int = 20
    """Sample from so many of the likeliest tokens; 0: from all."""
    kl: float = 0.3
    """Weight of the KL to the start model in the rewards of tokens; at 0 no reference model is kept."""
    value_weight: float = 1.0
    """Weight of the critic's loss."""
    whiten_rewards: bool = True
    """Divide rewards by their deviation over the tokens of the step; the mean stays."""
    whitening: Literal["std", "fgrlhf"] = "std"
    """What is divided by: the standard deviation, or the released code's root of it."""

    def whitened(self, models: Models, values: Tensor, real: Tensor, **how: Any) -> Tensor:
        quirks = {"bessel": False, "divisor": "sqrt_std", "everywhere": True} if self.whitening == "fgrlhf" else {}
        return super().whitened(models, values, real, **quirks, **how)
