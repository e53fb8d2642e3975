"""SALT: stage 2 is clm, stage 1 is the definition, texts are selected by what an early teacher can learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from teloi.batch.tree import Branch, Tree, TreeBatch
from teloi.data.formats import LanguageModeling
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.engine.config import TrainConfig
from teloi.engine.fit import as_base, fit
from teloi.engine.objective import Now
from teloi.errors import ModelError, UsageError
from teloi.methods.pretrain.clm import CLM
from teloi.methods.pretrain.salt import PARTNER, SALT, _as_wide, scores
from teloi.models.roles import LanguageModel, Models
from teloi.models.scratch import scratch_model, word_tokenizer

WORDS = [chr(ord("a") + i) for i in range(20)]
TOKENIZER = word_tokenizer(WORDS)
ROWS = Rows([{"text": " ".join(np.random.default_rng(i).choice(WORDS, 6 + i % 3))} for i in range(24)], "rows")


def model(seed: int, width: int = 32) -> Any:
    torch.manual_seed(seed)
    return scratch_model((width, 1, 4), TOKENIZER)


def sure() -> Any:
    """A small teacher that is far from uniform."""
    made = model(1, 16).eval()
    made.get_input_embeddings().weight.data *= 50
    return made


def saved(path: Path) -> str:
    """That teacher's directory."""
    sure().save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return str(path)


def trees() -> list[Tree]:
    processor = Processor(TOKENIZER, 64)
    return [tree for row in ROWS for tree in CLM().encode(LanguageModeling(row["text"]), processor)]


def test_stage_two_is_clm_bit_by_bit(tmp_path: Path) -> None:
    base = as_base(model(0), TOKENIZER, max_length=64, layout="padded")
    config = TrainConfig(batch_size=8, budget="4 steps", learning_rate=1e-2)
    teacher = saved(tmp_path / "teacher")
    plain = fit(CLM(), base, ROWS, config)
    never = fit(SALT(teacher=teacher, stage=0.0), base, ROWS, config)
    half = fit(SALT(teacher=teacher, stage=0.5), base, ROWS, config)
    assert list(never.records) == list(plain.records)
    assert ["distillation" in record for record in half.records] == [True, True, False, False]
    weights = [list(fitted.base.model.parameters()) for fitted in (plain, never, half)]
    assert all(torch.equal(a, b) for a, b in zip(weights[0], weights[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_the_teacher_stays_as_it_is_and_is_pulled_towards(tmp_path: Path) -> None:
    base = as_base(model(0), TOKENIZER, max_length=64, layout="padded")
    teacher = saved(tmp_path / "teacher")
    config = TrainConfig(batch_size=24, budget="30 steps", learning_rate=1e-2, lr_scheduler_type="constant")
    fitted = fit(SALT(teacher=teacher, stage=1.0, weight=1.0, temperature=1.0), base, ROWS, config)
    assert fitted.models.teacher is not None
    taught = fitted.models.teacher.model
    assert not taught.training
    assert all(torch.equal(a, b) for a, b in zip(taught.parameters(), sure().parameters(), strict=True))
    assert fitted.records[-1]["kl"] < fitted.records[0]["kl"] / 2


def test_stage_one_is_the_mixture_on_the_logits_of_the_plain_models() -> None:
    policy, teacher = model(0), sure()
    models = Models(LanguageModel(policy, "padded"), teacher=LanguageModel(teacher, "padded"))
    example = trees()[0]
    batch, objective = TreeBatch([example]), SALT(weight=0.3, temperature=0.5, stage=0.5)
    found = objective.loss(models, batch, Now(1, 4))
    ids = torch.tensor([[*example.prompt, *example.branches[0].ids]], dtype=torch.int64)
    said, taught = policy(ids).logits[0, :-1], teacher(ids).logits[0, :-1]
    labels = (taught / 0.5).softmax(-1)
    for name, weight, expected in (
        ("nll", 0.7, cross_entropy(said, ids[0, 1:])),
        ("distillation", 0.3, cross_entropy(said, labels)),
        ("kl", 0.0, torch.nn.functional.kl_div(said.log_softmax(-1), labels, reduction="batchmean")),
    ):
        assert found[name].weight == pytest.approx(weight)
        torch.testing.assert_close(found[name].values.mean(), expected)
    gradient = torch.autograd.grad(found["distillation"].values.sum(), list(teacher.parameters()), allow_unused=True)
    assert all(g is None for g in gradient)
    assert found["nll"].values.requires_grad
    assert set(objective.loss(models, batch, Now(2, 4))) == {"nll"}


@pytest.mark.parametrize("width", [3, 6])
def test_a_padded_table_of_either_model_does_no_harm(width: int) -> None:
    wide = _as_wide(torch.tensor([[1.0, 2.0, 3.0, 9.0]]), width).softmax(-1)
    kept = torch.tensor([1.0, 2.0, 3.0, 9.0])[:width].softmax(-1)
    torch.testing.assert_close(wide[0, : len(kept)], kept)
    assert not wide[0, len(kept) :].any()


def test_scores_are_medians_whatever_the_batch() -> None:
    examples = trees()
    judge = sure()
    found = scores(LanguageModel(judge, "padded"), examples, 3)
    for example, score in zip(examples, found.tolist(), strict=True):
        ids = torch.tensor([[*example.prompt, *example.branches[0].ids]], dtype=torch.int64)
        logits = judge(ids).logits[0, :-1].detach()
        hard = [
            -float(row.log_softmax(-1)[t]) if t in row.topk(3).indices else 0.0
            for row, t in zip(logits, ids[0, 1:], strict=True)
        ]
        assert score == pytest.approx(float(np.median(hard)), abs=1e-5)


def test_texts_that_are_not_selected_give_way_to_selected_ones_while_distilling(tmp_path: Path) -> None:
    objective = SALT(teacher="none", scorer=saved(tmp_path), selected=0.25, k=15, stage=0.5)
    examples = trees()
    found = scores(LanguageModel(sure(), "padded"), examples, 15)
    best = set(np.argsort(-found.numpy(), kind="stable")[:6].tolist())
    paired = list(objective.prepare(examples, 0))
    assert {i for i, example in enumerate(paired) if PARTNER not in example.columns} == best
    texts = [(*e.prompt.tolist(), *e.branches[0].ids.tolist()) for e in examples]
    models: Any = None
    first = objective.rollout(models, paired, Now(0, 4))
    shown = [(*e.prompt.tolist(), *e.branches[0].ids.tolist()) for e in first]
    chosen = [texts[i] for i in sorted(best)]
    assert sorted(shown) == sorted(chosen * 4), "each as often as the others"
    assert max(len(text) for text in shown) <= max(map(objective.cost, paired))
    second = objective.rollout(models, paired, Now(2, 4))
    assert [e.branches[0].ids.tolist() for e in second] == [e.branches[0].ids.tolist() for e in examples]
    assert not any(PARTNER in example.columns for example in (*first, *second))
    assert objective.prepare_held_out(examples, paired, 0) == examples


def test_a_teacher_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    other = word_tokenizer([*WORDS, "z"])
    path = tmp_path / "other"
    scratch_model((16, 1, 4), other).save_pretrained(path)
    other.save_pretrained(path)
    base = as_base(model(0), TOKENIZER, max_length=64, layout="padded")
    for objective in (SALT(teacher=str(path)), SALT(teacher=saved(tmp_path / "right"), scorer=str(path))):
        with pytest.raises(ModelError, match=r"another vocabulary \(25 tokens\) than the model that is trained \(24\)"):
            fit(objective, base, ROWS, TrainConfig(max_steps=1))


@pytest.mark.parametrize(
    "settings", [{"weight": 1.5}, {"stage": -0.1}, {"selected": 0.0}, {"temperature": 0.0}, {"k": 0}]
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SALT(**settings)


def test_a_partner_has_the_form_of_any_text() -> None:
    example = Tree(np.array([1], np.int32), (Branch.scored([2, 3]),), {PARTNER: np.array([4, 5, 6, 7], np.int32)})
    assert SALT().cost(example) == 4
    (made,) = SALT(stage=1.0).rollout(None, [example], Now(0, 2))  # type: ignore[arg-type]  # models are not asked
    assert (made.prompt.tolist(), made.branches[0].ids.tolist()) == ([4], [5, 6, 7])
