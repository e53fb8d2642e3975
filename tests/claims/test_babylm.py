"""The claim's own parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from teloi.claims import babylm
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.worlds import agreement


def test_quick(tmp_path: Path):
    result = run("teloi.claims.babylm", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    metrics = {arm["name"]: arm["runs"][0]["metrics"] for arm in result["arms"]}
    for arm in babylm.EVALUATOR:
        assert metrics.pop(arm).keys() == {"blimp"}
    for arm, found in metrics.items():
        own = "fused" if arm.startswith("hybrid") else "masked" if arm.startswith("masked") else "causal"
        assert found["pairs"] == found[f"pairs_{own}"]
    for expect in result["expectations"]:
        assert expect["metric"] in metrics[expect["better"]].keys() & metrics[expect["worse"]].keys()


def test_losses_and_pairs_of_a_model_that_has_learned(tmp_path: Path):
    """One sentence, learned by heart: its loss goes to 0, and it is likelier than one with a wrong verb."""
    seed = Run("hybrid 1/2", 3, True, tmp_path)
    text = "the owl near the dogs sleeps ."
    base = babylm.trained(seed, "hybrid 1/2", [text] * 8, 60)
    untrained = babylm.trained(seed, "hybrid 1/2", [text] * 8, 1)
    pairs = [{"paradigm": "verb", "good": text, "bad": text.replace("sleeps", "sleep")}]
    for way in ("causal", "masked"):
        assert babylm.loss(base, [text], way) < 0.3 < 2 < babylm.loss(untrained, [text], way)
        assert babylm.share_right(base, pairs, way) == 1
    assert babylm.loss(base, [text, text]) == pytest.approx(babylm.loss(base, [text]), rel=1e-4)


def test_arms_of_a_seed_learn_from_the_same_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    trained = babylm.trained

    def watched(run, kind, training, steps):
        seen.append((kind, tuple(training), steps))
        return trained(run, kind, training, steps)

    monkeypatch.setattr(babylm, "trained", watched)
    for arm in ("causal", "hybrid 1/2" + babylm.FEW, babylm.BEST_OF_SHORTER):
        babylm.measure(Run(arm, 5, True, tmp_path))
    many, few, *shorter = seen
    assert (len(many[1]), len(few[1])) == (babylm.QUICK.sentences, babylm.QUICK.few)
    assert few[1] == many[1][: babylm.QUICK.few]
    assert shorter == [("causal", few[1], steps) for steps in babylm.QUICK.shorter]
    assert set(many[1]) <= set(
        agreement.sentences(babylm.QUICK.sentences, Run("x", 5, True, tmp_path).rng("sentences"))
    )
