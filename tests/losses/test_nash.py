"""The game of preferences: equilibria by their definition, the policy gradient against exact sums."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teloi import losses


def game(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Preferences that go round in circles, and a reference policy."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return torch.sigmoid(2 * (scores - scores.T)), torch.softmax(torch.randn(n, generator=generator).double(), 0)


@given(seed=st.integers(0, 30), n=st.integers(2, 6), tau=st.sampled_from([0.2, 0.5, 1.0]))
def test_the_equilibrium_is_its_own_best_reply(seed: int, n: int, tau: float) -> None:
    preferences, reference = game(seed, n)
    found = losses.equilibrium(reference, preferences, tau)
    reply = torch.softmax(reference.log() + preferences @ found / tau, 0)
    torch.testing.assert_close(found, reply, atol=1e-10, rtol=0)


def test_the_iterates_keep_the_papers_bound() -> None:
    preferences, reference = game(3, 5)
    tau, policy = 0.5, reference
    wanted = losses.equilibrium(reference, preferences, tau)
    for step in range(200):
        policy, opponent = losses.regularised_step(
            policy, reference, preferences, tau, losses.decreasing_step(step, tau)
        )
        assert float(opponent.sum()) == pytest.approx(1)
        divergence = float((wanted * (wanted / policy).log()).sum())
        assert divergence <= 8 / (tau**2 * (step + 2))
    with pytest.raises(ValueError, match="at most 1"):
        losses.regularised_step(policy, reference, preferences, tau, 3.0)


@pytest.mark.parametrize("credit", ["to_go", "sequence"])
def test_the_gradient_is_that_of_the_regularised_preference(credit) -> None:
    """Summed over all responses of three tokens, each as likely as the policy makes it."""
    torch.manual_seed(0)
    tau, logits = 0.3, torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.randn(3, 2, dtype=torch.float64), -1)
    responses = torch.tensor(list(itertools.product(range(2), repeat=3)))
    preference = torch.rand(len(responses), dtype=torch.float64)
    places = torch.arange(3)
    logps = torch.log_softmax(logits, -1)[places, responses]
    others = reference[places, responses]
    chances = logps.sum(1).exp()
    value = (chances * (preference - tau * (logps - others).sum(1))).sum()
    wanted = torch.autograd.grad(value, logits, retain_graph=True)[0]
    everything = torch.ones_like(responses, dtype=torch.bool)
    loss = losses.nash_md(logps, others, everything, preference, tau, credit)
    found = -torch.autograd.grad((chances.detach() * loss).sum(), logits)[0]
    torch.testing.assert_close(found, wanted)


def test_a_mixture_lies_between_policy_and_reference() -> None:
    policy, reference = torch.randn(2, 4, 7).unbind()
    torch.testing.assert_close(losses.mixture_logps(policy, reference, 0.0), torch.log_softmax(policy, -1))
    torch.testing.assert_close(losses.mixture_logps(policy, reference, 1.0), torch.log_softmax(reference, -1))


@given(seed=st.integers(0, 30), n=st.integers(2, 6), tau=st.sampled_from([0.2, 0.5, 1.0]))
def test_only_the_equilibrium_cannot_be_exploited(seed: int, n: int, tau: float) -> None:
    preferences, reference = game(seed, n)
    found = losses.equilibrium(reference, preferences, tau)
    assert float(losses.exploitability(found, reference, preferences, tau)) == pytest.approx(0, abs=1e-9)
    other = losses.best_response(reference, reference, preferences, tau)
    reply = losses.best_response(other, reference, preferences, tau)
    # The definition, at the policy that gains most and at another one.
    for policy in (reply, found):
        gain = policy @ preferences @ other - 0.5
        gain = gain - tau * losses.divergence(policy, reference) + tau * losses.divergence(other, reference)
        best = float(losses.exploitability(other, reference, preferences, tau))
        assert float(gain) == pytest.approx(best) if policy is reply else float(gain) <= best + 1e-12
    assert float(losses.exploitability(other, reference, preferences, 0.0)) == float((preferences @ other).max() - 0.5)


def test_mirror_descent_comes_to_the_same_end_and_multiplicative_weights_do_not() -> None:
    preferences, reference = game(5, 6)
    tau, policy, weights = 0.2, reference, reference
    for step in range(2000):
        policy = losses.mirror_step(policy, reference, preferences, tau, losses.decreasing_step(step, tau))
        weights = losses.mirror_step(weights, reference, preferences, 0.0, 0.5)
    torch.testing.assert_close(policy, losses.equilibrium(reference, preferences, tau), atol=1e-3, rtol=0)
    wanted = torch.softmax(reference.log() + 0.5 * preferences @ reference, 0)
    torch.testing.assert_close(losses.mirror_step(reference, reference, preferences, 0.0, 0.5), wanted)
    with pytest.raises(ValueError, match="at most 1"):
        losses.mirror_step(policy, reference, preferences, tau, 6.0)


def test_multiplicative_weights_go_round_rock_paper_scissors() -> None:
    preferences = torch.tensor([[0.5, 0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.9, 0.5]], dtype=torch.float64)
    start = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    policy, gaps = start, []
    for _ in range(300):
        policy = losses.mirror_step(policy, start, preferences, 0.0, 0.5)
        gaps.append(float(losses.exploitability(policy, start, preferences, 0.0)))
    assert min(gaps[-50:]) > 0.1


@given(seed=st.integers(0, 30), n=st.integers(2, 6))
def test_bradley_terry_finds_the_rewards_there_are(seed: int, n: int) -> None:
    _, weights = game(seed, n)
    rewards = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = losses.bradley_terry(weights, torch.sigmoid(rewards[:, None] - rewards))
    torch.testing.assert_close(found, rewards - rewards.mean(), atol=1e-8, rtol=0)


def test_bradley_terry_is_the_likeliest_where_there_are_none() -> None:
    preferences, weights = game(7, 5)
    rewards = losses.bradley_terry(weights, preferences).requires_grad_()
    likelihood = (weights[:, None] * weights * preferences * (rewards[:, None] - rewards).sigmoid().log()).sum()
    slope = torch.autograd.grad(likelihood, rewards)[0]
    torch.testing.assert_close(slope, torch.zeros(5, dtype=torch.float64), atol=1e-10, rtol=0)


def test_an_unfinished_response_loses_log_odds() -> None:
    preference = torch.tensor([0.7, 0.7, 0.7, 0.7, 1.0])
    finished, opposed = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]]).bool()
    found = losses.penalised_preference(preference, finished, opposed, 2.0)
    assert found[[0, 3]].tolist() == preference[[0, 3]].tolist()
    torch.testing.assert_close(found[1:3].logit(), preference[1:3].logit() + torch.tensor([-2.0, 2.0]))
    assert 0.9 < float(found[4]) < 1
    # What one side loses the other one wins.
    torch.testing.assert_close(1 - losses.penalised_preference(1 - preference, opposed, finished, 2.0), found)
    assert torch.equal(losses.penalised_preference(preference, finished, opposed, 0.0), preference)
