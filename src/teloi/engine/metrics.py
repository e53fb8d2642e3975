"""What a comparison can measure: each number with its unit, the better direction, and what it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

KL_REPLIES = 16
"""Greedy replies on which the exact KL is measured: their tokens number in the hundreds."""

PSEUDO_SAMPLES = 1024
"""Tokens by which pseudo-likelihood bits are estimated: each takes a pass over its text."""


@dataclass(frozen=True)
class Metric:
    """A number that arms are compared by. `better` is None where neither direction is good in itself."""

    name: str
    label: str
    better: str | None
    unit: str
    about: str


METRICS = {
    m.name: m
    for m in (
        Metric(
            "checks",
            "checks satisfied",
            "higher",
            "share",
            "share of held-out prompts whose greedy reply satisfies all its checks",
        ),
        Metric(
            "preference_accuracy",
            "preference accuracy",
            "higher",
            "share",
            "share of held-out pairs whose chosen reply gained more log-probability over the start model than "
            "the rejected one (ties count half, so the start model has 0.5)",
        ),
        Metric(
            "reward_margin",
            "reward margin",
            "higher",
            "nats",
            "mean over held-out pairs of how much more log-probability the chosen reply gained over the start "
            "model than the rejected one",
        ),
        Metric(
            "likelihood_accuracy",
            "likelihood accuracy",
            "higher",
            "share",
            "share of held-out pairs whose chosen reply has the higher log-probability per token",
        ),
        Metric(
            "minimal_pairs",
            "minimal pairs",
            "higher",
            "share",
            "mean over paradigms of the share of held-out pairs whose good sentence has the higher summed "
            "log-probability of its tokens, by whichever direction the arm was trained in: each token given those "
            "before it, or each given all others, or the sum of both where it learned both (ties are wrong; 50% by "
            "chance)",
        ),
        Metric(
            "minimal_pairs_causal",
            "minimal pairs, causal",
            "higher",
            "share",
            "the same, each token given those before it",
        ),
        Metric(
            "minimal_pairs_masked",
            "minimal pairs, masked",
            "higher",
            "share",
            "the same, each token given all others: masked, or a sentinel in its place",
        ),
        Metric(
            "bits_per_character",
            "bits per character",
            "lower",
            "bits",
            "bits the model needs for a character of the held-out texts (of the completions, if rows have prompts): "
            "their likelihood, each token given those before it",
        ),
        Metric(
            "pseudo_bits",
            "pseudo-likelihood bits",
            "lower",
            "bits",
            f"bits for a character when each token is given all others, estimated from {PSEUDO_SAMPLES:,} tokens of "
            "the held-out texts. No likelihood, since both sides are known: not to be compared with bits per character",
        ),
        Metric(
            "probe",
            "linear probe",
            "higher",
            "share",
            "share of test texts whose label a logistic regression reads off the frozen model's mean last hidden "
            "state; of several data sets the mean",
        ),
        Metric(
            "kl",
            "KL from start",
            None,
            "nats/token",
            "exact KL divergence from the start model, mean over the tokens of the arm's own first "
            f"{KL_REPLIES} greedy replies",
        ),
        Metric(
            "reply_length",
            "reply length",
            None,
            "tokens",
            "mean length of the greedy replies, end token included",
        ),
        Metric(
            "finished",
            "replies finished",
            "higher",
            "share",
            "share of greedy replies that end within the allowed length",
        ),
    )
}


def probe_metric(name: str) -> Metric:
    """The probe on one of several data sets."""
    return Metric(f"probe {name}", f"probe, {name}", "higher", "share", "")


@dataclass
class Measured:
    """Metrics by name, their value on each held-out row where there is one, and the greedy replies."""

    metrics: dict[str, float] = field(default_factory=dict)
    items: dict[str, list[float]] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)

    def add(self, name: str, items: Iterable[float]) -> None:
        """A metric that is the mean of its items."""
        self.items[name] = [float(item) for item in items]
        self.metrics[name] = float(np.mean(self.items[name]))
