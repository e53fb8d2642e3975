"""Vega's fine-tuning: perturbed embeddings, the memory of earlier predictions, pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from teloi.batch.sequence import Sequence as Text
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.data.vocabulary import ordinary_ids
from teloi.engine.config import TrainConfig
from teloi.engine.dataset import encode
from teloi.engine.fit import as_base, fit
from teloi.engine.objective import Now
from teloi.errors import ModelError, UsageError
from teloi.methods.adversarial import Adversarial
from teloi.methods.finetune.classify import Classify
from teloi.methods.finetune.vega import VegaFinetune, pseudo_labels, transductive
from teloi.methods.pretrain.substitution import MLM
from teloi.models.perturb import perturbed
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import Classifier, ScoredModel

WORDS = ["good", "fine", "bad", "poor"]
TOKENIZER = train_tokenizer([" ".join(WORDS)], 300, "classifier")
PROCESSOR = Processor(TOKENIZER, 32)


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    draw = np.random.default_rng(seed)
    made = [
        (str(draw.choice(WORDS[2 * (i % 2) : 2 * (i % 2) + 2])), "pos" if i % 2 == 0 else "neg") for i in range(count)
    ]
    return [{"text": f"{word} {'very ' * int(draw.integers(3))}", "label": label} for word, label in made]


def scratch() -> Any:
    torch.manual_seed(0)
    return scratch_model("tiny", TOKENIZER, "classifier")


def ready(objective: Classify, count: int = 6) -> tuple[Models, list[Any]]:
    examples = list(encode(objective, Rows(rows(count), "rows"), PROCESSOR).examples)
    model = scratch()
    objective.shape(model, examples[0])
    policy: Any = Classifier(model)
    models = Models(policy, processor=PROCESSOR, example=examples[0])
    models.parts = objective.build(models)
    return models, examples


def test_both_switches_off_leave_classify() -> None:
    plain = VegaFinetune(adversarial=0.0, calibration=0.0)
    models, examples = ready(plain)
    batch = plain.collate(examples, Now(1, 2), "cpu")
    terms = plain.loss(models, batch, Now(1, 2))
    expected = Classify().loss(models, batch, Now(1, 2))
    assert terms.keys() == expected.keys()
    torch.testing.assert_close(terms["nll"].values, expected["nll"].values)


def test_a_perturbation_of_nothing_changes_nothing_and_the_model_is_left_as_it_was() -> None:
    model = scratch()
    ids = torch.tensor([PROCESSOR.encoder_inputs("good very bad")["input_ids"]])
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with perturbed(model, torch.zeros(1, ids.shape[1], 64)):
            same = model(input_ids=ids).logits
        with perturbed(model, torch.ones(1, ids.shape[1], 64).cumsum(-1)):
            other = model(input_ids=ids).logits
        torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-3)
        assert not torch.allclose(other, plain, atol=1e-3)
        assert torch.equal(model(input_ids=ids).logits, plain)
    with pytest.raises(ModelError, match="no layer norm"), perturbed(scratch_model("tiny", TOKENIZER), torch.zeros(1)):
        pass


def test_perturbations_do_not_depend_on_padding() -> None:
    objective = VegaFinetune()
    models, examples = ready(objective)
    whole = objective.loss(models, objective.collate(examples, Now(0, 2, places=tuple(range(6))), "cpu"), Now(0, 2))
    alone = [
        objective.loss(models, objective.collate([example], Now(0, 2, places=(i,)), "cpu"), Now(0, 2))["sift"].values
        for i, example in enumerate(examples)
    ]
    torch.testing.assert_close(torch.cat(alone), whole["sift"].values, atol=1e-5, rtol=1e-5)
    assert whole["kl"].values.min() >= 0


def test_the_memory_holds_the_last_prediction_however_a_step_is_cut() -> None:
    objective = VegaFinetune(adversarial=0.0, calibration=0.4)
    models, examples = ready(objective)
    memory: Any = models.parts
    policy: Any = models.policy
    first, last = Now(0, 2), Now(1, 2)
    batches = [objective.collate(part, first, "cpu") for part in (examples[:3], examples[3:5])]
    for batch in batches:
        objective.loss(models, batch, first)
    objective.after_step(models, batches, first)
    whole = objective.collate(examples, last, "cpu")
    with torch.no_grad():
        logits = policy.logits(whole)
    torch.testing.assert_close(memory.said[:5], logits[:5].softmax(-1))
    assert not memory.said[5].any()
    labels = torch.nn.functional.one_hot(whole.columns["label"], 2).float()
    target = torch.cat([0.6 * labels[:5] + 0.4 * logits[:5].softmax(-1), labels[5:]])  # the sixth was not seen
    expected = -(target * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(objective.loss(models, whole, last)["nll"].values, expected)
    held_out = objective.prepare_held_out(Classify().prepare(examples, 0), examples, 0)
    batch = objective.collate(held_out, last, "cpu")
    plain = Classify().loss(models, batch, last)["nll"].values
    torch.testing.assert_close(objective.loss(models, batch, last)["nll"].values, plain)


def test_pseudo_labels_are_the_likeliest_classes_and_no_label_is_read() -> None:
    base = as_base(scratch(), TOKENIZER, "classifier", 32)
    settings = TrainConfig(num_train_epochs=20, learning_rate=2e-3, batch_size=8, seed=0)
    trained = fit(Classify(), base, rows(16), settings).base
    truth = rows(20, seed=1)
    hidden = [{**row, "label": "nonsense"} for row in truth]
    named = pseudo_labels(trained, hidden)
    assert named == truth, "the task is learned"
    assert pseudo_labels(trained, [{"text": row["text"]} for row in truth]) == truth
    few = pseudo_labels(trained, hidden, most=3)
    assert [sum(row["label"] == name for row in few) for name in ("pos", "neg")] == [3, 3]
    assert pseudo_labels(trained, hidden, threshold=1.1) == []
    again = transductive(Classify(), base, rows(16), hidden, settings)
    assert again.ledger.rows == 16 + 20, "one pass over both"


def test_what_cannot_work_is_refused() -> None:
    for wrong in ({"calibration": 1.0}, {"adversarial": -1.0}, {"rate": 0.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            VegaFinetune(**wrong)


@dataclass(frozen=True)
class AdversarialMLM(Adversarial, MLM):
    """Another objective with the add-on, in the three lines that its docstring gives."""

    def outputs(self, models, batch):
        return models.policy.logits(batch)


def test_the_add_on_wraps_another_loss_and_raises_nothing_but_the_divergence() -> None:
    """Of a masked model's predictions too: the loss is MLM's and the divergence's, which an ascent has made larger."""
    processor = Processor(train_tokenizer([" ".join(WORDS)], 300, "masked"), 64)
    torch.manual_seed(0)
    policy: Any = ScoredModel(scratch_model("tiny", processor.tokenizer, "masked"))
    models = Models(policy, processor=processor)
    raw = [Text({"input_ids": ordinary_ids(processor.tokenizer)[:n].astype(np.int32)}) for n in (20, 12)]
    now = Now(0, 2, places=(0, 1))

    def terms(objective: MLM) -> dict[str, Any]:
        return objective.loss(models, objective.collate(objective.rollout(models, raw, now), now, "cpu"), now)

    found, plain = terms(AdversarialMLM(rate=0.1)), terms(MLM())
    torch.testing.assert_close(found["nll"].values, plain["nll"].values)
    assert found["sift"].per == "tokens"
    assert found["sift"].values.shape == plain["nll"].values.shape
    assert found["kl"].values.mean() > 2 * terms(AdversarialMLM(rate=1e-6))["kl"].values.mean()
    assert not any(p.grad is not None for p in policy.model.parameters())
    with torch.no_grad():
        assert terms(AdversarialMLM()).keys() == {"nll"}, "on held-out text only the other's loss"
    with pytest.raises(UsageError, match="probability"):
        AdversarialMLM(probability=2.0)
