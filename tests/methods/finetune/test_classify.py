"""Classification from rows to logits: classes, heads, and what is taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig

from teloi.data.formats import LabelledText
from teloi.data.processor import Processor
from teloi.data.read import Rows
from teloi.engine.config import TrainConfig
from teloi.engine.dataset import encode
from teloi.engine.fit import as_base, fit
from teloi.engine.objective import Now
from teloi.errors import DataError, ModelError, Overlong
from teloi.methods.finetune.classify import Classify, in_order
from teloi.models.load import load_model
from teloi.models.roles import Models
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import Classifier, class_logits, set_classes

WORDS = ["good", "bad", "dull", "film", "plot", "actor", "fine", "poor"]
TOKENIZER = train_tokenizer([" ".join(WORDS)], 300, "classifier")
PROCESSOR = Processor(TOKENIZER, 32)


def rows(labels: list[Any], seed: int = 0) -> Rows:
    draw = np.random.default_rng(seed)
    return Rows(
        [{"text": " ".join(draw.choice(WORDS, 3)), "text_pair": str(draw.choice(WORDS)), "label": x} for x in labels],
        "rows",
    )


def scratch() -> Any:
    torch.manual_seed(0)
    return scratch_model("tiny", TOKENIZER, "classifier")


def test_classes_are_the_labels_of_the_training_rows_and_hold_for_held_out_ones() -> None:
    training = encode(Classify(), rows(["pos", "neg", "pos", "so-so"]), PROCESSOR).examples
    assert [e.classes[e.columns["label"]] for e in training] == ["pos", "neg", "pos", "so-so"]
    assert {e.classes for e in training} == {("neg", "pos", "so-so")}
    held_out = encode(Classify(), rows(["so-so", "pos"]), PROCESSOR, training).examples
    assert [int(e.columns["label"]) for e in held_out] == [2, 1]
    with pytest.raises(DataError, match="'good', which no training row has"):
        encode(Classify(), rows(["pos", "good"]), PROCESSOR, training)
    with pytest.raises(DataError, match="every row has the label 'pos'"):
        encode(Classify(), rows(["pos", "pos"]), PROCESSOR)


def test_numbers_are_in_their_order() -> None:
    assert in_order({"10", "9", "-1"}) == ["-1", "9", "10"]
    assert in_order({"10", "9", "b"}) == ["10", "9", "b"]


def test_a_pair_is_read_as_transformers_writes_it() -> None:
    example = Classify().encode(LabelledText("good film", "1", "bad plot"), PROCESSOR)
    expected = TOKENIZER("good film", "bad plot")
    for name in ("input_ids", "token_type_ids"):
        assert example.ids[name].tolist() == expected[name]
    assert set(example.ids["token_type_ids"].tolist()) == {0, 1}
    assert example.size == len(expected["input_ids"])
    long = LabelledText("good " * 40, "1", "bad plot")
    with pytest.raises(Overlong):
        Classify().encode(long, PROCESSOR)
    cut = Classify().encode(long, Processor(TOKENIZER, 32, "truncate"))
    assert cut.size == 32
    assert "bad plot" in TOKENIZER.decode(cut.ids["input_ids"]), "the longer text is cut"


def test_the_loss_is_that_of_transformers() -> None:
    examples = encode(Classify(), rows([0, 1, 2, 2, 0]), PROCESSOR).examples
    model = scratch()
    Classify().shape(model, examples[0])
    models = Models(Classifier(model), processor=PROCESSOR)  # type: ignore[arg-type]
    batch = Classify().collate(examples, Now(0, 1), "cpu")
    terms = Classify().loss(models, batch, Now(0, 1))
    padded = TOKENIZER.pad({"input_ids": [e.ids["input_ids"].tolist() for e in examples]}, return_tensors="pt")
    types = torch.nn.utils.rnn.pad_sequence([torch.tensor(e.ids["token_type_ids"]) for e in examples], batch_first=True)
    theirs = model(
        input_ids=padded["input_ids"],
        attention_mask=padded["attention_mask"],
        token_type_ids=types,
        labels=torch.tensor([0, 1, 2, 2, 0]),
    )
    torch.testing.assert_close(terms["nll"].values.mean(), theirs.loss)
    accuracy = (theirs.logits.argmax(-1) == torch.tensor([0, 1, 2, 2, 0])).float().mean()
    torch.testing.assert_close(terms["accuracy"].values.mean(), accuracy)


def test_a_head_of_as_many_classes_is_kept_and_another_is_drawn() -> None:
    model = scratch()
    before = model.classifier.weight.clone()
    set_classes(model, ["no", "yes"])
    assert torch.equal(model.classifier.weight, before)
    assert model.config.id2label == {0: "no", 1: "yes"}
    set_classes(model, ["a", "b", "c"])
    assert model.classifier.weight.shape == (3, 64)
    assert model.config.num_labels == 3
    with torch.no_grad():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 3)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "modernbert", "deberta-v2", "xlm-roberta"])
def test_other_encoders_get_their_own_head_and_come_back_whole(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    config = AutoConfig.for_model(kind, vocab_size=len(TOKENIZER), pad_token_id=0, **sizes)
    base = as_base(AutoModelForSequenceClassification.from_config(config), TOKENIZER, "classifier", 32)
    data = rows(["a", "b", "c"] * 4)
    fitted = fit(Classify(), base, data, TrainConfig(batch_size=4, learning_rate=1e-3))
    fitted.base.model.save_pretrained(tmp_path)
    again = load_model(tmp_path, architecture="classifier")
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}
    texts, pairs = ([str(row[name]) for row in data] for name in ("text", "text_pair"))
    ours, theirs = (class_logits(Classifier(m), PROCESSOR, texts, pairs) for m in (fitted.base.model, again))
    assert ours.shape == (12, 3)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_an_encoder_gets_a_head_and_a_decoder_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    masked: Any = scratch_model("tiny", TOKENIZER, "masked")
    masked.save_pretrained(tmp_path / "masked")
    found: Any = load_model(tmp_path / "masked", architecture="classifier")
    for name, weight in masked.bert.named_parameters():
        assert torch.equal(weight, found.bert.get_parameter(name)), name
    assert isinstance(found.config, BertConfig)
    from transformers import LlamaForCausalLM

    small = LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(small).save_pretrained(tmp_path / "causal")
    with pytest.raises(ModelError, match="is no encoder"):
        load_model(tmp_path / "causal", architecture="classifier")


def test_it_learns_which_texts_go_with_which_label() -> None:
    draw = np.random.default_rng(0)
    labels = ["pos" if draw.random() < 0.5 else "neg" for _ in range(200)]
    data = [
        {"text": f"{draw.choice(['film', 'plot'])} {'good' if label == 'pos' else 'bad'}", "label": label}
        for label in labels
    ]
    base = as_base(scratch(), TOKENIZER, "classifier", 32)
    fitted = fit(Classify(), base, data, TrainConfig(batch_size=20, learning_rate=3e-3, num_train_epochs=3))
    logits = class_logits(Classifier(fitted.base.model), PROCESSOR, ["plot good", "plot bad", "film good", "film bad"])
    assert logits.argmax(-1).tolist() == [1, 0, 1, 0]
