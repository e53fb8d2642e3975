from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from teloi.measure.statistics import (
    Estimate,
    crossed_interval,
    item_deviation,
    mean_interval,
    paired_difference,
    paired_ratio,
    wilson,
)

numbers = st.floats(-100, 100).map(lambda x: round(x, 3))


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


@given(st.lists(numbers, min_size=2, max_size=12))
def test_mean_interval_is_scipys_t_interval(values: list[float]) -> None:
    estimate = mean_interval(values)
    error = stats.sem(values)
    if error > 1e-9:
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
        assert ends(estimate) == pytest.approx(expected, abs=1e-9)
    assert estimate.n == len(values)


def test_by_hand() -> None:
    # 1, 2, 3: mean 2, deviation 1, t(2) = 4.302653 -> 2 -+ 4.302653 / sqrt(3)
    assert ends(mean_interval([1, 2, 3])) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_one_seed_has_no_interval() -> None:
    assert mean_interval([0.4]) == Estimate(0.4, None, None, 1)
    assert crossed_interval([[0.0, 1.0]]) == Estimate(0.5, None, None, 1)
    assert not mean_interval([0.4]).excludes(0.0)


def test_deviation_is_floored_at_the_resolution() -> None:
    low, high = ends(mean_interval([0.5, 0.5, 0.5], resolution=0.01))
    assert high - low == pytest.approx(2 * 4.302653 * 0.01 / math.sqrt(3), abs=1e-7)
    assert mean_interval([0, 1, 2], resolution=0.01) == mean_interval([0, 1, 2])


def test_paired_difference_is_the_paired_t_test() -> None:
    arm, base = [0.51, 0.47, 0.55, 0.50], [0.40, 0.39, 0.47, 0.38]
    expected = stats.ttest_rel(arm, base).confidence_interval(0.95)
    assert ends(paired_difference(arm, base)) == pytest.approx((expected.low, expected.high))
    assert ends(paired_difference(arm, base, confidence=0.8)) == pytest.approx(
        tuple(stats.ttest_rel(arm, base).confidence_interval(0.8))
    )


def test_pairing_removes_what_seeds_share() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 10, 5)
    low, high = ends(paired_difference(shared + 1 + rng.normal(0, 0.1, 5), shared))
    assert 0 < low < 1 < high < 2


def test_ratio_on_the_log_scale() -> None:
    estimate = paired_ratio([2.0, 4.0, 8.0], [1.0, 1.0, 1.0])
    logs = stats.t.interval(0.95, 2, loc=math.log(4), scale=math.log(2) / math.sqrt(3))
    assert estimate.mean == pytest.approx(4.0)
    assert ends(estimate) == pytest.approx(tuple(np.exp(logs)))
    inverse = paired_ratio([1.0, 1.0, 1.0], [2.0, 4.0, 8.0])
    assert ends(inverse) == pytest.approx(tuple(1 / e for e in reversed(ends(estimate))))
    floored = paired_ratio([10.0, 10.0], [5.0, 5.0], resolution=0.5)
    assert ends(floored)[1] == pytest.approx(2 * math.exp(stats.t.ppf(0.975, 1) * 0.1 / math.sqrt(2)))
    with pytest.raises(ValueError, match="positive"):
        paired_ratio([1.0], [0.0])


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0], [[1.0, 2.0]]])
def test_bad_values(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(bad)
    with pytest.raises(ValueError, match="equally many"):
        paired_difference([1.0, 2.0], [1.0])


def test_item_deviation_is_the_bootstraps() -> None:
    rng = np.random.default_rng(3)
    items = rng.random(150) < 0.3
    draws = items[rng.integers(0, 150, (20_000, 150))].mean(axis=1)
    assert item_deviation(items) == pytest.approx(draws.std(), rel=0.02)


def test_crossed_interval_with_seeds_that_agree_is_the_bootstrap_over_items() -> None:
    rng = np.random.default_rng(5)
    row = (rng.random(400) < 0.6).astype(float) - (rng.random(400) < 0.4)
    draws = row[rng.integers(0, 400, (20_000, 400))].mean(axis=1)
    expected = tuple(np.quantile(draws, [0.025, 0.975]))
    assert ends(crossed_interval([row, row, row])) == pytest.approx(expected, abs=0.006)


def test_crossed_interval_with_items_that_agree_is_the_t_interval_over_seeds() -> None:
    table = np.repeat([[0.1], [0.3], [0.2]], 50, axis=1)
    assert ends(crossed_interval(table)) == pytest.approx(ends(mean_interval([0.1, 0.3, 0.2])))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    ("by_seed", "by_item", "noise"), [(0.05, 0.4, 0.4), (0.0, 0.4, 0.2), (0.0, 0.0, 0.4), (0.1, 0.1, 0.2)]
)
def test_crossed_interval_covers_at_its_level(seeds: int, by_seed: float, by_item: float, noise: float) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1000):
        table = rng.normal(0, by_seed, (seeds, 1)) + rng.normal(0, by_item, 60)
        low, high = ends(crossed_interval(table + rng.normal(0, noise, (seeds, 60))))
        covered += low < 0 < high
    assert 0.93 <= covered / 1000 <= (0.99 if seeds == 2 else 0.985)


def test_seeds_alone_would_not_cover() -> None:
    """The negative control of the test above: the fixed test set's variance is not in the seed means."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(500):
        table = rng.normal(0, 0.4, 60) + rng.normal(0, 0.2, (3, 60))
        low, high = ends(mean_interval(table.mean(axis=1)))
        covered += low < 0 < high
    assert covered / 500 < 0.75


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    estimate = wilson(k, n)
    assert ends(estimate) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert estimate.mean == pytest.approx(k / n)
    with pytest.raises(ValueError, match="share"):
        wilson(n + 1, n)
