"""The claim's own parts, on a mirror with made-up articles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from teloi.claims import ul2
from teloi.claims.claim import Run
from teloi.claims.running import Settings, run
from teloi.errors import TeloiError

WORDS = ["the", "river", "city", "king", "water", "people", "north", "old", "built", "called", "music", "great"]


@pytest.fixture(autouse=True)
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eighteen articles of random words, one of nothing but a heading."""
    rng = np.random.default_rng(0)
    rows = [
        {"title": str(i), "paragraphs": ["Heading", *(" ".join(rng.choice(WORDS, 60)) for _ in range(4))]}
        for i in range(18)
    ]
    place = tmp_path / "mirror" / ul2.DATA
    place.mkdir(parents=True)
    (place / "train.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"title": "x", "paragraphs": ["Heading"]}])))
    monkeypatch.setenv("TELOI_DATA", str(place.parent))
    return place


def test_quick(tmp_path: Path):
    result = run("teloi.claims.ul2", Settings(quick=True, directory=tmp_path / "runs"))
    assert result["verdict"] is None
    metrics = {arm["name"]: arm["runs"][0]["metrics"] for arm in result["arms"]}
    frequencies = metrics.pop("token frequencies")
    assert [name for name, value in frequencies.items() if value is None] == ["excess", "r", "s", "x"]
    for found in metrics.values():
        assert found.keys() == {metric["name"] for metric in result["metrics"]}
        best = [min(metrics[name][task] for name in ul2.SPECIALISTS) for task in ("r", "s")]
        assert found["excess"] == pytest.approx((found["r"] + found["s"] - sum(best)) / 2)
        assert found["s"] != found["s_text"]  # the end counts only in the first
    assert metrics["untrained"]["target_tokens"] == 0
    # 64 tokens: ten of noise, three sentinels and the end; a tail of sixteen and the end.
    assert metrics["span-corruption"]["target_tokens"] == 3 * 32 * 14
    assert metrics["prefix-lm"]["target_tokens"] == 3 * 32 * 17


def test_without_data_it_says_so_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TELOI_DATA")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TeloiError, match=r"wiki100.*set TELOI_DATA to a directory") as found:
        run("teloi.claims.ul2", Settings(quick=True, directory=tmp_path / "runs"))
    assert "\n" not in str(found.value)


def test_articles_are_split_anew_by_every_seed(tmp_path: Path):
    splits = [ul2.articles(Run(None, seed, True, tmp_path)) for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    train, held_out = splits[0]
    assert (len(train), len(held_out)) == (3, ul2.HELD_OUT)
    assert not set(train) & set(held_out)
    assert all("Heading" not in text for text in train + held_out)


def test_losses_are_the_models(tmp_path: Path):
    """Those of one held-out segment's tail, against transformers' own loss."""
    seed = Run(None, 0, True, tmp_path)
    train, held_out = ul2.articles(seed)
    base = ul2.start(seed, train)
    ids = base.processor.tokenizer("".join(held_out[:1]))["input_ids"][: ul2.LENGTH]
    text = str(base.processor.tokenizer.decode(ids))
    found = ul2.tested(seed, base, [text], ul2.model_losses(base), ("[R]", "[X]", "[S]"))
    vocabulary = base.processor.tokenizer
    mode, end = vocabulary.convert_tokens_to_ids("[S]"), vocabulary.eos_token_id
    with torch.no_grad():
        loss = base.model(
            input_ids=torch.tensor([[mode, *ids[:48], end]]), labels=torch.tensor([[*ids[48:], end]])
        ).loss
    assert found["s"] == pytest.approx(float(loss), rel=1e-4)
