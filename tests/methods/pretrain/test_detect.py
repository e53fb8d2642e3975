"""Replaced-token detection and Vega: what is labelled, whom the gradients reach, and what is taken away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from teloi.batch.sequence import Sequence
from teloi.data.processor import Processor
from teloi.data.vocabulary import ordinary_ids
from teloi.engine.objective import Now
from teloi.errors import UsageError
from teloi.methods.pretrain.detect import RTD, Vega
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel

PROCESSOR = Processor(train_tokenizer(["the cat sat on the mat"], 300, "masked"), 512)
NOW = Now(0, 2, places=tuple(range(6)))


def models_for(objective: RTD) -> Models:
    torch.manual_seed(0)
    model = scratch_model("tiny", PROCESSOR.tokenizer, "masked")
    objective.shape(model, None)
    policy: Any = ScoredModel(model)
    models = Models(policy, processor=PROCESSOR)
    models.parts = objective.build(models)
    return models


def batch_of(objective: RTD, models: Models, lengths: tuple[int, ...] = (30, 20, 25, 30, 12, 8)) -> Any:
    draw = np.random.default_rng(0)
    raw = [Sequence({"input_ids": draw.choice(ordinary_ids(PROCESSOR.tokenizer), n).astype(np.int32)}) for n in lengths]
    return objective.collate(objective.rollout(models, raw, NOW), NOW, "cpu")


def test_the_generator_has_half_the_layers_and_starts_as_the_model() -> None:
    models = models_for(RTD(share="none"))
    parts: Any = models.parts
    generator, inner = parts["generator"], models.policy.inner
    assert generator.config.num_hidden_layers == 1
    assert inner.config.num_hidden_layers == 2
    start = inner.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in generator.state_dict().items())


@pytest.mark.parametrize("share", ["disentangled", "full", "none"])
def test_whom_the_detection_loss_moves(share: Any) -> None:
    """Of the shared embeddings only where they are fully shared; and never the generator by its samples."""
    objective = RTD(share=share)
    models = models_for(objective)
    parts: Any = models.parts
    embeddings: Any = models.policy.inner.get_input_embeddings()
    terms = objective.loss(models, batch_of(objective, models), NOW)
    terms["detection"].values.sum().backward(retain_graph=True)
    theirs: Any = parts["generator"].get_input_embeddings()
    assert (theirs.weight is embeddings.weight) == (share != "none")
    body = [p for name, p in parts["generator"].named_parameters() if p is not theirs.weight]
    assert all(p.grad is None for p in body)
    if share == "disentangled":
        assert embeddings.weight.grad is None
        assert parts["own"].weight.grad.abs().sum() > 0
    else:
        assert embeddings.weight.grad.abs().sum() > 0
    terms["generator"].values.sum().backward()
    assert theirs.weight.grad.abs().sum() > 0


def test_a_sample_that_hits_the_original_counts_as_kept() -> None:
    """With a generator that always says one token, replaced is what was drawn and is another one."""
    objective = RTD(probability=0.5)
    models = models_for(objective)
    parts: Any = models.parts
    one, other = ordinary_ids(PROCESSOR.tokenizer)[:2].tolist()
    raw = [Sequence({"input_ids": np.tile(np.array([one, other], np.int32), n)}) for n in (20, 9)]
    batch = objective.collate(objective.rollout(models, raw, NOW), NOW, "cpu")
    with torch.no_grad():
        parts["generator"].cls.predictions.bias[one] = 1000.0
        parts["head"].layers[-1].weight.zero_()  # it says of every token that it was kept, so that f1 shows the labels
        parts["head"].layers[-1].bias.zero_()
        terms = objective.loss(models, batch, NOW)
    labels: Any = terms["f1"].per
    expected = (batch.ids["labels"] == other)[batch.mask["input_ids"].bool()]
    assert torch.equal(labels.bool(), expected)
    assert 0 < expected.sum() < batch.counts["tokens"]
    assert len(labels) == batch.counts["positions"] == 2 * (20 + 9) + 4


def test_joined_embeddings_say_the_same_and_are_what_is_saved(tmp_path) -> None:
    objective = RTD()
    models = models_for(objective)
    parts: Any = models.parts
    torch.nn.init.normal_(parts["own"].weight, std=0.02)
    batch = batch_of(objective, models)
    ids, mask = batch.ids["originals"], batch.mask["input_ids"]
    with torch.no_grad():
        expected = objective.states(models, ids, mask)
        plain = models.policy.inner.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert not torch.allclose(plain, expected, atol=1e-3)
        objective.export(models, tmp_path)
        loaded = AutoModelForMaskedLM.from_pretrained(tmp_path).base_model
        found = loaded(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", ["disentangled", "full", "none"])
def test_a_second_phase_starts_where_the_first_ended(share: Any, tmp_path) -> None:
    """From what is saved: the same losses, whatever encoder and generator have in common."""
    first = RTD(share=share)
    models = models_for(first)
    parts: Any = models.parts
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in {*models.policy.inner.parameters(), *parts.parameters()}:
            parameter += 0.02 * torch.randn_like(parameter)
        batch = batch_of(first, models)
        expected = first.loss(models, batch, NOW)
        first.export(models, tmp_path)
        second = Vega(share=share, continues=tmp_path)
        policy: Any = ScoredModel(AutoModelForMaskedLM.from_pretrained(tmp_path).eval())
        again = Models(policy, processor=PROCESSOR)
        again.parts = second.build(again)
        batch.columns["text"] = batch.identities("originals")
        found = second.loss(again, batch, NOW)
    for name, term in expected.items():
        torch.testing.assert_close(found[name].values, term.values, atol=1e-4, rtol=1e-4)
    with pytest.raises(UsageError, match="generator_depth"):
        Vega(share=share, continues=tmp_path, generator_depth=1.0).build(again)
    with pytest.raises(UsageError, match=r"detector\.safetensors"):
        Vega(share=share, continues=tmp_path / "nowhere").build(again)


def test_two_views_differ_by_dropout_and_copies_are_no_negatives() -> None:
    objective = Vega(dropout=0.2)
    models = models_for(objective)
    models.policy.model.train()
    batch = batch_of(objective, models)
    states = [objective.states(models, batch.ids["originals"], batch.mask["input_ids"]) for _ in range(2)]
    assert not torch.equal(*states)
    models.policy.model.eval()
    terms = objective.loss(models, batch, NOW)
    assert len(terms["contrast"].values) == 6
    same = Sequence({"input_ids": ordinary_ids(PROCESSOR.tokenizer)[:20].astype(np.int32)})
    twice = objective.collate(objective.rollout(models, [same, same], NOW), NOW, "cpu")
    assert objective.loss(models, twice, NOW)["contrast"].values.tolist() == [0.0, 0.0]


def test_what_cannot_work_is_refused() -> None:
    for wrong in ({"dropout": 0.0}, {"temperature": 0.0}, {"generator_depth": 0.0}, {"probability": 1.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Vega(**wrong)  # type: ignore[arg-type]
