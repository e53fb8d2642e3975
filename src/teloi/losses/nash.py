"""Learning from pairwise preferences as a game: the equilibrium policy, not the maximum of a reward.

First what trains a model, then the game of a single prompt as a table: `preferences[i, j]` is P(i > j), a policy and
the reference are distributions over the n responses.

Source: Munos et al. 2024 (Nash learning from human feedback)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

Credit = Literal["token", "to_go", "sequence"]


def mixture_logps(
    logits: Float[Tensor, "*s v"], reference_logits: Float[Tensor, "*s v"], share: float
) -> Float[Tensor, "*s v"]:
    """Log-probabilities of the geometric mixture of policy and reference, token by token: what the opponent is sampled
    from. `share` is the reference's: 0 is self-play, 1 the reference (the paper's beta)."""
    return torch.log_softmax((1 - share) * logits + share * reference_logits, -1)


def nash_md(
    logps: Float[Tensor, "b t"],
    reference_logps: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    preference: Float[Tensor, " b"],
    tau: float,
    credit: Credit = "to_go",
) -> Float[Tensor, " b"]:
    """The policy-gradient loss of a response y against an opponent's y', one number a response (section 7).

        -sum_t lp_t (P(y > y') - 1/2 - tau k_t),  k_t without gradient

    Args:
        preference: P(y > y').
        tau: weight of the KL to the reference.
        credit: k_t is the log-ratio of token t ("token": TRL; biased for responses of several tokens), of t and all
            behind it ("to_go": the paper), or of the whole response ("sequence").
    """
    kept = mask.to(logps)
    ratios = (logps.detach() - reference_logps.detach()) * kept
    match credit:
        case "token":
            kl = ratios
        case "to_go":
            kl = ratios.flip(1).cumsum(1).flip(1)
        case "sequence":
            kl = ratios.sum(1, keepdim=True)
    return -(logps * kept * (preference.detach()[:, None] - 0.5 - tau * kl)).sum(1)


def both_orders(there: Float[Tensor, " p"], back: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Cross-entropy of a preference model's log-odds that the first of two answers is preferred, halved over the two
    orders: `there` the preferred one came first, `back` it came second (section 3.2)."""
    return -(logsigmoid(there) + logsigmoid(-back)) / 2


def penalised_preference(
    preference: Float[Tensor, " b"],
    finished: Bool[Tensor, " b"],
    opponent_finished: Bool[Tensor, " b"],
    penalty: float,
    eps: float = 1e-3,
) -> Float[Tensor, " b"]:
    """Preferences in which a response without an end token has `penalty` less of log-odds, as TRL takes it from a
    reward before the sigmoid. Where both or neither ended nothing changes; elsewhere a judge without any doubt is taken
    to have some: `eps`."""
    behind = opponent_finished.float() - finished.float()
    moved = torch.sigmoid(preference.clamp(eps, 1 - eps).logit() - penalty * behind)
    return torch.where((behind == 0) | (penalty == 0), preference, moved)


def regularised_step(
    policy: Float[Tensor, " n"],
    reference: Float[Tensor, " n"],
    preferences: Float[Tensor, "n n"],
    tau: float,
    eta: float,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """One step of tabular Nash-MD (eq. 4 and 5): the next policy, and the opponent it was a best reply to.

    The opponent is the geometric mixture pi^(1 - eta tau) mu^(eta tau), the next policy in proportion to opponent *
    exp(eta P(y > opponent)). ValueError where eta tau exceeds 1."""
    opponent = _drawn_back(policy, reference, tau, eta)
    return torch.softmax(opponent.log() + eta * preferences @ opponent, 0), opponent


def mirror_step(
    policy: Float[Tensor, " n"],
    reference: Float[Tensor, " n"],
    preferences: Float[Tensor, "n n"],
    tau: float,
    eta: float,
) -> Float[Tensor, " n"]:
    """One step of online mirror descent: as Nash-MD, but the opponent is the policy itself.

    It converges in the average of its iterates. With tau 0 it is multiplicative weights in self-play, which goes round
    in circles where preferences do. ValueError where eta tau exceeds 1."""
    return torch.softmax(_drawn_back(policy, reference, tau, eta).log() + eta * preferences @ policy, 0)


def _drawn_back(policy: Tensor, reference: Tensor, tau: float, eta: float) -> Tensor:
    """The geometric mixture of policy and reference, whose share is eta tau."""
    if eta * tau > 1 + 1e-12:
        raise ValueError(f"eta tau must be at most 1, got {eta * tau}")
    return torch.softmax((1 - eta * tau) * policy.log() + eta * tau * reference.log(), 0)


def decreasing_step(step: int, tau: float) -> float:
    """The step sizes eta = 2 / (tau (step + 2)) of the paper's guarantee (theorem 1), from step 0: KL(pi*, pi_T) is at
    most 8 / (tau^2 (T + 1))."""
    return 2 / (tau * (step + 2))


def best_response(
    opponent: Float[Tensor, " n"], reference: Float[Tensor, " n"], preferences: Float[Tensor, "n n"], tau: float
) -> Float[Tensor, " n"]:
    """The policy with the highest P(policy > opponent) - tau KL(policy, reference): mu exp(P(y > opponent) / tau),
    normalised."""
    return torch.softmax(reference.log() + preferences @ opponent / tau, 0)


def exploitability(
    policy: Float[Tensor, " n"], reference: Float[Tensor, " n"], preferences: Float[Tensor, "n n"], tau: float
) -> Float[Tensor, ""]:
    """How much a best response gains on a policy: max over pi' of P(pi' > pi) - tau KL(pi', mu) + tau KL(pi, mu) - 1/2.

    0 at the equilibrium and above elsewhere. The maximum is tau log sum mu exp(P(y > pi) / tau); with tau 0 it is that
    of the pure responses, and the reference does not count."""
    values = preferences @ policy
    if tau == 0:
        return values.max() - 0.5
    best = tau * torch.logsumexp(reference.log() + values / tau, 0)
    return best + tau * divergence(policy, reference) - 0.5


def divergence(p: Float[Tensor, " n"], q: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """KL(p, q) of two distributions."""
    found: Tensor = torch.special.xlogy(p, p / q).sum()
    return found


def equilibrium(
    reference: Float[Tensor, " n"], preferences: Float[Tensor, "n n"], tau: float, steps: int = 20_000
) -> Float[Tensor, " n"]:
    """The regularised Nash equilibrium, which is its own best response, by damped iteration."""
    policy = reference
    damping = min(0.5, tau)
    for _ in range(steps):
        following = best_response(policy, reference, preferences, tau)
        if torch.allclose(following, policy, rtol=0, atol=1e-15):
            break
        policy = (1 - damping) * policy + damping * following
    return policy


def bradley_terry(
    weights: Float[Tensor, " n"], preferences: Float[Tensor, "n n"], steps: int = 100
) -> Float[Tensor, " n"]:
    """The rewards r, of mean 0, for which sigmoid(r_i - r_j) is likeliest where pairs are drawn from `weights` and
    labelled by `preferences`; by Newton's method.

    What RLHF maximises in place of the game: where preferences go round in circles, r depends on `weights`."""
    pairs = weights[:, None] * weights
    rewards = torch.zeros_like(weights)
    for _ in range(steps):
        chances = torch.sigmoid(rewards[:, None] - rewards)
        slope = (pairs * (preferences - chances)).sum(1)
        curvature = pairs * chances * (1 - chances)
        # All rewards may move alike: the mean is held by the matrix of ones.
        rewards = rewards + torch.linalg.solve(curvature.sum(1).diag() - curvature + pairs.mean(), slope)
        if slope.abs().max() < 1e-14:
            break
    return rewards - rewards.mean()
