"""A probe reads what is there to be read, and nothing else; states are those of plain transformers calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from teloi.data.processor import Processor
from teloi.data.vocabulary import begin_id, end_id
from teloi.measure.probing import Labels, fit_and_predict, mean_states, probe, vectors
from teloi.models.attention import TREE
from teloi.models.roles import LanguageModel
from teloi.models.scratch import scratch_model, train_tokenizers
from teloi.models.sequences import Classifier, ScoredModel, SentenceEncoder

TEXTS = ["the cat sat on the mat", "a dog", "the dog sat on a log and sat"]
TOKENIZERS = train_tokenizers(TEXTS, 400, ["causal", "masked", "seq2seq", "encoder", "classifier"])


def role_of(architecture: str) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model: Any = scratch_model("tiny", TOKENIZERS[architecture], architecture).eval()
    roles: dict[str, Any] = {"encoder": SentenceEncoder, "classifier": Classifier}
    if architecture == "causal":
        return model, LanguageModel(model, "padded")
    return model, roles.get(architecture, ScoredModel)(model)


@pytest.mark.parametrize("architecture", TOKENIZERS)
def test_states_are_means_over_a_text_alone(architecture: str) -> None:
    model, role = role_of(architecture)
    processor = Processor(TOKENIZERS[architecture])
    body = model.get_encoder() if architecture == "seq2seq" else model.base_model
    expected = []
    for text in TEXTS:
        ids = processor.sentence_ids(processor.bare_ids(text))
        if architecture == "causal":
            ids = [begin_id(processor.tokenizer), *ids]
        elif not processor.sentence_ids([]):
            ids = [*ids, end_id(processor.tokenizer)]
        with torch.no_grad():
            expected.append(body(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0).numpy())
    np.testing.assert_allclose(mean_states(role, processor, TEXTS), np.stack(expected), atol=1e-5)


def test_a_decoder_may_be_read_both_ways() -> None:
    model, _ = role_of("causal")
    processor = Processor(TOKENIZERS["causal"])
    expected = []
    for text in TEXTS:
        ids = [begin_id(processor.tokenizer), *processor.bare_ids(text)]
        everything = torch.zeros(1, 1, len(ids), len(ids))
        with torch.no_grad():
            states = model.base_model(input_ids=torch.tensor([ids]), attention_mask=everything, use_cache=False)
        expected.append(states.last_hidden_state[0].mean(0).numpy())
    model.set_attn_implementation(TREE)
    found = mean_states(LanguageModel(model, "packed"), processor, TEXTS, both_ways=True)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_what_is_linear_is_read_whatever_its_scale_and_noise_is_not() -> None:
    draw = np.random.default_rng(0)
    states = draw.normal(size=(600, 12)) * 10.0 ** draw.integers(-3, 4, 12) + 5
    classes = np.argmax((states - 5) / states.std(0) @ draw.normal(size=(12, 3)), 1)
    said = fit_and_predict(states[:400], classes[:400], states[400:])
    assert (said == classes[400:]).mean() > 0.9
    shuffled = draw.permutation(classes)
    assert (fit_and_predict(states[:400], shuffled[:400], states[400:]) == shuffled[400:]).mean() < 0.5


def test_a_constant_direction_and_a_rare_class_do_no_harm() -> None:
    draw = np.random.default_rng(1)
    states = np.concatenate([draw.normal(size=(50, 3)), np.ones((50, 1))], axis=1)
    classes = (states[:, 0] > 0).astype(int)
    classes[0] = 2
    assert (fit_and_predict(states, classes, states)[1:] == classes[1:]).mean() > 0.9


def test_labels_are_compared_by_name_and_pairs_have_four_parts() -> None:
    _, role = role_of("masked")
    processor = Processor(TOKENIZERS["masked"])
    texts = [f"{word} {n}" for n in range(12) for word in ("the cat", "a dog")]
    labels = Labels(texts, ["c", "d"] * 12)
    assert probe(role, processor, labels, labels).all()
    assert not probe(role, processor, labels, Labels(texts, ["e", "f"] * 12)).any()
    both = vectors(role, processor, Labels(texts, labels.classes, texts[::-1]))
    first, second = (mean_states(role, processor, side) for side in (texts, texts[::-1]))
    np.testing.assert_allclose(both, np.concatenate([first, second, np.abs(first - second), first * second], 1))
