"""Code becomes inputs and targets of three tasks, each in its share, and a step's loss is the sum of their means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from teloi.batch.sequence import IGNORED, Sequence
from teloi.data.formats import LanguageModeling
from teloi.data.processor import Processor
from teloi.data.vocabulary import CLM, given_ids, sentinel_ids, word_begins
from teloi.engine.objective import Now
from teloi.engine.step import Step
from teloi.errors import ModelError, UsageError
from teloi.methods.pretrain.unimodal import TASKS, CodeT5PUnimodal
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel

CODE = "def double(values):\n    made = []\n    for value in values:\n        made.append(2 * value)\n    return made\n"
PROCESSOR = Processor(train_tokenizer([CODE] * 9, 420, "seq2seq"), 256)
TOKENIZER = PROCESSOR.tokenizer
END = int(TOKENIZER.eos_token_id)
(START,) = given_ids(TOKENIZER, (CLM,))


def rolled(objective: CodeT5PUnimodal, texts: list[str], step: int = 5, total: int = 10) -> tuple[list[Any], list[Any]]:
    raw = [piece for text in texts for piece in objective.encode(LanguageModeling(text), PROCESSOR)]
    models = Models(None, processor=PROCESSOR)  # type: ignore[arg-type]  # the corruption asks no model
    return raw, objective.rollout(models, raw, Now(step, total, places=tuple(range(len(raw)))))


def of_task(objective: CodeT5PUnimodal, task: str) -> list[tuple[list[int], list[int], list[int]]]:
    raw, made = rolled(objective, [CODE] * 60)
    return [
        tuple(ids.tolist() for ids in (before.ids["input_ids"], after.ids["input_ids"], after.ids["targets"]))
        for before, after in zip(raw, made, strict=True)
        if TASKS[after.columns["task"]] == task
    ]


def test_denoising_masks_whole_words_and_can_be_undone() -> None:
    sentinels = sentinel_ids(TOKENIZER).tolist()
    seen = of_task(CodeT5PUnimodal(), "denoise")
    assert len({tuple(target) for _, _, target in seen}) > len(seen) / 2, "drawn anew for each row"
    begins = word_begins(TOKENIZER)
    for ids, inputs, target in seen:
        assert inputs[-1] == target[-1] == ids[-1] == END
        spans: dict[int, list[int]] = {}
        for token in target[:-1]:
            if token in sentinels:
                spans[token] = []
            else:
                spans[list(spans)[-1]].append(token)
        assert list(spans) == sentinels[: len(spans)]
        whole: list[int] = []
        for token in inputs[:-1]:
            if token in spans:
                assert not whole or begins[spans[token][0]], "a span begins where a word does"
                assert sum(begins[spans[token][1:]]) <= 4
                whole += spans[token]
            else:
                whole.append(token)
        assert whole == ids[:-1]


def test_a_prefix_is_continued_from_anywhere_between_a_tenth_and_nine_tenths() -> None:
    seen = of_task(CodeT5PUnimodal(shares=(1, 4, 1)), "seq2seq")
    shares = []
    for ids, inputs, target in seen:
        assert inputs[0] == START
        assert inputs[1:] + target == ids
        shares.append((len(inputs) - 1) / len(ids))
    assert 0.08 < min(shares) < 0.3 < 0.7 < max(shares) < 0.92


def test_without_a_prefix_the_decoder_writes_everything() -> None:
    for ids, inputs, target in of_task(CodeT5PUnimodal(), "decoder"):
        assert inputs == [START]
        assert target == ids


def test_every_stretch_of_places_has_each_tasks_share() -> None:
    objective = CodeT5PUnimodal(shares=(2, 1, 1), denoise_first=0.2)
    for step in range(10):
        counts = np.bincount([objective.task(Now(step, 10, places=(p,)), 0) for p in range(32)], minlength=3)
        assert counts.tolist() == [32, 0, 0] if step < 2 else np.abs(counts - [16, 8, 8]).max() <= 2
    few = [objective.task(Now(step, 10, places=(0,)), 0) for step in range(2, 10)]
    assert set(few) == {0, 1, 2}, "steps of one row see every task in time"


def test_the_loss_is_the_weighted_sum_of_the_means_of_its_tasks() -> None:
    objective = CodeT5PUnimodal(shares=(2, 1, 1), weights=(1.0, 0.5, 2.0))
    torch.manual_seed(0)
    policy: Any = ScoredModel(scratch_model("tiny", TOKENIZER, "seq2seq"))
    models = Models(policy, processor=PROCESSOR)
    _, made = rolled(objective, [CODE, CODE[:40], CODE[20:], CODE[:70]] * 2)
    batch = objective.collate(made, Now(0, 1), "cpu")
    loss, shares = Step(models, objective).shares(batch, Now(0, 1), batch.counts)
    expected = 0.0
    for weight, name in zip(objective.weights, TASKS, strict=True):
        rows = [row for row in made if TASKS[row.columns["task"]] == name]
        total, tokens = 0.0, 0
        for row in rows:  # each alone, by transformers' own loss
            ids, target = (torch.as_tensor(row.ids[side], dtype=torch.int64)[None] for side in ("input_ids", "targets"))
            with torch.no_grad():
                total += float(policy.model(input_ids=ids, labels=target).loss) * target.shape[1]
            tokens += target.shape[1]
        assert float(shares[f"nll_{name}"]) == pytest.approx(total / tokens, rel=1e-4)
        expected += weight * total / tokens
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert batch.size == sum(row.size for row in made)


def test_a_task_without_rows_is_there_and_says_nothing() -> None:
    objective = CodeT5PUnimodal()
    policy: Any = ScoredModel(scratch_model("tiny", TOKENIZER, "seq2seq"))
    _, made = rolled(objective, [CODE], step=0)
    batch = objective.collate(made, Now(0, 1), "cpu")
    assert (batch["seq2seq"].ids["targets"] == IGNORED).all()
    terms = objective.loss(Models(policy, processor=PROCESSOR), batch, Now(0, 1))
    assert [len(term.values) for term in terms.values()][1:] == [0, 0]
    assert batch.counts["seq2seq"] == batch.counts["decoder"] == 0


def test_long_texts_are_cut_and_costs_are_kept() -> None:
    objective = CodeT5PUnimodal(length=20)
    pieces = objective.encode(LanguageModeling(CODE), PROCESSOR)
    assert np.concatenate([piece.ids["input_ids"] for piece in pieces]).tolist() == [*PROCESSOR.bare_ids(CODE), END]
    assert max(piece.size for piece in pieces) == 20
    for step in range(8):
        raw, made = rolled(objective, [CODE] * 5, step)
        assert all(after.size <= objective.cost(before) for before, after in zip(raw, made, strict=True))


def test_a_model_is_given_a_row_for_the_new_token() -> None:
    tokenizer = train_tokenizer([CODE], 420, "seq2seq")
    model: Any = scratch_model("tiny", tokenizer, "seq2seq")
    before = model.get_input_embeddings().num_embeddings
    objective = CodeT5PUnimodal()
    example = objective.encode(LanguageModeling(CODE), Processor(tokenizer, 256))[0]
    assert int(example.columns["clm"]) == before
    for _ in range(2):  # the second time it is there
        objective.shape(model, example)
        assert model.get_input_embeddings().num_embeddings == before + 1
    assert isinstance(example, Sequence)


def test_what_cannot_work_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="set --length 254"):
        CodeT5PUnimodal(length=255).encode(LanguageModeling(CODE), PROCESSOR)
    with pytest.raises(ModelError, match="no sentinels"):
        CodeT5PUnimodal().encode(LanguageModeling(CODE), Processor(train_tokenizer(["the"], 300), 256))
    for wrong in (
        {"shares": (0.0, 0.0, 0.0)},
        {"weights": (1.0, -1.0, 1.0)},
        {"denoise_first": 1.0},
        {"shares": (0.0, 1.0, 1.0)},
        {"rate": 1.0},
        {"longest": 0},
    ):
        with pytest.raises(UsageError):
            CodeT5PUnimodal(**wrong)
