"""The claim's own parts; its run in seconds is in `test_quick`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teloi.claims import encoders, structural_ssl
from teloi.claims.claim import Run
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.engine.dataset import encode
from teloi.engine.objective import Now
from teloi.methods.pretrain.structure import SSP
from teloi.methods.pretrain.substitution import MLM
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel
from tests.claims.judged import run_in_seconds

RUN = Run("direct", 3, True, Path())


def test_quick(tmp_path: Path):
    result = run_in_seconds("teloi.claims.structural_ssl", tmp_path)
    for arm in result["arms"]:
        (one,) = arm["runs"]
        assert ("map" in one["metrics"]) != ("accuracy" in one["metrics"])
    assert {e["metric"] for e in result["expectations"]} == {"steps", "accuracy", "map"}
    explained = {arm["name"] for arm in result["arms"] if "explained" in arm["runs"][0]["metrics"]}
    assert explained == {"rts", "c-rts", "ssp first", "shuffled ssp first"}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = [row["text"] for row in encoders.texts(RUN)]
    return train_tokenizer(texts, 400, "masked")


def test_the_full_head_computes_the_same_loss_and_gradient(tokenizer: Any):
    processor = Processor(tokenizer, 64)
    torch.manual_seed(0)
    models = Models(ScoredModel(scratch_model("tiny", tokenizer, "masked")), processor=processor)  # type: ignore[arg-type]
    found = []
    for objective in (MLM(length=32), structural_ssl.FullHeadMLM(length=32)):
        examples = encode(objective, Rows(encoders.texts(RUN), "articles"), processor).examples[:4]
        batch = objective.collate(objective.rollout(models, examples, Now(0, 1)), Now(0, 1), "cpu")
        loss = objective.loss(models, batch, Now(0, 1))["nll"].values.sum() / batch.counts["tokens"]
        found.append((loss, torch.autograd.grad(loss, [*models.policy.model.parameters()], allow_unused=True)))
    (one, gradients), (other, theirs) = found
    torch.testing.assert_close(one, other)
    for mine, full in zip(gradients, theirs, strict=True):
        assert (mine is None) == (full is None)
        if mine is not None:
            torch.testing.assert_close(mine, full, atol=1e-6, rtol=1e-4)


def test_shuffled_pairs_are_the_same_with_other_labels(tokenizer: Any):
    rows = Rows([{"paragraphs": paragraphs} for paragraphs in encoders.articles(RUN)], "articles")
    processor = Processor(tokenizer, 96, "truncate")
    right, shuffled = (
        encode(objective, rows, processor).examples for objective in (SSP(), structural_ssl.ShuffledSSP(shuffle=1))
    )
    for one, other in zip(right, shuffled, strict=True):
        assert (one.ids["input_ids"] == other.ids["input_ids"]).all()
        assert other.classes[other.columns["label"]] == other.name
    labels = [[int(example.columns["label"]) for example in examples] for examples in (right, shuffled)]
    assert Counter(labels[0]) == Counter(labels[1])
    agreeing = np.mean([a == b for a, b in zip(*labels, strict=True)])
    assert agreeing == pytest.approx(1 / 9 + 4 / 9, abs=0.12)  # as chance has it with a third of them together


def test_arms_share_articles_and_questions():
    other = Run("ssp first", 3, True, Path())
    assert encoders.articles(RUN) == encoders.articles(other) != encoders.articles(Run("direct", 4, True, Path()))
    splits = encoders.reviews(RUN, 20)
    assert splits == encoders.reviews(other, 20)
    assert len(splits[0]) == 20
    texts = [{row["text"] for row in split} for split in splits]
    assert len(set.union(*texts)) == sum(map(len, texts))
    train, tested = (structural_ssl.questions(RUN, split) for split in ("train", "test"))
    assert not {one.text for one in train} & {one.text for one in tested}


def test_learned_is_how_far_the_loss_is_below_the_base_rates():
    entropy = -0.2 * np.log(0.2) - 0.8 * np.log(0.8)
    records = [{"loss": 9.0}] * 5 + [{"loss": float(entropy / 2)}] * 20
    assert structural_ssl.learned(records, 0.2) == pytest.approx({"loss": entropy / 2, "explained": 0.5})
    assert structural_ssl.learned(records, None) == pytest.approx({"loss": entropy / 2})
