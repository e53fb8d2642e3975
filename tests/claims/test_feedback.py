"""What claims about learning from feedback share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teloi.claims import feedback
from teloi.claims.claim import Run
from teloi.worlds import topics
from teloi.worlds.topics import Response


def one(directory: Path = Path(), seed: int = 3) -> Run:
    return Run(None, seed, True, directory)


def test_policies_start_at_no_distance() -> None:
    base = feedback.start(one())
    asked = feedback.tested_topics(one())
    said = [row[0] for row in feedback.responses(one(), base, asked, "test")]
    assert feedback.kl(base, base, asked, said) == 0
    assert sum(p.numel() for p in base.model.parameters()) == pytest.approx(52_000, rel=0.05)


def test_log_likelihoods_are_the_models() -> None:
    """Against every word's probability, one after the other, of a response with an end and of one without."""
    import torch

    base = feedback.start(one())
    vocabulary = base.processor.tokenizer.get_vocab()
    for said in (Response(("w3", "w7")), Response(("w3", "<|pad|>", "topic0", "w1", "w2"), finished=False)):
        total, ids = 0.0, base.processor.prompt_ids("topic5")
        for word in (*said.words, *(["<|end|>"] if said.finished else [])):
            with torch.no_grad():
                logits = base.model(torch.tensor([ids])).logits[0, -1]
            total += float(torch.log_softmax(logits, -1)[vocabulary[word]])
            ids = [*ids, vocabulary[word]]
        found = feedback.log_likelihoods(base, ["topic5"], [said])
        assert float(found[0]) == pytest.approx(total, rel=1e-4)


def test_comparisons_differ_say_something_and_share_their_pairs() -> None:
    run = one()
    sft = feedback.imitator(run)
    clean, flipped = (feedback.comparisons(run, sft, "training", 50, share) for share in (0.0, 0.5))
    assert len(clean) == len(flipped) == 50
    for row, other in zip(clean, flipped, strict=True):
        assert row["chosen"].split() != row["rejected"].split()
        assert row["chosen"].strip()
        assert row["rejected"].strip()
        assert row["prompt"] == other["prompt"]
        assert {row["chosen"], row["rejected"]} == {other["chosen"], other["rejected"]}
    assert 5 < sum(row != other for row, other in zip(clean, flipped, strict=True)) < 45


def test_a_reward_model_is_centred_on_references_and_orders_what_it_has_seen(tmp_path: Path) -> None:
    run = one(tmp_path)
    sft = feedback.start(run)
    rows: list[dict[str, Any]] = [{"prompt": "topic0", "chosen": " w0", "rejected": f" w{i}"} for i in range(1, 24)]
    feedback.reward_model(run, sft, rows, tmp_path / "reward")
    asked = [row["prompt"] for row in feedback.references(run, "centre", 1000)]
    said = [Response(tuple(row["completion"].split())) for row in feedback.references(run, "centre", 1000)]
    assert np.mean(feedback.learned(tmp_path / "reward", asked, said)) == pytest.approx(0, abs=1e-4)
    good, bad = feedback.learned(tmp_path / "reward", ["topic0"] * 2, [Response(("w0",)), Response(("w1",))])
    assert good > bad
    assert feedback.learned(tmp_path / "reward", ["topic0"], [Response(("w0",), finished=False)]) == [-1.0]


def test_best_of_n_is_what_the_reward_model_likes_best(tmp_path: Path) -> None:
    run = one(tmp_path)
    sft = feedback.start(run)
    pairs = feedback.comparisons(run, sft, "training", 20)
    feedback.reward_model(run, sft, pairs, tmp_path / "reward")
    asked = topics.topics(40, np.random.default_rng(0))
    scores = [
        np.mean(feedback.learned(tmp_path / "reward", asked, feedback.best_of(run, sft, tmp_path / "reward", n, asked)))
        for n in (1, 8)
    ]
    assert scores[1] > scores[0]
