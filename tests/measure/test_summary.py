from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from teloi.errors import TeloiError
from teloi.measure.statistics import Estimate, crossed_interval, paired_difference, wilson
from teloi.measure.summary import Metric, summarise
from teloi.measure.wording import Style, count, duration, listed, style, verdict

SHARE = {"name": "acc", "label": "accuracy", "better": "higher", "unit": "share", "primary": True}


def results(
    arms: Mapping[str, Sequence[float | None]],
    *,
    metric: dict[str, Any] | None = None,
    seconds: dict[str, float] | None = None,
    items: dict[str, list[list[int]]] | None = None,
) -> dict[str, Any]:
    """Arms by name with one value a seed (None: the run failed); "base" is the untrained baseline."""
    return {
        "metrics": [metric or SHARE],
        "arms": [
            {
                "name": name,
                "method": None if name == "base" else name,
                "baseline": name == "base",
                "runs": [
                    {
                        "seed": seed,
                        "metrics": {} if value is None else {(metric or SHARE)["name"]: value},
                        "items": {} if not items else {"acc": items[name][seed]},
                        "ledger": {"train_seconds": (seconds or {}).get(name, 0.0)},
                        "failed": "non-finite loss at step 3" if value is None else None,
                    }
                    for seed, value in enumerate(values)
                ],
            }
            for name, values in arms.items()
        ],
    }


def test_differences_are_paired_by_seed() -> None:
    raw = results({"sft": [0.5, 0.6, 0.7], "dpo": [0.61, 0.7, 0.82]})
    raw["arms"][0]["baseline"] = True
    summary = summarise(raw)
    assert [a.name for a in summary.arms] == ["dpo", "sft"]
    assert summary.arm("dpo").cells["acc"].difference == paired_difference([0.61, 0.7, 0.82], [0.5, 0.6, 0.7])
    assert summary.arm("sft").cells["acc"].difference is None


def test_an_untrained_arm_with_one_run_is_the_baseline_of_every_seed() -> None:
    once = summarise(results({"base": [0.5], "dpo": [0.61, 0.7, 0.82]}))
    thrice = summarise(results({"base": [0.5] * 3, "dpo": [0.61, 0.7, 0.82]}))
    expected = paired_difference([0.61, 0.7, 0.82], [0.5] * 3)
    assert once.arm("dpo").cells["acc"].difference == thrice.arm("dpo").cells["acc"].difference == expected
    assert once.arm("base").cells["acc"].estimate.width is None


def test_items_add_the_variance_of_the_test_set() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(80) < 0.4).astype(int)
    dpo = (rng.random((3, 80)) < 0.6).astype(int)
    items = {"base": [base.tolist()] * 3, "dpo": dpo.tolist()}
    raw = results({"base": [float(base.mean())] * 3, "dpo": dpo.mean(axis=1).tolist()}, items=items)
    summary = summarise(raw)
    cell = summary.arm("dpo").cells["acc"]
    assert cell.estimate == crossed_interval(dpo, resolution=1 / 80)
    assert cell.difference == crossed_interval(dpo - base, resolution=1 / 80)
    assert summary.arm("base").cells["acc"].estimate == wilson(int(base.sum()), 80)
    assert summary.items == 80
    # Items that are not what the metric is a mean of have no say.
    raw["arms"][1]["runs"][0]["metrics"]["acc"] += 0.2
    changed = summarise(raw).arm("dpo").cells["acc"].difference
    assert changed == paired_difference(dpo.mean(axis=1) + np.array([0.2, 0, 0]), [base.mean()] * 3)


def test_ratios_where_the_metric_says_so() -> None:
    metric = {"name": "ppl", "label": "perplexity", "better": "lower", "scale": "log", "primary": True}
    summary = summarise(results({"base": [20.0], "sft": [10.0, 9.0, 11.0]}, metric=metric))
    difference = summary.arm("sft").cells["ppl"].difference
    assert difference is not None
    assert difference.mean == pytest.approx((990.0 ** (1 / 3)) / 20)
    assert summary.primary.improves(difference)
    assert verdict(summary).startswith("sft lowers perplexity by a factor of 2.01 against base (95% 0.39 to 0.64)")


def test_failed_runs_are_counted_and_left_out() -> None:
    summary = summarise(results({"base": [0.5] * 3, "dpo": [0.61, None, 0.82], "kto": [None, None, None]}))
    assert summary.arm("dpo").cells["acc"].estimate.n == 2
    assert [f.seed for f in summary.arm("dpo").failures] == [1]
    assert summary.arms[-1].name == "kto"
    assert summary.failures == 4
    assert "4 of 9 runs failed (dpo 1 and kto 3)" in verdict(summary)
    nothing = summarise(results({"base": [None], "dpo": [None]}))
    assert verdict(nothing) == "No result: all 2 runs failed."


def test_a_value_that_is_no_number_is_a_failure() -> None:
    summary = summarise(results({"base": [0.5] * 2, "dpo": [float("nan"), 0.6]}))
    assert [(f.seed, f.reason) for f in summary.arm("dpo").failures] == [(0, "accuracy is no finite number")]


def test_malformed_results() -> None:
    with pytest.raises(TeloiError, match="'arms' is missing"):
        summarise({"metrics": [SHARE]})
    with pytest.raises(TeloiError, match="no metric"):
        summarise({"metrics": [], "arms": []})


BASE = [0.30, 0.31, 0.29]


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        (
            {"base": BASE, "sft": [0.33, 0.34, 0.325], "dpo": [0.42, 0.44, 0.40], "ipo": [0.42, 0.42, 0.41]},
            "dpo raises accuracy by 12.0 points against base (95% 9.5 to 14.5) at 1.3x the time of sft; "
            "ipo cannot be told apart from it.",
        ),
        (
            {"base": BASE, "sft": [0.33, 0.34, 0.325], "dpo": [0.42, 0.44, 0.40]},
            "dpo raises accuracy by 12.0 points against base (95% 9.5 to 14.5) at 1.3x the time of sft; "
            "sft is behind it.",
        ),
        (
            {"base": BASE, "sft": [0.42, 0.44, 0.40]},
            "sft raises accuracy by 12.0 points against base (95% 9.5 to 14.5).",
        ),
        (
            {"base": BASE, "sft": [0.35, 0.28, 0.30]},
            "No method is shown to beat base on accuracy: the nearest, sft, is 1 point above (95% -9 to 11).",
        ),
        (
            {"base": BASE, "sft": [0.20, 0.21, 0.19]},
            "Every method is behind base on accuracy: the nearest, sft, by 10.0 points (95% -10.0 to -10.0).",
        ),
        (
            {"base": [0.3], "sft": [0.4], "dpo": [0.5]},
            "dpo is 20 points above base on accuracy at 1.3x the time of sft, but one seed gives no "
            "interval: this may be luck.",
        ),
        (
            {"sft": [0.4, 0.41], "dpo": [0.5, 0.49]},
            "dpo has the highest accuracy, 50% (95% 43 to 56) at 1.3x the time of sft; "
            "sft cannot be told apart from it.",
        ),
        ({"base": [0.3]}, "Nothing to compare: only the baseline has a result."),
    ],
)
def test_verdict(arms: dict[str, list[float | None]], sentence: str) -> None:
    assert verdict(summarise(results(arms, seconds={"sft": 40.0, "dpo": 52.0, "ipo": 52.0}))) == sentence


def test_the_best_is_one_that_is_shown_better_not_the_luckiest() -> None:
    summary = summarise(results({"base": [0.30] * 3, "wild": [0.2, 0.5, 0.6], "calm": [0.40, 0.41, 0.42]}))
    assert summary.arms[0].name == "wild"
    assert summary.best == "calm"
    assert summary.arm("wild").standing == "tied"


def test_lower_is_better() -> None:
    metric = {"name": "err", "better": "lower", "unit": "share", "primary": True}
    summary = summarise(results({"base": [0.5], "a": [0.3, 0.31], "b": [0.4, 0.41]}, metric=metric))
    assert [a.name for a in summary.arms] == ["a", "b", "base"]
    assert verdict(summary).startswith("a lowers err by ")


def test_style_aligns_a_column() -> None:
    summary = summarise(results({"base": BASE, "sft": [0.33, 0.34, 0.325]}))
    how = style(summary, summary.primary)
    assert how.value(0.43125) == "43.1%"
    assert how.change(Estimate(0.1, 0.05, 0.15, 3)) == "+10.0"
    assert how.change(Estimate(-0.1, None, None, 1)) == "-10.0"
    assert how.interval(Estimate(-0.1, -0.2, -0.0001, 3)) == "-20.0 to 0.0"
    assert Style(Metric("kl", "KL", unit="nats"), 2).value(0.5) == "0.50 nats"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (20_250, "20.2k"), (200_000, "200k"), (999_900, "1M"), (1.25e6, "1.25M")],
)
def test_count(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (93, "93 s"), (700, "12 min"), (12_240, "3.4 h")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_listed() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(list("abcdef")) == "a, b, c and 3 more"


def of_two_starts() -> dict[str, Any]:
    raw = results({"untrained a": [0.6, 0.62], "untrained b": [0.2, 0.22], "clm": [0.58, 0.6], "mlm": [0.5, 0.52]})
    for arm, start in zip(raw["arms"], (None, None, "untrained a", "untrained b"), strict=True):
        arm |= {"method": start and arm["name"], "baseline": start is None, "against": start}
    raw["metrics"].append({"name": "bits", "label": "bits", "better": "lower"})
    raw["arms"][3]["undefined"] = {"bits": "it has none"}
    return raw


def test_arms_of_different_starts_are_ranked_by_value_and_set_against_their_own() -> None:
    summary = summarise(of_two_starts())
    assert [arm.name for arm in summary.arms] == ["untrained a", "clm", "mlm", "untrained b"]
    assert summary.best == "clm"  # although only mlm is above its start
    differences = {arm.name: arm.cells["acc"].difference for arm in summary.arms}
    assert differences["untrained a"] is differences["untrained b"] is None
    assert differences["clm"] == paired_difference([0.58, 0.6], [0.6, 0.62])
    assert differences["mlm"] == paired_difference([0.5, 0.52], [0.2, 0.22])
    said = verdict(summary)
    assert said.startswith("clm has the highest accuracy, 59% (95% 46 to 72), -2 points against its untrained model")
    assert said.endswith("mlm is behind it. But untrained a, which learned nothing, has 61%.")
    raw = of_two_starts()
    raw["arms"][1]["runs"] = raw["arms"][3]["runs"]  # what mlm starts from is as good
    assert "No method is shown to be better than its untrained model. But" in verdict(summarise(raw))


def test_what_an_arm_cannot_have_is_no_failure() -> None:
    raw = of_two_starts()
    summary = summarise(raw)
    assert summary.failures == 0
    assert summary.empty == ["No value of mlm in bits: it has none."]
    raw["metrics"][0]["primary"] = False
    raw["metrics"][1]["primary"] = True
    found = {arm.name: len(arm.failures) for arm in summarise(raw).arms}
    assert found == {"untrained a": 2, "untrained b": 2, "clm": 2, "mlm": 0}
