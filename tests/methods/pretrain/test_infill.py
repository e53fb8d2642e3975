"""Infilling and E2S2 from text to loss: what the two views are, what is scored, and what a step's terms add up to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from teloi import losses
from teloi.batch.sequence import IGNORED, Sequence
from teloi.data.formats import LanguageModeling
from teloi.data.processor import Processor
from teloi.data.vocabulary import gap_id, ordinary_ids, sentinel_ids, word_begins
from teloi.engine.objective import Now
from teloi.engine.step import Step
from teloi.errors import ModelError, UsageError
from teloi.methods.pretrain.infill import E2S2, Infilling
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel

PROCESSOR = Processor(train_tokenizer(["the cat sat on the mat"] * 9, 400, "seq2seq"), 256)
TOKENIZER = PROCESSOR.tokenizer
END, GAP = TOKENIZER.eos_token_id, int(sentinel_ids(TOKENIZER)[0])
WORDS = np.flatnonzero(word_begins(TOKENIZER)[ordinary_ids(TOKENIZER)])
NOW = Now(0, 2, places=(0, 1, 2, 3))


def models_for(objective: Infilling) -> Models:
    torch.manual_seed(0)
    policy: Any = ScoredModel(scratch_model("tiny", TOKENIZER, "seq2seq"))
    models = Models(policy, processor=PROCESSOR)
    models.parts = objective.build(models)
    return models


def made(objective: Infilling, lengths: tuple[int, ...] = (60, 40, 60, 25)) -> list[Sequence]:
    draw = np.random.default_rng(0)
    raw = [Sequence({"input_ids": draw.choice(ordinary_ids(TOKENIZER), n).astype(np.int32)}) for n in lengths]
    return list(objective.rollout(models_for(objective), raw, NOW))


def test_words_begin_behind_a_blank() -> None:
    ids = PROCESSOR.bare_ids("the cat")
    assert word_begins(TOKENIZER)[ids].tolist().count(True) == 1
    assert word_begins(TOKENIZER)[END]


@pytest.mark.parametrize("mean_span", [3.0, 0.3])
def test_the_decoder_writes_the_whole_text_and_the_encoder_reads_no_more_of_it(mean_span: float) -> None:
    for example in made(Infilling(rate=0.3, mean_span=mean_span)):
        masked, target = (example.ids[name].tolist() for name in ("input_ids", "targets"))
        assert masked[-1] == target[-1] == END
        assert len(masked) <= len(target)
        assert GAP in masked
        rest = iter(target)
        assert all(token in rest for token in masked if token != GAP), "what is kept stays in order"


def test_a_view_with_noise_lies_over_the_other() -> None:
    """Labels are what can be seen: where nothing was done nothing changed, shuffled tokens are those of the text."""
    seen = np.zeros(3, int)
    for step in range(20):
        draw = np.random.default_rng(step)
        raw = [Sequence({"input_ids": draw.choice(ordinary_ids(TOKENIZER)[WORDS], 60).astype(np.int32)})]
        objective = E2S2(shuffle=0.1, replace=0.1)
        masked, noised = objective.rollout(models_for(objective), raw, Now(step, 20, places=(0,)))
        assert [bool(row.columns["noised"]) for row in (masked, noised)] == [False, True]
        assert (masked.ids["targets"] == noised.ids["targets"]).all()
        assert not masked.ids["noise"].any()
        before, after, labels = masked.ids["input_ids"], noised.ids["input_ids"], noised.ids["noise"]
        assert (before == after)[labels == 0].all()
        assert (before != after)[labels == 1].all()
        assert labels[~np.isin(before, ordinary_ids(TOKENIZER))].sum() == 0, "masks and ends stay"
        assert set(after[labels == 1]) <= set(before)
        seen += np.bincount(labels, minlength=3)
    assert (seen > 0).all()


def test_the_terms_of_a_step_are_those_of_the_paper() -> None:
    """Against the sums written out over the two views, each in a batch of its own."""
    objective = E2S2(noise_weight=0.3, contrast_weight=0.7, temperature=0.2, replace=0.2)
    models, rows = models_for(objective), made(E2S2(replace=0.2))
    batch = objective.collate(rows, NOW, "cpu")
    step = Step(models, objective)
    loss, _ = step.shares(batch, NOW, batch.counts)

    policy: Any = models.policy
    parts: Any = models.parts
    views = [objective.collate(rows[start::2], NOW, "cpu") for start in (0, 1)]
    tokens = int((views[0].ids["targets"] != IGNORED).sum())
    nll = [-policy.logps(view).sum() / tokens for view in views]
    states = [policy.encoded(view) for view in views]
    real = views[1].mask["input_ids"]
    noise: Tensor = torch.zeros(())
    for row, labels, own in zip(states[1], views[1].ids["noise"], real, strict=True):
        for state, label, there in zip(row, labels, own, strict=True):
            if there:
                noise = noise - parts["noise"](state).log_softmax(-1)[label]
    z = torch.nn.functional.normalize(torch.cat([losses.mean_pool(state, real) for state in states]), dim=1)
    n = len(rows) // 2
    similar = z @ z.T / 0.2
    similar.fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * n).roll(n)
    contrast = torch.nn.functional.cross_entropy(similar, partner)
    expected = (nll[0] + nll[1]) / 2 + 0.3 * noise / tokens + 0.7 * contrast
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing_and_one_text_has_no_contrast() -> None:
    objective = E2S2()
    models, rows = models_for(objective), made(objective)
    values = []
    for some in (rows[6:], [*rows[6:], *rows[:2]]):  # the short one alone, and padded
        terms = objective.loss(models, objective.collate(some, NOW, "cpu"), NOW)
        values.append({name: term.values for name, term in terms.items()})
    assert values[0]["contrast"].tolist() == [0.0]
    count = len(values[0]["noise"])
    torch.testing.assert_close(values[1]["noise"][:count], values[0]["noise"])
    assert values[1]["contrast"].min() > 0


def test_weights_of_zero_leave_infilling() -> None:
    plain = E2S2(noise_weight=0.0, contrast_weight=0.0, shuffle=0.0, replace=0.0)
    models = models_for(plain)
    batch = plain.collate(made(plain), NOW, "cpu")
    loss, _ = Step(models, plain).shares(batch, NOW, batch.counts)
    single = Infilling().collate(made(Infilling()), NOW, "cpu")
    expected, _ = Step(models, Infilling()).shares(single, NOW, single.counts)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert models.parts is not None
    assert all(p.grad is None for p in models.parts.parameters())


def test_what_cannot_work_says_what_to_do() -> None:
    row = LanguageModeling("the cat sat")
    with pytest.raises(ModelError, match="no sentinels"):
        Infilling(length=16).encode(row, Processor(train_tokenizer(["the cat"], 300), 64))
    with pytest.raises(UsageError, match="set --length 255"):
        Infilling(length=256).encode(row, PROCESSOR)
    for wrong in ({"rate": 1.0}, {"mean_span": 0.0}, {"shuffle": 1.0}, {"replace": -0.1}, {"temperature": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            E2S2(**wrong)  # type: ignore[arg-type]
    masked = Processor(train_tokenizer(["the cat"], 300, "masked"), 64)
    assert gap_id(masked.tokenizer) == masked.tokenizer.mask_token_id
