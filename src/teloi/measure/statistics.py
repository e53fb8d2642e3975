"""Intervals for few seeds and a fixed test set.

Every interval here is two-sided at the level `confidence` (0.95 unless said otherwise). Few seeds mean
Student's t, not a bootstrap over seeds: resampling three numbers gives intervals that hold the truth four
times in five at best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval. `low` and `high` are None where `n` observations allow none."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def width(self) -> float | None:
        """Length of the interval, or None without one."""
        return None if self.low is None or self.high is None else self.high - self.low

    def excludes(self, value: float) -> bool:
        """Whether there is an interval and `value` lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def mean_interval(values: ArrayLike, *, resolution: float = 0.0, confidence: float = 0.95) -> Estimate:
    """Mean of `values` [n], one per seed, with Student's t interval; no interval for n = 1.

    `resolution` is the smallest step the metric can make (1/200 for a share of 200 prompts). The standard
    deviation is floored at it: seeds that agree by rounding are no proof of certainty.
    """
    x = _vector(values)
    if len(x) == 1:
        return Estimate(float(x[0]), None, None, 1)
    return _around(float(x.mean()), _seed_half(x, resolution, confidence), len(x))


def paired_difference(
    arm: ArrayLike, baseline: ArrayLike, *, resolution: float = 0.0, confidence: float = 0.95
) -> Estimate:
    """Mean of `arm - baseline` [n], paired by seed, with its t interval."""
    a, b = _pair(arm, baseline)
    return mean_interval(a - b, resolution=resolution, confidence=confidence)


def paired_ratio(arm: ArrayLike, baseline: ArrayLike, *, resolution: float = 0.0, confidence: float = 0.95) -> Estimate:
    """Geometric mean of `arm / baseline` [n], paired by seed; the t interval is taken of the logarithms.

    Both must be positive. `resolution` is in the metric's own unit.
    """
    a, b = _pair(arm, baseline)
    if min(a.min(), b.min()) <= 0:
        raise ValueError("a ratio needs positive values")
    floor = resolution / math.exp(float(np.log(b).mean()))
    logs = mean_interval(np.log(a) - np.log(b), resolution=floor, confidence=confidence)
    low, high = (None if end is None else math.exp(end) for end in (logs.low, logs.high))
    return Estimate(math.exp(logs.mean), low, high, logs.n)


def item_deviation(items: ArrayLike) -> float:
    """Standard error of a mean over the items [i] of a fixed test set: the item bootstrap's.

    In closed form: the means of resampled items have this spread as resamples go to infinity (with n - 1 in
    place of n).
    """
    x = _vector(items)
    return float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else 0.0


def crossed_interval(table: ArrayLike, *, resolution: float = 0.0, confidence: float = 0.95) -> Estimate:
    """Mean of `table` [seeds, items] with an interval for new seeds *and* new items.

    Every seed is measured on the same items. For a comparison the table holds differences, arm minus
    baseline, paired by seed and item. Seeds alone would treat the test set as the whole world; the item
    bootstrap adds its variance. The two half-widths, t of the seed means and t of the item means, add in
    quadrature. The item means' variance also holds the seed-by-item noise, which the seed means hold already;
    it is estimated as in a two-way analysis of variance and taken out. Simulated coverage: 95 to 98% for 2 to
    8 seeds (tests).
    """
    x = np.asarray(table, dtype=np.float64)
    if x.ndim != 2 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError("expected finite numbers of shape [seeds, items]")
    seeds, items = x.shape
    mean = float(x.mean())
    if seeds == 1:
        return Estimate(mean, None, None, 1)
    by_seed, by_item = x.mean(axis=1), x.mean(axis=0)
    half = _seed_half(by_seed, resolution, confidence)
    if items > 1:
        noise = float(((x - by_seed[:, None] - by_item + mean) ** 2).sum()) / ((seeds - 1) * (items - 1))
        variance = max(item_deviation(by_item) ** 2 - noise / (seeds * items), 0.0)
        half = math.hypot(half, _quantile(items - 1, confidence) * math.sqrt(variance))
    return _around(mean, half, seeds)


def wilson(successes: float, n: int, *, confidence: float = 0.95) -> Estimate:
    """Share of `successes` among `n` independent trials with Wilson's score interval (Wilson, 1927)."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError("a share needs 0 <= successes <= n and n >= 1")
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), n)


def _seed_half(x: Floats, resolution: float, confidence: float) -> float:
    deviation = max(float(x.std(ddof=1)), resolution)
    return _quantile(len(x) - 1, confidence) * deviation / math.sqrt(len(x))


def _quantile(df: int, confidence: float) -> float:
    return float(stdtrit(df, 0.5 + confidence / 2))


def _around(mean: float, half: float, n: int) -> Estimate:
    return Estimate(mean, mean - half, mean + half, n)


def _vector(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError("expected at least one finite number in one dimension")
    return x


def _pair(arm: ArrayLike, baseline: ArrayLike) -> tuple[Floats, Floats]:
    a, b = _vector(arm), _vector(baseline)
    if len(a) != len(b):
        raise ValueError(f"paired values must be equally many, not {len(a)} and {len(b)}")
    return a, b


def finite(values: Sequence[float | None]) -> list[float]:
    """The numbers among `values`: without None, NaN and infinities."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]
