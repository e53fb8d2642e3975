"""GPT-BERT's rows, its counts of masks, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.formats import LanguageModeling
from teloi.data.processor import Processor
from teloi.data.vocabulary import begin_id, end_id, given_mask_id, ordinary_ids
from teloi.engine.objective import Now
from teloi.errors import ModelError, UsageError
from teloi.methods.pretrain.gpt_bert import GPTBERT, is_causal
from teloi.models.attention import TREE
from teloi.models.roles import LanguageModel, Models
from teloi.models.scratch import scratch_model, train_tokenizer

TEXTS = ["the cat sat on the mat", "a dog sat on a log", "the dog and the cat sat on the mat and the log"] * 4


def prepared(objective: GPTBERT, layout: Any = "packed") -> tuple[Models, list[Any]]:
    processor = Processor(train_tokenizer(TEXTS, 280))
    examples = [one for text in TEXTS for one in objective.encode(LanguageModeling(text), processor)]
    rows = objective.prepare(examples, seed=0)
    torch.manual_seed(0)
    model = scratch_model("tiny", processor.tokenizer)
    objective.shape(model, rows[0])
    model.set_attn_implementation(TREE)
    models = Models(LanguageModel(model, layout), processor=processor, example=rows[0])
    models.parts = objective.build(models)
    return models, rows


@given(st.integers(0, 16), st.integers(1, 200))
def test_every_stretch_has_its_share_of_causal_rows(sixteenths, rows) -> None:
    causal = [is_causal(place, sixteenths / 16) for place in range(rows)]
    share = 1 - sixteenths / 16
    assert abs(sum(causal) - rows * share) < 1
    assert causal[0] == (share > 0)


def test_rows_are_texts_behind_the_begin_token_masked_or_whole() -> None:
    objective = GPTBERT(length=24, masked_rows=0.75)
    models, rows = prepared(objective)
    assert models.processor is not None
    tokenizer = models.processor.tokenizer
    mask, ordinary = given_mask_id(tokenizer), ordinary_ids(tokenizer)
    made = objective.rollout(models, rows, Now(0, 10))
    assert 1 < sum(not one.columns["bidirectional"] for one in made) < len(made)
    for raw, one in zip(rows, made, strict=True):
        inputs, labels = one.ids["input_ids"], one.ids["labels"]
        starts = np.cumsum(one.columns["lengths"]) - one.columns["lengths"]
        assert (inputs[starts] == begin_id(tokenizer)).all()
        assert len(inputs) <= 24
        assert objective.cost(raw) == len(inputs)
        said = labels != -100
        if one.columns["bidirectional"]:
            assert 0 < said.sum() < len(labels)
            assert np.isin(labels[said], ordinary).all(), "special tokens are never masked"
            assert (inputs[1:][inputs[1:] == mask].size) > 0
        else:
            assert mask not in inputs
            after = np.append(inputs[1:], labels[-1])
            assert (labels[said] == after[said]).all()
            assert not said[starts[1:] - 1].any(), "nothing predicts a begin token"
    assert any(end_id(tokenizer) in row.ids["input_ids"] for row in rows)


def test_every_mask_is_counted_once_and_the_counts_even_out() -> None:
    objective = GPTBERT(length=24, masked_rows=1.0, ratio=1.0)
    models, rows = prepared(objective)
    parts: Any = models.parts
    total = 0
    for step in range(30):
        now = Now(step, 30)
        batch = objective.collate(objective.rollout(models, rows, now), now, "cpu")
        objective.after_step(models, [batch], now)
        total += len(np.concatenate([row.columns["masked"] for row in batch.rows]))
        assert int(parts.masked.sum()) == total
    assert models.processor is not None
    segments = np.zeros(len(parts.masked), bool)
    for row in rows:  # special tokens are in the corpus, and never masked
        at = np.concatenate(
            [np.arange(p, p + n) for p, n in zip(row.columns["places"], row.columns["lengths"], strict=True)]
        )
        segments[at] |= np.isin(row.ids["input_ids"], ordinary_ids(models.processor.tokenizer))
    counts = parts.masked.numpy()
    assert (counts[~segments] == 0).all()
    assert counts[segments].min() > 0
    held_out = objective.prepare_held_out(rows[:1], rows, seed=0)
    before = parts.masked.clone()
    made = objective.rollout(models, held_out, Now(0, 1))
    objective.after_step(models, [objective.collate(made, Now(0, 1), "cpu")], Now(0, 1))
    assert torch.equal(before, parts.masked), "held-out texts are not counted"


def test_the_loss_weighs_the_means_of_both_parts() -> None:
    objective = GPTBERT(length=24, masked_rows=0.5, ratio=0.75, z_weight=0.01)
    models, rows = prepared(objective)
    now = Now(0, 10)
    batch = objective.collate(objective.rollout(models, rows, now), now, "cpu")
    terms = objective.loss(models, batch, now)
    assert {name: term.weight for name, term in terms.items()} == pytest.approx(
        {"nll_masked": 0.75, "z_masked": 0.0075, "nll_causal": 0.25, "z_causal": 0.0025}
    )
    logps = models.policy.logps(batch)  # type: ignore[arg-type]  # which has what a language model reads of a batch
    torch.testing.assert_close(terms["nll_masked"].values.sum(), -logps[batch.bidirectional].sum())
    torch.testing.assert_close(terms["nll_causal"].values.sum(), -logps[~batch.bidirectional].sum())
    assert set(GPTBERT(ratio=0.0, masked_rows=0.0).loss(models, batch, now)) == {"nll_causal", "z_causal"}


def test_the_rate_falls_from_start_to_end() -> None:
    assert [GPTBERT().rate(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.225, 0.15])


def test_a_tokenizer_without_a_mask_is_given_one_that_the_model_learns() -> None:
    models, rows = prepared(GPTBERT(length=24))
    assert models.processor is not None
    mask = models.processor.tokenizer.mask_token_id
    assert mask == rows[0].columns["mask"]
    assert models.policy.model.get_input_embeddings().num_embeddings > mask


def test_what_cannot_work_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="a part of the loss has no rows"):
        GPTBERT(ratio=1.0)
    for setting in ({"ratio": 1.5}, {"rate_start": 0.0}, {"length": 3}, {"mix": (0.5, 0.1, 0.1)}, {"z_weight": -1.0}):
        with pytest.raises(UsageError, match=next(iter(setting))):
            GPTBERT(**setting)
    with pytest.raises(UsageError, match="set --length 64"):
        GPTBERT().encode(LanguageModeling("the cat"), Processor(train_tokenizer(TEXTS, 280), 64))
    with pytest.raises(ModelError, match="read in both directions"):
        prepared(GPTBERT(length=24), "padded")
