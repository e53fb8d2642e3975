"""Pretraining with human preferences by the loss: a token weighs by the score of its segment (Korbak et al., 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from teloi import losses
from teloi.engine.objective import Now, Term
from teloi.errors import DataError, UsageError
from teloi.methods.pretrain.human_preferences import Scored, Thresholded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from teloi.batch.tree import Tree, TreeBatch
    from teloi.models.roles import Models

UNTRAINED = -0.5
"""-sigmoid(0): what the value head of the official code says as long as nothing trains it."""


@dataclass(frozen=True)
class Unlikelihood(Thresholded):
    """Unlikelihood (Welleck et al., 2020) of misaligned segments, as Korbak et al., 2023, section 2 use it.

    Loss: the mean over all tokens of -a log p(token) - alpha (1 - a) log(1 - p(token)). Mode hard: a is 1 where the
    token's segment scores at most the threshold, else 0. Mode soft, which the official code takes for a threshold of 0:
    a is 1 - score.

    Use it where misaligned segments are few and clearly told apart, as toxic sentences are. Not where aligned and
    misaligned text share most tokens (code, personal data): the paper finds that it then harms both.
    """

    alpha: float = 1.0
    """Weight of the unlikelihood (0.01 in the paper for code)."""
    mode: Literal["hard", "soft"] = "hard"
    """Tokens are aligned or not, or aligned by so much; soft needs scores from 0 to 1 and has no threshold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0:
            raise UsageError(f"alpha must not be negative, and is {self.alpha}")

    def cut(self, examples: Sequence[Tree], threshold: np.float32, seed: int) -> Sequence[Tree]:
        if self.mode == "soft":
            _check_range(examples, "mode soft", "--mode hard")
        return super().cut(examples, threshold, seed)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        logps, scores = models.policy.logps(batch), batch.tokens["score"]
        aligned = 1 - scores if self.mode == "soft" else (scores <= batch.columns["threshold"][batch.branch]).float()
        nll = -logps.detach()
        return {
            "unlikelihood": Term(losses.unlikelihood(logps, aligned, self.alpha), per="tokens"),
            "nll_aligned": Term(nll * aligned, per=aligned, weight=0.0),
            "nll_misaligned": Term(nll * (1 - aligned), per=1 - aligned, weight=0.0),
        }


@dataclass(frozen=True)
class RWR(Scored):
    """Reward-weighted regression (Peters and Schaal, 2007), as Korbak et al., 2023, section 2 use it.

    Loss: the mean over all tokens of exp(-score / beta) * -log p(token), the weight at most 1000. Variant official: the
    configurations of the released code subtract an untrained value of -1/2 from the reward, which multiplies every
    weight by exp(1 / (2 beta)).

    Use it as the simplest way to weigh a corpus by a score. Not with a beta that is large beside the differences of the
    scores (10 in the paper): the weights are then all alike, and it is clm.
    """

    beta: float = 10.0
    """Temperature of the weights, in units of the score."""
    variant: Literal["paper", "official"] = "paper"
    """Without a baseline, or with the constant one of the released configurations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_beta(self.beta)

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        baseline = 0.0 if self.variant == "paper" else UNTRAINED
        return _weighted(models.policy.logps(batch), batch.tokens["score"], self.beta, baseline, 1.0)


@dataclass(frozen=True)
class AWR(Scored):
    """Advantage-weighted regression (Peng et al., 2019) a token, as Korbak et al., 2023, section 2 use it.

    A head on the last hidden state says the value v of each position, -sigmoid(w . h) with w zero at first. Loss: alpha
    times the mean of exp((-score - v) / beta) * -log p(token), the weight at most 1000 and v fixed in it, plus
    1 - alpha times the mean of (-score - v)^2, whose gradient reaches the trunk. Score and token are the predicted
    one's, v the predicting position's. Watch `clipped`, the share of tokens at the largest weight.

    Use it where a segment's score can be foreseen from what precedes it, so that only surprises weigh. Not as the first
    choice: the paper finds that it costs capability; conditional-lm does not.
    """

    defaults: ClassVar[Mapping[str, Any]] = {**Scored.defaults, "learning_rate": 1e-3}

    alpha: float = 0.5
    """Share of the weighted likelihood; the rest is the value's."""
    beta: float = 10.0
    """Temperature of the weights, in units of the score (0.1 in the paper for personal data, 1 for code)."""
    value: Literal["sigmoid", "linear"] = "sigmoid"
    """What the head's output goes through: sigmoid fits scores from 0 to 1, linear any."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_beta(self.beta)
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha must be a share from 0 to 1, not {self.alpha}")

    def prepare(self, examples: Sequence[Tree], seed: int) -> Sequence[Tree]:
        if self.value == "sigmoid":
            _check_range(examples, "the value head of awr", "--value linear")
        return super().prepare(examples, seed)

    def build(self, models: Models) -> nn.Module:
        from torch import nn

        inner: Any = models.policy.inner
        head = nn.Linear(inner.config.hidden_size, 1, bias=False)
        nn.init.zeros_(head.weight)
        return nn.ModuleDict({"value": head.to(inner.dtype)})

    def loss(self, models: Models, batch: TreeBatch, now: Now) -> dict[str, Term]:
        parts: Any = models.parts
        hidden, scores = models.policy.hidden(batch), batch.tokens["score"]
        logps = models.policy.logps_at(hidden, batch.target)
        output = parts["value"](hidden)[:, 0].float()
        values = -output.sigmoid() if self.value == "sigmoid" else output
        return {
            **_weighted(logps, scores, self.beta, values, self.alpha),
            "value": Term(losses.value_error(scores, values), per="tokens", weight=1 - self.alpha),
        }


def _weighted(logps: Tensor, scores: Tensor, beta: float, baseline: Tensor | float, weight: float) -> dict[str, Term]:
    """The weighted likelihood as a term, with what one watches: the plain one, and weights that were clamped."""
    from teloi.losses.scored import MOST

    clipped = losses.reward_weights(scores, beta, baseline) >= MOST * (1 - 1e-5)
    return {
        "weighted_nll": Term(losses.reward_weighted(logps, scores, beta, baseline), per="tokens", weight=weight),
        "nll": Term(-logps.detach(), per="tokens", weight=0.0),
        "clipped": Term(clipped.float(), per="tokens", weight=0.0),
    }


def _check_beta(beta: float) -> None:
    if beta <= 0:
        raise UsageError(f"beta must be above 0, not {beta}")


def _check_range(examples: Sequence[Tree], what: str, instead: str) -> None:
    scores = np.concatenate([example.columns["segment_scores"] for example in examples])
    if scores.min() < 0 or scores.max() > 1:
        raise DataError(
            f"{what} needs scores from 0 to 1, and these go from {scores.min():g} to {scores.max():g}: scale them or "
            f"set {instead}"
        )
