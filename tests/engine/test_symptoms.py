"""Every warning comes on its case and is silent on a healthy run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from teloi.engine.symptoms import Watch

STEPS = 120
Change = Callable[[dict[str, float], float, np.random.Generator], dict[str, float]]


def healthy(seed: int, change: Change = lambda record, t, draw: {}) -> Iterator[dict[str, float]]:
    """Records of a run that goes well, `change` apart; t goes from 0 to 1. Warm-up, noise of a few dozen answers, a KL
    that grows from nothing, an evaluation every tenth step."""
    draw = np.random.default_rng(seed)
    for step in range(1, STEPS + 1):
        t = step / STEPS
        record = {
            "step": step,
            "tokens": 1000 * step,
            "loss": draw.normal(0, 0.1),
            "reward": 0.3 + 0.5 * t + draw.normal(0, 0.08),
            "kl": 8 * min(t, 10 * t**3) * draw.uniform(0.7, 1.3) + draw.normal(0, 0.002),
            "length": 40 + 15 * t + draw.normal(0, 3),
            "truncated": np.clip(0.2 - 0.1 * t + draw.normal(0, 0.05), 0, 1),
            "reward_spread_zero": np.clip(0.3 + draw.normal(0, 0.1), 0, 1),
            "entropy": 1.5 - 0.5 * t,
            "gold": 0.3 + 0.3 * t + draw.normal(0, 0.08),
        }
        if step % 10 == 0:
            record |= {"eval_reward": 0.3 + 0.4 * t + draw.normal(0, 0.03), "eval_loss": 3 * t}
        yield {name: float(value) for name, value in (record | change(record, t, draw)).items()}


def warned(seed: int, change: Change = lambda record, t, draw: {}) -> dict[str, int]:
    """The names of the warnings, with the steps at which they came."""
    watch, found = Watch(), list[tuple[str, int]]()
    for record in healthy(seed, change):
        found += [(warning.name, int(record["step"])) for warning in watch.see(record)]
    assert len(found) == len(watch.warned) == len(dict(found))  # once each
    return dict(found)


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_is_silent(seed: int) -> None:
    assert warned(seed) == {}


def test_a_plateau_is_no_fall() -> None:
    """A noisy truth that neither rises nor falls, in many long runs, while the reward rises."""
    level: Change = lambda record, t, draw: {"gold": 0.4 + draw.normal(0, 0.15)}  # noqa: E731
    assert sum(bool(warned(seed, level)) for seed in range(50)) <= 1


CASES: dict[str, tuple[str, Change]] = {
    "the truth falls": ("reward-hacking", lambda record, t, draw: {"gold": 0.6 - abs(t - 0.4) + draw.normal(0, 0.05)}),
    "held-out answers get worse": (
        "reward-hacking",
        lambda record, t, draw: {"eval_reward": 0.6 - abs(t - 0.4)} if "eval_reward" in record else {},
    ),
    "the policy jumps": ("kl-explosion", lambda record, t, draw: {"kl": 30.0 if t > 0.5 else 0.1 * t}),
    "the policy has gone": ("kl-explosion", lambda record, t, draw: {"kl": 120 * t}),
    "answers grow": ("length-growth", lambda record, t, draw: {"length": 40 * (1 + 1.5 * t)}),
    "answers are cut": ("truncated-answers", lambda record, t, draw: {"truncated": 0.9 * t}),
    "groups agree": ("zero-variance-groups", lambda record, t, draw: {"reward_spread_zero": 0.95 if t > 0.3 else 0.4}),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_a_sick_run_is_told_by_name(case: str, seed: int) -> None:
    name, change = CASES[case]
    assert warned(seed, change).keys() == {name}


def test_it_says_what_it_saw_and_when() -> None:
    watch = Watch()
    for record in healthy(0, lambda record, t, draw: {"length": 10.0 if t < 0.5 else 50.0}):
        watch.see(record)
    (warning,) = watch.warned.values()
    assert STEPS / 2 <= warning.step <= STEPS / 2 + 5
    assert str(warning).startswith("length-growth: answers have grown from 10 to ")


@pytest.mark.parametrize("names", [(), ("reward",), ("kl", "gold"), ("reward", "eval_reward")])
def test_what_is_not_logged_is_not_missed(names: tuple[str, ...]) -> None:
    watch = Watch()
    for record in healthy(0):
        assert not watch.see({name: value for name, value in record.items() if name in ("step", "loss", *names)})


def test_a_number_that_is_none_does_no_harm() -> None:
    watch = Watch()
    for record in healthy(0, lambda record, t, draw: {"kl": float("nan"), "length": float("inf")}):
        assert not watch.see(record)
