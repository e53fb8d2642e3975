"""What usually goes wrong when a policy learns from rewards, told by name from the numbers that a run logs.

Every rule reads names that any online method may log (`reward`, `kl`, `length`, `truncated`, `reward_spread_zero`, and
of the truth behind a reward `gold` or whatever is measured on held-out rows); where a name is not logged its rules are
silent. A warning comes once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

WATCHED = ("reward", "gold", "kl", "length", "entropy", "clipped", "value", "truncated")
"""What one watches in such a run, the most telling first: shown before the loss, live and in the report."""

WINDOW = 5
"""Records that are averaged: a single step is a few dozen answers, whose mean jumps about."""

KL_JUMP = 20.0
"""Times the KL of the two windows before. It grows steadily in a healthy run: as the cube of the steps under a warm-up
at worst, which is eightfold, and noise besides, at the first moment that is looked at, and less at any later one."""
KL_LEAST = 0.05
"""Nats from which a jump counts; below it an answer is hardly other than before."""
KL_FAR = 50.0
"""Nats at which the policy has left the start model whatever came before: that model would write such an answer once in
e^50 times."""

LENGTH_GROWTH = 2.0
"""Times the length of the first answers. Longer answers are how a policy collects a reward that pays by the word, and
twice as long ones cost twice as much to sample."""

TRUNCATED = 0.5
"""Share of answers without an end: above a half the reward mostly judges stumps."""

ZERO_VARIANCE = 0.8
"""Share of groups whose answers all have one reward: above it, at most one prompt in five teaches anything."""

GOLD = ("gold", "eval_gold", "eval_reward", "eval_accuracy")
"""What a reward stands for, or is compared with: higher is better."""
STRETCHES = 10
"""Into how many stretches the values of such a number are cut, of three at least: its best one is compared with the
last. Of single values the best would be a lucky one."""
HACKING_FALL = 0.1
"""How far it has to fall below its best stretch, as a share of that: less matters little."""
HACKING_CHANCE = 1e-4
"""How rarely chance alone makes two stretches differ so much (t test): the one was chosen as the best of ten, and the
question is asked dozens of times in a run. That the reward has risen need not be so sure."""
RISING_CHANCE = 1e-2


@dataclass(frozen=True)
class Warned:
    """A warning: its name, the step at which it was seen, and what it says."""

    name: str
    step: int
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass
class Watch:
    """Sees the records of a run in their order and says what is wrong with it, each trouble once."""

    warned: dict[str, Warned] = field(default_factory=dict)
    _first: dict[str, list[float]] = field(default_factory=dict)
    """The first window of each number."""
    _last: dict[str, deque[float]] = field(default_factory=dict)
    """The last three windows of each number."""
    _gold: dict[str, _Gold] = field(default_factory=dict)

    def see(self, record: Mapping[str, float]) -> list[Warned]:
        """Take a record in; the warnings that it gives rise to."""
        for name, value in record.items():
            if not math.isfinite(value):
                continue
            first = self._first.setdefault(name, [])
            if len(first) < WINDOW:
                first.append(value)
            self._last.setdefault(name, deque(maxlen=3 * WINDOW)).append(value)
        for name in GOLD:
            gold = self._gold.setdefault(name, _Gold())
            gold.rewards += [record["reward"]] if "reward" in record else []
            if name in record and gold.rewards:
                gold.values.append((record[name], fmean(gold.rewards)))
                gold.rewards = []
        found = {
            "reward-hacking": self._hacking(),
            "kl-explosion": self._kl(),
            "length-growth": self._length(),
            "truncated-answers": self._truncated(),
            "zero-variance-groups": self._groups(),
        }
        new = [Warned(name, int(record["step"]), text) for name, text in found.items() if text]
        new = [warning for warning in new if warning.name not in self.warned]
        self.warned |= {warning.name: warning for warning in new}
        return new

    def _now(self, name: str) -> float | None:
        """A number's mean over the last window; None until there is one."""
        values = self._last.get(name, ())
        return fmean(list(values)[-WINDOW:]) if len(values) >= WINDOW else None

    def _kl(self) -> str | None:
        now, values = self._now("kl"), list(self._last.get("kl", ()))
        if now is None:
            return None
        if now > KL_FAR:
            return f"the KL to the start model is {now:.3g} nats: the policy has left it; raise kl or stop earlier"
        if len(values) == 3 * WINDOW:
            before = fmean(values[:-WINDOW])
            if now > max(KL_LEAST, KL_JUMP * before):
                return (
                    f"the KL to the start model jumped from {before:.3g} to {now:.3g} nats within {WINDOW} records: "
                    "lower the learning rate or raise kl"
                )
        return None

    def _length(self) -> str | None:
        now = self._now("length")
        if now is None or now <= LENGTH_GROWTH * (before := fmean(self._first["length"])):
            return None
        return f"answers have grown from {before:.3g} to {now:.3g} tokens: see in the samples what they are paid for"

    def _truncated(self) -> str | None:
        now = self._now("truncated")
        if now is None or now <= TRUNCATED:
            return None
        return (
            f"{now:.0%} of the answers reach no end: raise max_new_tokens, or start from a model that ends its answers"
        )

    def _groups(self) -> str | None:
        now = self._now("reward_spread_zero")
        if now is None or now <= ZERO_VARIANCE:
            return None
        return (
            f"in {now:.0%} of the groups all answers get the same reward, which teaches nothing: take prompts that are "
            "neither too hard nor too easy, or more samples of each"
        )

    def _hacking(self) -> str | None:
        for name, gold in self._gold.items():
            if (fall := gold.fall()) is not None:
                (best, last), (before, now) = fall
                return (
                    f"{name} has fallen from {best:.3g} to {last:.3g} while the reward rose from {before:.3g} to "
                    f"{now:.3g}: stop before, or mend the reward"
                )
        return None


class _Gold:
    """The values of a number that tells the truth, each with the mean reward since the value before."""

    def __init__(self) -> None:
        self.values: list[tuple[float, float]] = []
        self.rewards: list[float] = []

    def fall(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """The truth at its best and now, and the reward then and now; None unless the one has fallen and the other
        risen by more than chance."""
        size = max(3, len(self.values) // STRETCHES)
        # As stretches grow, the question is asked once for about every half of one.
        if len(self.values) < 2 * size or len(self.values) % max(1, size // 2):
            return None
        from scipy.stats import t

        count = len(self.values) // size
        values = np.asarray(self.values[-count * size :])
        means = values.reshape(count, size, 2).mean(1)
        # Noise from neighbours: what rises or falls over a stretch is none.
        noise = (np.diff(values, axis=0) ** 2).mean(0) / 2
        gold_error, reward_error = np.sqrt(noise * 2 / size)
        far, further = t.isf([RISING_CHANCE, HACKING_CHANCE], 2 * len(values) / 3)
        best, last = means[means[:, 0].argmax()], means[-1]
        fallen = best[0] - last[0] > max(HACKING_FALL * abs(best[0]), further * gold_error)
        risen = last[1] - best[1] > far * reward_error
        return ((best[0], last[0]), (best[1], last[1])) if fallen and risen else None
