"""Direct preference optimisation and its relatives: losses on the log-ratio of policy to reference of a chosen and a
rejected completion. Fourteen of them are compared in "Unpacking DPO and PPO" (Ivison et al., 2024); each is one line
here and one pure function in `teloi.losses.preference`, where the equation is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from teloi import losses
from teloi.errors import UsageError
from teloi.methods.prefer.pairs import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DPO(PairObjective):
    """Direct preference optimisation (Rafailov et al., 2023, eq. 7).

    Loss: -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)), log-ratios summed over tokens. With
    label smoothing it is conservative DPO (cDPO): labels are taken to be wrong with that probability.

    Use it first on preference pairs, from a model that was fine-tuned on similar answers. Not when replies grow
    longer than you want (dpo-norm, simpo), when labels are noisy (robust) or when feedback is thumbs up and down
    (kto).
    """

    beta: float = 0.1
    """Strength of the pull towards the reference: small values move further."""
    label_smoothing: float = 0.0
    """Assumed share of wrong labels, in [0, 0.5)."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.dpo(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class DPONorm(PairObjective):
    """Length-normalised DPO (Tülu 3, Lambert et al., 2024, section 5.1): log-ratios are means over tokens.

    Loss: -log sigmoid(beta * (mean log-ratio of chosen - mean log-ratio of rejected)). beta belongs to means: 5 to
    10, where dpo has 0.1.

    Use it when dpo makes replies longer than you want. Not when length is part of what people prefer.
    """

    beta: float = 5.0
    """Strength of the pull towards the reference, for log-ratios a token."""
    label_smoothing: float = 0.0
    """Assumed share of wrong labels, in [0, 0.5)."""

    def rewards(self, pairs: Pairs) -> Tensor:
        return self.beta * pairs.mean_ratios

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.mean_ratios
        return losses.dpo_norm(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class IPO(PairObjective):
    """Identity preference optimisation on log-ratios a token (Azar et al., 2023, eq. 17, normalised by length as in
    TRL).

    Loss: (mean log-ratio of chosen - mean log-ratio of rejected - 1 / (2 beta))^2. The margin has a target and
    cannot grow without bound. The paper writes sums: that is ipo-sum, and its beta is not comparable.

    Use it when pairs are clean or few and dpo overfits them, or when the policy must stay near its reference. Not
    for a short run that shall move far: the pull fades as the target comes near.
    """

    beta: float = 0.1
    """The target margin is 1 / (2 beta)."""

    def rewards(self, pairs: Pairs) -> Tensor:
        return self.beta * pairs.mean_ratios

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        chosen_length, rejected_length = pairs.lengths
        return losses.ipo(chosen, rejected, chosen_length, rejected_length, self.beta)


@dataclass(frozen=True)
class IPOSum(PairObjective):
    """Identity preference optimisation as its paper writes it (Azar et al., 2023, eq. 17): log-ratios summed over
    tokens.

    Loss: (log-ratio of chosen - log-ratio of rejected - 1 / (2 beta))^2.

    Use it to follow the paper. Not where completions differ much in length: ipo gives each token the same say.
    """

    beta: float = 0.1
    """The target margin is 1 / (2 beta)."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.ipo_sum(chosen, rejected, self.beta)


@dataclass(frozen=True)
class Hinge(PairObjective):
    """Hinge loss on the margin (SLiC, Zhao et al., 2023; as a DPO loss in RSO, Liu et al., 2023).

    Loss: max(0, 1 - beta * (log-ratio of chosen - log-ratio of rejected)). Pairs that are already apart by 1 / beta
    no longer pull.

    Use it when easy pairs dominate the data and dpo goes on pushing them apart. Not when most pairs are apart
    already: then few rows of a batch teach anything.
    """

    beta: float = 0.1
    """The margin at which a pair stops to count is 1 / beta."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.hinge(chosen, rejected, self.beta)


@dataclass(frozen=True)
class Robust(PairObjective):
    """Robust DPO (Ray Chowdhury et al., 2024, eq. 9): an unbiased estimate of the DPO loss under labels flipped at
    a known rate.

    Loss: ((1 - e) * dpo(margin) - e * dpo(-margin)) / (1 - 2 e), where e is the label smoothing and dpo(m) = -log
    sigmoid(beta * m).

    Use it when about a known share of labels is wrong. Not when that share is unknown or small: the estimate is
    noisier than dpo's loss, and it has no lower bound. dpo with label smoothing is the cautious neighbour.
    """

    beta: float = 0.1
    """Strength of the pull towards the reference."""
    label_smoothing: float = 0.1
    """Share of flipped labels, in [0, 0.5); at 0 it is dpo."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.robust(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class EXOPair(PairObjective):
    """Efficient exact optimisation on pairs (Ji et al., 2024, eq. 16): the reverse KL from the model's preference
    to the label.

    Loss: q * log(q / (1 - e)) + (1 - q) * log((1 - q) / e), where q = sigmoid(beta * (log-ratio of chosen -
    log-ratio of rejected)) and e is the label smoothing.

    Use it when the policy shall settle on the better answer rather than cover both. Not on noisy labels: a
    confident wrong pair weighs up to log(1 / e).
    """

    beta: float = 0.1
    """Strength of the pull towards the reference."""
    label_smoothing: float = 1e-3
    """Smoothing of the label, in (0, 0.5): the reverse KL needs it above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing == 0:
            raise UsageError("exo-pair needs a label_smoothing above 0: the reverse KL to a certain label is infinite")

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.exo_pair(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class NCAPair(PairObjective):
    """Noise-contrastive alignment on pairs (Chen et al., 2024): keeps the likelihood of the chosen completion from
    falling.

    Loss: -log sigmoid(r_chosen) - 1/2 * log sigmoid(-r_chosen) - 1/2 * log sigmoid(-r_rejected), where r = beta *
    log-ratio.

    Use it when dpo lowers the likelihood of both sides, as on reasoning data where the chosen answer must stay
    likely. Not when only the difference between the two matters.
    """

    beta: float = 0.1
    """Strength of the pull towards the reference."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.nca_pair(chosen, rejected, self.beta)


@dataclass(frozen=True)
class BCOPair(PairObjective):
    """Binary classifier optimisation on pairs (Jung et al., 2024), without its running reward shift.

    Loss: -log sigmoid(r_chosen) - log sigmoid(-r_rejected), where r = beta * log-ratio: each side is judged by
    itself.

    Use it when the two sides of a pair differ in more than quality, so that their difference says little. Not for
    unpaired rows: there kto has a baseline.
    """

    beta: float = 0.1
    """Strength of the pull towards the reference."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.bco_pair(chosen, rejected, self.beta)


@dataclass(frozen=True)
class SPPOHard(PairObjective):
    """Self-play preference optimisation with hard labels (Wu et al., 2024, eq. 4.7): each log-ratio has a target.

    Loss: (log-ratio of chosen - 1 / (2 beta))^2 + (log-ratio of rejected + 1 / (2 beta))^2.

    Use it in rounds: sample pairs from the current model, have them judged, train on them. Not on pairs another
    model wrote, for which the targets were not meant.
    """

    beta: float = 0.1
    """The targets are 1 / (2 beta) for chosen and -1 / (2 beta) for rejected."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.sppo_hard(chosen, rejected, self.beta)


@dataclass(frozen=True)
class AOT(PairObjective):
    """Alignment by optimal transport (Melnyk et al., 2024): margins shall dominate the reference's, quantile by
    quantile.

    Loss: the mean of -log sigmoid(beta * (sorted policy margins - sorted reference margins)), a margin being log p
    of chosen - log p of rejected. Both are sorted apart, so the loss couples the whole batch.

    Use it with large batches, when a method shall be better across the board and not on average. Not with small
    batches, whose quantiles say little.
    """

    coupled = True
    beta: float = 0.1
    """Strength of the pull towards the reference."""
    label_smoothing: float = 0.0
    """Assumed share of wrong labels, in [0, 0.5)."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.policy
        reference_chosen, reference_rejected = pairs.reference
        return losses.aot(chosen, rejected, reference_chosen, reference_rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class AOTUnpaired(PairObjective):
    """Alignment by optimal transport without pairing (Melnyk et al., 2024): chosen shall dominate rejected as a
    set.

    Loss: the mean of -log sigmoid(beta * (sorted log-ratios of chosen - sorted log-ratios of rejected)). Both are
    sorted apart, so the loss couples the whole batch.

    Use it with large batches, when good and bad answers do not belong to the same prompts. Not with small batches,
    and not when pairs are true pairs: aot and dpo use what they say.
    """

    coupled = True
    beta: float = 0.1
    """Strength of the pull towards the reference."""
    label_smoothing: float = 0.0
    """Assumed share of wrong labels, in [0, 0.5)."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.aot_unpaired(chosen, rejected, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class APOZero(PairObjective):
    """Anchored preference optimisation, zero (D'Oosterlinck et al., 2024): chosen up, rejected down, each by
    itself.

    Loss: 1 - sigmoid(beta * log-ratio of chosen) + sigmoid(beta * log-ratio of rejected).

    Use it when the chosen answers are better than what the model writes. Not for a model that is better than its
    data: that is apo-down's case.
    """

    beta: float = 0.1
    """Strength of the pull towards the reference."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.apo_zero(chosen, rejected, self.beta)


@dataclass(frozen=True)
class APODown(PairObjective):
    """Anchored preference optimisation, down (D'Oosterlinck et al., 2024): both sides down, the rejected one more.

    Loss: sigmoid(beta * log-ratio of chosen) + 1 - sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)).

    Use it when the model is already better than the chosen answers, which then only show the direction. Not when
    the chosen answers are worth imitating: that is apo-zero's case.
    """

    beta: float = 0.1
    """Strength of the pull towards the reference."""

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.apo_down(chosen, rejected, self.beta)


@dataclass(frozen=True)
class DiscoPOP(PairObjective):
    """Discovered preference optimisation (Lu et al., 2024): logistic and exponential losses mixed by the margin
    itself.

    Loss: (1 - m) * -log sigmoid(l) + m * exp(-l), where l = beta * (log-ratio of chosen - log-ratio of rejected)
    and m = sigmoid(l / tau).

    Use it as an alternative to dpo where its few tuned numbers fit: beta 0.05 and tau 0.05. Not as a first choice:
    it is not convex, and its gradient vanishes on some badly ordered pairs.
    """

    beta: float = 0.05
    """Strength of the pull towards the reference."""
    tau: float = 0.05
    """Temperature of the mixing weight sigmoid(beta * margin / tau)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tau > 0:
            raise UsageError(f"tau must be above 0, not {self.tau}")

    def pair_loss(self, pairs: Pairs) -> Tensor:
        chosen, rejected = pairs.ratios
        return losses.discopop(chosen, rejected, self.beta, self.tau)
