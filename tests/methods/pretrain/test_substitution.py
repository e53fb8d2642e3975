"""Substitution from text to loss: what is drawn, what is labelled, and the counts of c-rts, which feed back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from teloi.batch.sequence import IGNORED, Sequence
from teloi.data.corruption.clusters import cluster_probabilities
from teloi.data.formats import LanguageModeling
from teloi.data.processor import Processor
from teloi.data.vocabulary import mask_id, ordinary_ids
from teloi.engine.objective import Now
from teloi.errors import DataError, ModelError, UsageError
from teloi.methods.pretrain.substitution import CRTS, MLM, RTS, SLM, Substitution
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel

PROCESSOR = Processor(train_tokenizer(["the cat sat on the mat"], 300, "masked"), 512)
TOKENIZER = PROCESSOR.tokenizer
ORDINARY = ordinary_ids(TOKENIZER)


def models_for(objective: Substitution) -> Models:
    torch.manual_seed(0)
    model = scratch_model("tiny", TOKENIZER, "masked")
    policy: Any = ScoredModel(model)
    models = Models(policy, processor=PROCESSOR)
    models.parts = objective.build(models)
    return models


def made(objective: Substitution, models: Models, count: int = 40, step: int = 0) -> list[Sequence]:
    draw = np.random.default_rng(0)
    raw = [Sequence({"input_ids": draw.choice(ORDINARY, 100).astype(np.int32)}) for _ in range(count)]
    return objective.rollout(models, raw, Now(step, 2, places=tuple(range(count))))


def columns(examples: list[Sequence]) -> tuple[np.ndarray, ...]:
    names = ("originals", "input_ids", "labels")
    return tuple(np.concatenate([example.ids[name] for example in examples]) for name in names)


@pytest.mark.parametrize("objective", [MLM(), SLM(), RTS(), RTS(relabel=True), CRTS(clusters=5)])
def test_special_tokens_are_never_drawn_and_a_seventh_of_the_others_is(objective: Substitution) -> None:
    examples = made(objective, models_for(objective))
    before, after, labels = columns(examples)
    for example in examples:
        assert TOKENIZER.convert_ids_to_tokens(example.ids["input_ids"][[0, -1]].tolist()) == ["<|begin|>", "<|end|>"]
    drawn = labels > 0 if isinstance(objective, RTS) else labels != IGNORED
    assert not (drawn & ~np.isin(before, ORDINARY)).any()
    assert (before == after)[~drawn].all()
    assert drawn.sum() / (40 * 100) == pytest.approx(0.15, abs=0.02)
    if not isinstance(objective, RTS):
        assert (labels == before)[drawn].all()
        masked = (after == mask_id(TOKENIZER))[drawn].mean()
        assert masked == (0 if isinstance(objective, SLM) else pytest.approx(0.8, abs=0.05))
    else:
        assert set(labels.tolist()) == {0, 1}, "every token is scored, special ones too"
        assert not np.isin(after, np.setdiff1d(np.arange(len(TOKENIZER)), ORDINARY))[drawn].any()
        if objective.relabel:
            assert (before != after)[drawn].all()


def test_rts_leaves_the_vocabulary_head_alone_and_trains_the_rest() -> None:
    objective = RTS()
    models = models_for(objective)
    batch = objective.collate(made(objective, models, 4), Now(0, 1), "cpu")
    terms = objective.loss(models, batch, Now(0, 1))
    terms["detection"].values.mean().backward()
    idle = {name for name, p in models.policy.model.named_parameters() if p.grad is None}
    assert idle
    assert all(name.startswith("cls.") for name in idle)
    assert models.parts is not None
    assert all(p.grad is not None for p in models.parts.parameters())
    # F1 as it is defined
    said, labels = batch.notes["predictions"], batch.ids["labels"].flatten()
    hits, alarms, misses = ((said == a) & (labels == b) for a, b in ((1, 1), (1, 0), (0, 1)))
    expected = 2 * hits.sum() / (2 * hits.sum() + alarms.sum() + misses.sum())
    per: Any = terms["f1"].per
    torch.testing.assert_close(terms["f1"].values.sum() / per.sum(), expected)


@pytest.mark.parametrize("only_changed", [False, True])
def test_counts_rise_where_the_detector_was_wrong_however_the_step_was_cut(only_changed: bool) -> None:
    objective = CRTS(clusters=5, only_changed=only_changed)
    found = []
    for parts in (1, 4):
        models = models_for(objective)
        examples = made(objective, models, 8)
        batches = []
        for part in np.array_split(np.arange(8), parts):
            batch = objective.collate([examples[i] for i in part], Now(0, 1), "cpu")
            objective.loss(models, batch, Now(0, 1))
            batches.append(batch)
        objective.after_step(models, batches, Now(0, 1))
        assert models.parts is not None
        counts, clusters = (dict(models.parts.named_buffers())[name].numpy() for name in ("counts", "clusters"))
        found.append(counts.copy())
    assert (found[0] == found[1]).all()
    # Token by token, the definition.
    said = torch.cat([batch.notes["predictions"] for batch in batches]).tolist()
    expected = np.ones((5, 5), int)
    for before, after, label, prediction in zip(*columns(examples), said, strict=True):
        source, target = clusters[before], clusters[after]
        if source >= 0 and not (only_changed and before == after):
            expected[source, target] += 1 if prediction != label else -1
    assert (found[0] == expected).all()


def test_the_counts_feed_back_into_the_corruption() -> None:
    objective = CRTS(clusters=4, beta=30.0)
    models = models_for(objective)
    assert models.parts is not None
    buffers = dict(models.parts.named_buffers())
    buffers["counts"][:, 2] = 9  # all clusters are fooled by the third
    _, after, labels = columns(made(objective, models))
    chosen = labels == 1
    assert (buffers["clusters"].numpy()[after[chosen]] == 2).all()
    assert cluster_probabilities(buffers["counts"].numpy(), 30.0)[:, 2].min() > 0.99


def test_clusters_may_come_from_a_file(tmp_path) -> None:
    assignment = np.arange(len(TOKENIZER)) % 3
    np.savetxt(tmp_path / "clusters.txt", assignment, fmt="%d")
    np.save(tmp_path / "clusters.npy", assignment)
    for name in ("clusters.txt", "clusters.npy"):
        models = models_for(CRTS(cluster_file=tmp_path / name))
        assert models.parts is not None
        found = dict(models.parts.named_buffers())
        assert found["counts"].shape == (3, 3)
        assert (found["clusters"].numpy()[ORDINARY] == assignment[ORDINARY]).all()
        assert (np.delete(found["clusters"].numpy(), ORDINARY) == -1).all()
    np.save(tmp_path / "short.npy", assignment[:-1])
    (tmp_path / "words.txt").write_text("no number\n")
    for name, message in (("short.npy", "one for each token"), ("words.txt", "no list"), ("none.npy", "cannot read")):
        with pytest.raises(DataError, match=message):
            models_for(CRTS(cluster_file=tmp_path / name))
    with pytest.raises(UsageError, match="choose fewer"):
        models_for(CRTS(clusters=1000))


def test_a_detector_goes_with_the_checkpoint(tmp_path) -> None:
    objective = CRTS(clusters=5)
    models = models_for(objective)
    objective.export(models, tmp_path)
    saved = load_file(tmp_path / "detector.safetensors")
    assert models.parts is not None
    assert saved.keys() == models.parts.state_dict().keys()
    assert {"counts", "clusters"} < saved.keys()


def test_what_cannot_work_says_what_to_do() -> None:
    plain = Processor(train_tokenizer(["the cat"], 300), 64)
    row = LanguageModeling("the cat sat")
    with pytest.raises(ModelError, match=r"no mask token.*slm and rts"):
        MLM(length=16).encode(row, plain)
    assert SLM(length=16).encode(row, plain)
    with pytest.raises(UsageError, match="set --length 510"):
        MLM(length=512).encode(row, PROCESSOR)
    with pytest.raises(UsageError, match="probability"):
        replace(MLM(), probability=1.0)
    with pytest.raises(UsageError, match="sum to 1"):
        MLM(mix=(0.5, 0.1, 0.1))
