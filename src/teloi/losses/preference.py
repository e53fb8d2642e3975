"""Losses over preference pairs: the DPO family and its reference-free relatives.

Every function returns one value per pair, [b]; the training loss is their mean. Log-probabilities are natural
logarithms. Unless an argument is named otherwise, `chosen` and `rejected` are log-ratios: the completion's summed
log-probability under the policy minus the same under the frozen reference,

    h(y) = sum_t log pi(y_t | x, y_<t) - sum_t log ref(y_t | x, y_<t),

and d = h(chosen) - h(rejected). Arguments ending in `_mean` are sums divided by the completion's length.
beta is in units of 1 / log-probability: a value for sums (0.1) is far too small for means (2 to 10).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from teloi.losses.logps import per_token


def log_ratio(policy: Float[Tensor, " b"], reference: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """The log-ratio log pi - log ref, sums or means alike; no gradient flows into the reference."""
    return policy - reference.detach()


def implicit_reward(ratio: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """The reward beta (log pi - log ref), without gradient, for logging.

    Source: Rafailov et al. 2023 (DPO), eq. 5, up to a term that depends on the prompt only.
    """
    return beta * ratio.detach()


def dpo(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " b"]:
    """-(1-e) log sigmoid(beta d) - e log sigmoid(-beta d), e the share of labels taken to be wrong.

    Source: Rafailov et al. 2023 (DPO), eq. 7; with e > 0 conservative DPO (Mitchell 2023).
    Errors: ValueError unless 0 <= label_smoothing < 1.
    """
    _check_smoothing(label_smoothing)
    return _smoothed_logistic(beta * (chosen - rejected), label_smoothing)


def dpo_norm(
    chosen_mean: Float[Tensor, " b"],
    rejected_mean: Float[Tensor, " b"],
    beta: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " b"]:
    """Length-normalised DPO: `dpo` on log-ratios per completion token.

    Source: Lambert et al. 2024 (Tülu 3), section 5, beta 5; TRL's sigmoid_norm.
    Errors: ValueError unless 0 <= label_smoothing < 1.
    """
    return dpo(chosen_mean, rejected_mean, beta, label_smoothing)


def ipo(
    chosen: Float[Tensor, " b"],
    rejected: Float[Tensor, " b"],
    chosen_length: Int[Tensor, " b"],
    rejected_length: Int[Tensor, " b"],
    beta: float,
) -> Float[Tensor, " b"]:
    """(h(chosen) / |chosen| - h(rejected) / |rejected| - 1 / (2 beta))^2, lengths clamped to at least 1.

    Source: Azar et al. 2023 (IPO), eq. 17, beta their tau, per token as in TRL's ipo. `ipo_sum` is the form with sums;
    the two want a different beta.
    Errors: ValueError unless beta > 0.
    """
    return ipo_sum(per_token(chosen, chosen_length), per_token(rejected, rejected_length), beta)


def ipo_sum(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """(d - 1 / (2 beta))^2 on summed log-ratios.

    Source: Azar et al. 2023 (IPO), eq. 17, beta their tau, as printed and as in Ivison et al. 2024's code.
    Errors: ValueError unless beta > 0.
    """
    _check_positive(beta)
    return (chosen - rejected - 1 / (2 * beta)).square()


def hinge(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """max(0, 1 - beta d).

    Source: Zhao et al. 2023 (SLiC-HF), its hinge on log-ratios as in TRL's hinge.
    """
    return torch.relu(1 - beta * (chosen - rejected))


def robust(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float, label_smoothing: float
) -> Float[Tensor, " b"]:
    """[-(1-e) log sigmoid(beta d) + e log sigmoid(-beta d)] / (1 - 2e): unbiased where a share e of labels is flipped.

    Source: Chowdhury et al. 2024 (Provably robust DPO), the rDPO loss.
    Errors: ValueError unless 0 <= label_smoothing < 0.5.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"robust needs 0 <= label_smoothing < 0.5 (it divides by 1 - 2e), got {label_smoothing}")
    margin = beta * (chosen - rejected)
    clean = -(1 - label_smoothing) * logsigmoid(margin)
    flipped = -label_smoothing * logsigmoid(-margin)
    return (clean - flipped) / (1 - 2 * label_smoothing)


def exo_pair(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float, label_smoothing: float
) -> Float[Tensor, " b"]:
    """KL(q || p) for q = [sigmoid(beta d), sigmoid(-beta d)] and p = [1-e, e].

    Source: Ji et al. 2024 (EXO), eq. 16, for two completions.
    Errors: ValueError unless 0 < label_smoothing < 1.
    """
    if not 0 < label_smoothing < 1:
        raise ValueError(f"exo_pair needs 0 < label_smoothing < 1 (its target is [1 - e, e]), got {label_smoothing}")
    margin = beta * (chosen - rejected)
    right = margin.sigmoid() * (logsigmoid(margin) - math.log1p(-label_smoothing))
    wrong = (-margin).sigmoid() * (logsigmoid(-margin) - math.log(label_smoothing))
    return right + wrong


def nca_pair(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """-log sigmoid(beta h(chosen)) - 1/2 sum over both y of log sigmoid(-beta h(y)).

    Source: Chen et al. 2024 (Noise contrastive alignment), NCA for two completions.
    """
    chosen, rejected = beta * chosen, beta * rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def bco_pair(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """-log sigmoid(beta h(chosen)) - log sigmoid(-beta h(rejected)), without the running reward shift.

    Source: Jung et al. 2024 (Binary classifier optimization), with shift 0 as in TRL's bco_pair.
    """
    return -logsigmoid(beta * chosen) - logsigmoid(-beta * rejected)


def sppo_hard(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """(h(chosen) - 1 / (2 beta))^2 + (h(rejected) + 1 / (2 beta))^2.

    Source: Wu et al. 2024 (SPPO), eq. 4.7 with win probabilities 1 and 0, beta = 1 / eta.
    Errors: ValueError unless beta > 0.
    """
    _check_positive(beta)
    return (chosen - 0.5 / beta).square() + (rejected + 0.5 / beta).square()


def aot(
    policy_chosen: Float[Tensor, " b"],
    policy_rejected: Float[Tensor, " b"],
    reference_chosen: Float[Tensor, " b"],
    reference_rejected: Float[Tensor, " b"],
    beta: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " b"]:
    """Smoothed logistic loss between the policy's and the reference's *sorted* margins.

    The arguments are summed log-probabilities; margins chosen - rejected are sorted over the batch, separately for
    policy and reference, so value i belongs to a quantile and not to pair i. The loss couples its batch.

    Source: Melnyk et al. 2024 (Distributional preference alignment via optimal transport), paired variant.
    Errors: ValueError unless 0 <= label_smoothing < 1.
    """
    _check_smoothing(label_smoothing)
    policy = (policy_chosen - policy_rejected).sort().values
    reference = (reference_chosen - reference_rejected).detach().sort().values
    return _smoothed_logistic(beta * (policy - reference), label_smoothing)


def aot_unpaired(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " b"]:
    """Smoothed logistic loss between the sorted log-ratios of chosen and of rejected completions.

    Value i belongs to a quantile and not to pair i. The loss couples its batch.

    Source: Melnyk et al. 2024 (Distributional preference alignment via optimal transport), unpaired variant.
    Errors: ValueError unless 0 <= label_smoothing < 1.
    """
    _check_smoothing(label_smoothing)
    return _smoothed_logistic(beta * (chosen.sort().values - rejected.sort().values), label_smoothing)


def apo_zero(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """1 - sigmoid(beta h(chosen)) + sigmoid(beta h(rejected)): chosen up, rejected down.

    For pairs whose chosen side is better than what the model writes.
    Source: D'Oosterlinck et al. 2024 (Anchored preference optimization), eq. 7.
    """
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down(chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float) -> Float[Tensor, " b"]:
    """sigmoid(beta h(chosen)) + 1 - sigmoid(beta d): both down, rejected further.

    For pairs whose chosen side is worse than what the model writes.
    Source: D'Oosterlinck et al. 2024 (Anchored preference optimization), eq. 8.
    """
    return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * (chosen - rejected))


def discopop(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float, tau: float = 0.05
) -> Float[Tensor, " b"]:
    """With L = beta d and m = sigmoid(L / tau): (1 - m)(-log sigmoid(L)) + m exp(-L).

    Source: Lu et al. 2024 (DiscoPOP), eq. 5 (log-ratio modulated loss).
    Errors: ValueError unless tau > 0.
    """
    _check_positive(tau, "tau")
    margin = beta * (chosen - rejected)
    # m exp(-L) in one exponent: where L is very negative its factors are 0 and infinity.
    exponential = (logsigmoid(margin / tau) - margin).exp()
    return (-margin / tau).sigmoid() * -logsigmoid(margin) + exponential


def simpo(
    chosen_mean: Float[Tensor, " b"], rejected_mean: Float[Tensor, " b"], beta: float, margin: float
) -> Float[Tensor, " b"]:
    """-log sigmoid(beta (m(chosen) - m(rejected)) - margin), m the policy's mean log-probability per token.

    No reference. The margin is in units of the reward beta m.
    Source: Meng et al. 2024 (SimPO), eq. 6.
    """
    return -logsigmoid(beta * (chosen_mean - rejected_mean) - margin)


def orpo(chosen_mean: Float[Tensor, " b"], rejected_mean: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """-log sigmoid(log odds(chosen) - log odds(rejected)), odds = p / (1 - p), p = exp(mean log-probability).

    No reference. ORPO adds this odds-ratio term, times its lambda, to the likelihood of the chosen completion.
    A p that rounds to 1 counts as the largest number below, so that its odds stay finite.
    Source: Hong et al. 2024 (ORPO), eq. 4 to 7.
    """
    return -logsigmoid(_log_odds(chosen_mean) - _log_odds(rejected_mean))


def cpo(
    chosen: Float[Tensor, " b"], rejected: Float[Tensor, " b"], beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " b"]:
    """`dpo` on the policy's own summed log-probabilities, that is with a uniform reference.

    CPO adds the likelihood of the chosen completion to this preference term.
    Source: Xu et al. 2024 (CPO), eq. 3.
    Errors: ValueError unless 0 <= label_smoothing < 1.
    """
    return dpo(chosen, rejected, beta, label_smoothing)


def _smoothed_logistic(margin: Tensor, smoothing: float) -> Tensor:
    if smoothing == 0:
        return -logsigmoid(margin)
    return -(1 - smoothing) * logsigmoid(margin) - smoothing * logsigmoid(-margin)


def _log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p <= 0."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return logp - (-logp.expm1()).log()


def _check_smoothing(value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"label_smoothing must be at least 0 and below 1, got {value}")


def _check_positive(value: float, name: str = "beta") -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


def reward_pair(
    chosen: Float[Tensor, " p"],
    rejected: Float[Tensor, " p"],
    margin: Float[Tensor, " p"] | float = 0.0,
    centring: float = 0.0,
) -> Float[Tensor, " p"]:
    """Loss of a scalar reward on pairs: -log sigmoid(r_w - r_l - margin) + centring (r_w + r_l)^2.

    The likelihood of Bradley and Terry (Stiennon et al., 2020, section 3.4); the margin of Touvron et al. 2023 (Llama
    2), section 3.2.2; the square holds rewards near 0 (Eisenstein et al., 2023)."""
    return -logsigmoid(chosen - rejected - margin) + centring * (chosen + rejected).square()
