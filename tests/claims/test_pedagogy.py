"""The claim's own parts; its run in seconds is in `test_quick`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from teloi.claims import pedagogy
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.worlds.tutor import reference


@pytest.fixture
def prepared(tmp_path: Path) -> Run:
    seed = Run(None, 3, True, tmp_path)
    pedagogy.prepare(seed)
    return seed


def test_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "cache"))
    result = run("teloi.claims.pedagogy", Settings(quick=True, directory=tmp_path))
    assert result["verdict"] is None
    for arm in result["arms"]:
        (one,) = arm["runs"]
        assert one["failed"] is None
        assert one["metrics"].keys() == {metric["name"] for metric in result["metrics"]}
        assert ("learning_rate" in one["details"]) == (arm["name"] not in ("base", "sft"))


def test_arms_share_what_they_are_tested_on_and_start_from(prepared: Run):
    base, sft = (pedagogy.start(prepared, name).model for name in ("base", "sft"))
    differing = [not torch.equal(a, b) for a, b in zip(base.parameters(), sft.parameters(), strict=True)]
    assert any(differing)
    fresh = pedagogy.start(prepared).model
    assert not torch.equal(next(fresh.parameters()), next(base.parameters()))
    count = sum(p.numel() for p in fresh.parameters())
    assert count < 200_000
    assert torch.equal(next(pedagogy.start(prepared, "sft").model.parameters()), next(sft.parameters()))


def test_records_are_read_back_through_the_tokenizer(prepared: Run):
    """What is trained on is what is parsed: ids of each right record decode to it."""
    base = pedagogy.start(prepared)
    for row, turn in zip(pedagogy.gold_rows(pedagogy.sft_turns(prepared)), pedagogy.sft_turns(prepared), strict=True):
        _, (ids,) = base.processor.pair_ids(row["prompt"], [row["completion"]])
        assert len(ids) == 6
        assert base.processor.tokenizer.decode(ids, skip_special_tokens=True) == str(reference(turn))
        assert base.processor.tokenizer.unk_token_id not in ids


def test_token_logps_are_the_models(prepared: Run):
    base = pedagogy.start(prepared, "sft")
    turns = pedagogy.preference_turns(prepared)[:5]
    found = pedagogy.token_logps(base, [t.prompt for t in turns], [[reference(t)] * 2 for t in turns])
    for turn, (one, other) in zip(turns, found, strict=True):
        prompt, (completion,) = base.processor.pair_ids(turn.prompt, [f" {reference(turn)}"])
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1)[range(len(completion)), completion]
        torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one, other)


def test_half_of_the_controls_pairs_are_swapped(prepared: Run):
    pairs = [{"prompt": str(i), "chosen": "right", "rejected": "wrong"} for i in range(21)]
    control = Run("dpo, sides by coin", 3, True, prepared.directory)
    _, mixed, _ = pedagogy.training(control, pairs)
    assert sum(pair["chosen"] == "wrong" for pair in mixed) == 10
    assert {frozenset(pair.items()) for pair in map(pedagogy.swap, map(pedagogy.swap, mixed))} == {
        frozenset(pair.items()) for pair in mixed
    }
    assert np.array_equal([pair["prompt"] for pair in mixed], [pair["prompt"] for pair in pairs])


def test_no_errors_no_pairs_and_the_sft_model_stays(prepared: Run):
    (prepared.directory / "pairs.json").write_text("[]")
    kept = pedagogy.measure(Run("dpo", 3, True, prepared.directory))
    sft = pedagogy.measure(Run("sft", 3, True, prepared.directory))
    assert kept.metrics == sft.metrics
    assert kept.metrics["pairs"] == 0
    assert kept.details == {}
