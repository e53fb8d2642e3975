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
