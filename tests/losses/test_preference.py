"""Pair losses against their papers' formulas worked out in plain Python, their limits, symmetries and invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from math import exp, log

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from teloi import losses

quick = settings(max_examples=60)

ratios = st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=6)
betas = st.floats(0.01, 2)
smoothings = st.floats(0.01, 0.99)
Pairs = list[tuple[float, float]]


def sides(pairs: Pairs) -> tuple[Tensor, Tensor]:
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    return chosen, rejected


def close(ours: Tensor, expected: Tensor | list[float]) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


# What the papers print, one pair at a time.
FORMULAS: dict[str, tuple[Callable[..., Tensor], Callable[[float, float, float], float]]] = {
    "dpo": (losses.dpo, lambda w, r, b: -log(sigmoid(b * w - b * r))),
    "ipo_sum": (losses.ipo_sum, lambda w, r, b: (w - r - 1 / (2 * b)) ** 2),
    "hinge": (losses.hinge, lambda w, r, b: max(0.0, 1 - b * (w - r))),
    "nca_pair": (
        losses.nca_pair,
        lambda w, r, b: -log(sigmoid(b * w)) - 0.5 * log(sigmoid(-b * w)) - 0.5 * log(sigmoid(-b * r)),
    ),
    "bco_pair": (losses.bco_pair, lambda w, r, b: -log(sigmoid(b * w)) - log(sigmoid(-b * r))),
    "sppo_hard": (losses.sppo_hard, lambda w, r, b: (w - 1 / (2 * b)) ** 2 + (r + 1 / (2 * b)) ** 2),
    "apo_zero": (losses.apo_zero, lambda w, r, b: 1 - sigmoid(b * w) + sigmoid(b * r)),
    "apo_down": (losses.apo_down, lambda w, r, b: sigmoid(b * w) + 1 - sigmoid(b * w - b * r)),
    "cpo": (losses.cpo, lambda w, r, b: -log(exp(b * w) / (exp(b * w) + exp(b * r)))),
}


@pytest.mark.parametrize("name", FORMULAS)
@quick
@given(pairs=ratios, beta=betas)
def test_values_are_the_papers(name: str, pairs: Pairs, beta: float) -> None:
    loss, formula = FORMULAS[name]
    close(loss(*sides(pairs), beta), [formula(w, r, beta) for w, r in pairs])


ALL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dpo": lambda w, r: losses.dpo(w, r, 0.1),
    "dpo smoothed": lambda w, r: losses.dpo(w, r, 0.1, 0.2),
    "ipo_sum": lambda w, r: losses.ipo_sum(w, r, 0.1),
    "hinge": lambda w, r: losses.hinge(w, r, 0.1),
    "robust": lambda w, r: losses.robust(w, r, 0.1, 0.2),
    "exo_pair": lambda w, r: losses.exo_pair(w, r, 0.1, 0.2),
    "nca_pair": lambda w, r: losses.nca_pair(w, r, 0.1),
    "bco_pair": lambda w, r: losses.bco_pair(w, r, 0.1),
    "sppo_hard": lambda w, r: losses.sppo_hard(w, r, 0.1),
    "aot": lambda w, r: losses.aot(w, r, torch.zeros_like(w), torch.zeros_like(r), 0.1),
    "aot_unpaired": lambda w, r: losses.aot_unpaired(w, r, 0.1),
    "apo_zero": lambda w, r: losses.apo_zero(w, r, 0.1),
    "apo_down": lambda w, r: losses.apo_down(w, r, 0.1),
    "discopop": lambda w, r: losses.discopop(w, r, 0.1),
    "simpo": lambda w, r: losses.simpo(w, r, 2.0, 0.5),
    "orpo": lambda w, r: losses.orpo(-w.abs(), -r.abs()),
    "cpo": lambda w, r: losses.cpo(w, r, 0.1),
}


@pytest.mark.parametrize("name", ALL)
def test_far_away_values_and_gradients_stay_finite_in_float32(name: str) -> None:
    far = torch.tensor([0.0, 1e-8, 1.0, 40.0, 5e3])
    grid = torch.cartesian_prod(torch.cat([-far, far]), torch.cat([-far, far]))
    chosen, rejected = grid[:, 0].clone().requires_grad_(), grid[:, 1].clone().requires_grad_()
    value = ALL[name](chosen, rejected)
    assert value.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value.sum(), [chosen, rejected]))


@quick
@given(pairs=ratios, beta=betas, e=smoothings)
def test_dpo_swapping_sides_swaps_the_labels(pairs: Pairs, beta: float, e: float) -> None:
    chosen, rejected = sides(pairs)
    close(losses.dpo(chosen, rejected, beta, e), losses.dpo(rejected, chosen, beta, 1 - e))
    close(losses.dpo(chosen, rejected, beta) - losses.dpo(rejected, chosen, beta), beta * (rejected - chosen))


@quick
@given(pairs=ratios, beta=betas, shift=st.floats(-20, 20))
def test_dpo_sees_only_the_difference(pairs: Pairs, beta: float, shift: float) -> None:
    chosen, rejected = sides(pairs)
    close(losses.dpo(chosen + shift, rejected + shift, beta), losses.dpo(chosen, rejected, beta))


@quick
@given(pairs=ratios, beta=betas, e=smoothings)
def test_dpo_smoothed_is_cross_entropy_with_soft_labels(pairs: Pairs, beta: float, e: float) -> None:
    chosen, rejected = sides(pairs)
    margin = beta * (chosen - rejected)
    expected = binary_cross_entropy_with_logits(margin, torch.full_like(margin, 1 - e), reduction="none")
    close(losses.dpo(chosen, rejected, beta, e), expected)


@quick
@given(pairs=ratios, beta=betas, length=st.integers(1, 50))
def test_dpo_norm_of_equal_lengths_is_dpo_with_beta_over_the_length(pairs: Pairs, beta: float, length: int) -> None:
    chosen, rejected = sides(pairs)
    ours = losses.dpo_norm(chosen / length, rejected / length, beta)
    close(ours, losses.dpo(chosen, rejected, beta / length))


@quick
@given(rejected=st.floats(-30, 30), beta=st.floats(0.05, 2), lengths=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_ipo_is_zero_at_its_target_with_no_gradient(rejected: float, beta: float, lengths: tuple[int, int]) -> None:
    longer, shorter = (torch.tensor([length]) for length in lengths)
    loser = torch.tensor([rejected], dtype=torch.float64)
    winner = ((loser / shorter + 1 / (2 * beta)) * longer).requires_grad_()
    value = losses.ipo(winner, loser, longer, shorter, beta)
    close(value, [0.0])
    assert torch.autograd.grad(value.sum(), winner)[0].abs().item() < 1e-6
    assert losses.ipo(winner + 1, loser, longer, shorter, beta).item() == pytest.approx(lengths[0] ** -2)
    assert losses.ipo(winner - 1, loser, longer, shorter, beta).item() == pytest.approx(lengths[0] ** -2)


@quick
@given(pairs=ratios, beta=betas)
def test_ipo_of_one_token_or_none_is_the_sum_form(pairs: Pairs, beta: float) -> None:
    chosen, rejected = sides(pairs)
    ones = torch.ones(len(pairs), dtype=torch.int64)
    close(losses.ipo(chosen, rejected, ones, 0 * ones, beta), losses.ipo_sum(chosen, rejected, beta))


@quick
@given(pairs=ratios, beta=betas, e=st.floats(0, 0.49))
def test_robust_is_unbiased_under_flipped_labels(pairs: Pairs, beta: float, e: float) -> None:
    chosen, rejected = sides(pairs)
    right, wrong = losses.robust(chosen, rejected, beta, e), losses.robust(rejected, chosen, beta, e)
    torch.testing.assert_close((1 - e) * right + e * wrong, losses.dpo(chosen, rejected, beta), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(losses.robust(chosen, rejected, beta, 0.0), losses.dpo(chosen, rejected, beta))


@quick
@given(pairs=ratios, beta=betas, e=smoothings)
def test_exo_pair_is_a_kl_divergence_that_vanishes_at_the_label_odds(pairs: Pairs, beta: float, e: float) -> None:
    chosen, rejected = sides(pairs)
    target = Bernoulli(torch.tensor(1 - e, dtype=torch.float64))
    expected = kl_divergence(Bernoulli(logits=beta * (chosen - rejected)), target)
    torch.testing.assert_close(losses.exo_pair(chosen, rejected, beta, e), expected, rtol=1e-6, atol=1e-9)
    at_odds = losses.exo_pair(rejected + log((1 - e) / e) / beta, rejected, beta, e)
    close(at_odds, torch.zeros(len(pairs)))


@quick
@given(pairs=ratios, beta=betas)
def test_sppo_hard_is_zero_only_half_a_reward_either_way(pairs: Pairs, beta: float) -> None:
    half = torch.full((1,), 0.5 / beta, dtype=torch.float64)
    close(losses.sppo_hard(half, -half, beta), [0.0])
    chosen, rejected = sides(pairs)
    close(losses.sppo_hard(chosen, rejected, beta), losses.sppo_hard(-rejected, -chosen, beta))


@quick
@given(pairs=ratios, beta=betas, e=st.floats(0, 0.5), data=st.data())
def test_aot_does_not_see_the_order_of_the_batch(pairs: Pairs, beta: float, e: float, data: st.DataObject) -> None:
    chosen, rejected = (side.requires_grad_() for side in sides(pairs))
    reference_chosen, reference_rejected = sides(data.draw(st.permutations(pairs)))[::-1]
    one, other = (torch.tensor(data.draw(st.permutations(range(len(pairs))))) for _ in range(2))
    value = losses.aot(chosen, rejected, reference_chosen, reference_rejected, beta, e)
    shuffled = losses.aot(chosen[one], rejected[one], reference_chosen[other], reference_rejected[other], beta, e)
    close(shuffled, value)
    unpaired = losses.aot_unpaired(chosen, rejected, beta, e)
    close(losses.aot_unpaired(chosen[one], rejected[other], beta, e), unpaired)
    if len({w for w, _ in pairs}) == len({r for _, r in pairs}) == len(pairs):
        gradients = [
            torch.autograd.grad(loss.sum(), chosen)[0]
            for loss in (unpaired, losses.aot_unpaired(chosen[one], rejected, beta, e))
        ]
        close(gradients[0], gradients[1])


@quick
@given(
    policy=st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
    reference=st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
    beta=betas,
)
def test_aot_of_one_pair_is_dpo(policy: tuple[float, float], reference: tuple[float, float], beta: float) -> None:
    (chosen, rejected), (reference_chosen, reference_rejected) = sides([policy]), sides([reference])
    ratios = losses.log_ratio(chosen, reference_chosen), losses.log_ratio(rejected, reference_rejected)
    close(losses.aot(chosen, rejected, reference_chosen, reference_rejected, beta), losses.dpo(*ratios, beta))
    close(losses.aot_unpaired(*ratios, beta), losses.dpo(*ratios, beta))


def test_aot_compares_quantiles() -> None:
    """Margins 3, 1 against a reference's 2, 0: sorted, the policy leads by 1 everywhere."""
    zero = torch.zeros(2, dtype=torch.float64)
    policy, reference = torch.tensor([3.0, 1.0]).double(), torch.tensor([0.0, 2.0]).double()
    close(losses.aot(policy, zero, reference, zero, 1.0), [-log(sigmoid(1))] * 2)
    close(losses.aot(policy, zero, reference, zero, 1.0, 0.25), [-0.75 * log(sigmoid(1)) - 0.25 * log(sigmoid(-1))] * 2)


@quick
@given(pairs=ratios, beta=betas)
def test_apo_pushes_where_it_says(pairs: Pairs, beta: float) -> None:
    chosen, rejected = (side.clamp(-5, 5).requires_grad_() for side in sides(pairs))
    zero_slopes = torch.autograd.grad(losses.apo_zero(chosen, rejected, beta).sum(), [chosen, rejected])
    down_slopes = torch.autograd.grad(losses.apo_down(chosen, rejected, beta).sum(), [chosen, rejected])
    assert (zero_slopes[0] < 0).all()
    assert (zero_slopes[1] > 0).all()
    assert (down_slopes[1] > 0).all()
    # At the reference apo_down leaves chosen alone, where the anchor and the margin balance.
    start = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(losses.apo_down(start, torch.zeros_like(start), beta).sum(), start)[0].item() == 0


@quick
@given(pairs=ratios, beta=betas, tau=st.floats(0.02, 1))
def test_discopop_is_its_formula_and_switches_hard_as_tau_falls(pairs: Pairs, beta: float, tau: float) -> None:
    chosen, rejected = sides(pairs)
    margin = beta * (chosen - rejected)
    assume((margin.abs() > 1e-3).all())
    mixing = (margin / tau).sigmoid()
    moderate = margin.abs() < 15
    expected = (1 - mixing) * -logsigmoid(margin) + mixing * (-margin).exp()
    ours = losses.discopop(chosen, rejected, beta, tau)
    torch.testing.assert_close(ours[moderate], expected[moderate], rtol=1e-8, atol=1e-9)
    hard = torch.where(margin > 0, (-margin).exp(), softplus(-margin))
    torch.testing.assert_close(losses.discopop(chosen, rejected, beta, 1e-5), hard)


means = st.lists(st.tuples(st.floats(-8, -0.01), st.floats(-8, -0.01)), min_size=1, max_size=6)


@quick
@given(pairs=means, beta=st.floats(0.1, 4), margin=st.floats(0, 3))
def test_simpo_is_a_logistic_loss_with_a_target_margin(pairs: Pairs, beta: float, margin: float) -> None:
    ours = losses.simpo(*sides(pairs), beta, margin)
    close(ours, [-log(sigmoid(beta * w - beta * r - margin)) for w, r in pairs])


@quick
@given(pairs=means)
def test_orpo_is_the_log_odds_ratio_of_mean_token_probabilities(pairs: Pairs) -> None:
    odds = [(exp(w) / (1 - exp(w)), exp(r) / (1 - exp(r))) for w, r in pairs]
    # -log sigmoid(log(a / b)) = log(1 + b / a)
    close(losses.orpo(*sides(pairs)), [math.log1p(r / w) for w, r in odds])


def test_orpo_of_certain_tokens_is_finite() -> None:
    sure = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    unsure = torch.tensor([-1.0, 0.0], dtype=torch.float64)
    value = losses.orpo(sure, unsure)
    close(value[1:], [log(2)])
    assert value[0] < 1e-6
    assert torch.autograd.grad(losses.orpo(unsure, sure).sum(), sure)[0].isfinite().all()


@quick
@given(pairs=ratios, beta=betas)
def test_log_ratio_and_reward_pass_no_gradient_where_none_belongs(pairs: Pairs, beta: float) -> None:
    policy, reference = (side.clone().requires_grad_() for side in sides(pairs))
    ratio = losses.log_ratio(policy, reference)
    ratio.sum().backward()
    assert policy.grad is not None
    close(policy.grad, torch.ones(len(pairs)))
    assert reference.grad is None
    reward = losses.implicit_reward(ratio, beta)
    assert not reward.requires_grad
    close(reward, [beta * (w - r) for w, r in pairs])


ONE = torch.ones(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.robust(ONE, ONE, 0.1, 0.5), "robust needs 0 <= label_smoothing < 0.5"),
        (lambda: losses.robust(ONE, ONE, 0.1, -0.1), "robust needs 0 <= label_smoothing < 0.5"),
        (lambda: losses.exo_pair(ONE, ONE, 0.1, 0.0), "exo_pair needs 0 < label_smoothing < 1"),
        (lambda: losses.exo_pair(ONE, ONE, 0.1, 1.0), "exo_pair needs 0 < label_smoothing < 1"),
        (lambda: losses.dpo(ONE, ONE, 0.1, 1.0), "label_smoothing must be at least 0 and below 1, got 1.0"),
        (lambda: losses.dpo_norm(ONE, ONE, 0.1, -0.1), "label_smoothing must be"),
        (lambda: losses.cpo(ONE, ONE, 0.1, math.nan), "label_smoothing must be"),
        (lambda: losses.aot(ONE, ONE, ONE, ONE, 0.1, 2.0), "label_smoothing must be"),
        (lambda: losses.aot_unpaired(ONE, ONE, 0.1, 2.0), "label_smoothing must be"),
        (lambda: losses.ipo_sum(ONE, ONE, 0.0), "beta must be above 0"),
        (lambda: losses.sppo_hard(ONE, ONE, -1.0), "beta must be above 0"),
        (lambda: losses.discopop(ONE, ONE, 0.1, 0.0), "tau must be above 0"),
    ],
)
def test_values_without_a_loss_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
