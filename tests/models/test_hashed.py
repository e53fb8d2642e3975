"""The encoder of hashed n-grams against fastText's definition, and as a transformers model."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from teloi.batch.sequence import Sequence, SequenceBatch
from teloi.data.processor import Processor
from teloi.errors import ModelError
from teloi.models.features import text_features
from teloi.models.load import load_model, load_tokenizer
from teloi.models.scratch import scratch_model, scratch_tokenizer
from teloi.models.sequences import SentenceEncoder, embed_texts
from teloi.models.zoo.hashed import HashedTokenizer, features

TEXTS = ["An ICU nurse", "a", "welder, 6G (pipes)"]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    torch.manual_seed(0)
    return SentenceEncoder(scratch_model("hashed", HashedTokenizer(500), "encoder"))


def test_features_are_the_word_and_its_parts() -> None:
    assert features("where")[0] == "<where>"
    assert set(features("where")) == {
        "<where>",
        *("<wh", "whe", "her", "ere", "re>"),
        *("<whe", "wher", "here", "ere>"),
        *("<wher", "where", "here>"),
    }
    assert features("a") == ("<a>",)
    assert len(features("is")) == len(set(features("is"))) == 3


def test_a_text_is_the_mean_of_its_features(encoder) -> None:
    """By definition, text by text; also with padding, and by the states of the ordinary forward pass."""
    table = encoder.model.get_input_embeddings().weight.detach()
    assert float(table.std()) == pytest.approx(0.1, rel=0.05)
    found = embed_texts(encoder, Processor(HashedTokenizer(500), 999), TEXTS)
    for text, vector in zip(["an icu nurse", "a", "welder 6g pipes"], found, strict=True):
        ids = [1 + zlib.crc32(f.encode()) % 499 for word in text.split() for f in features(word)]
        np.testing.assert_allclose(vector, table[ids].mean(0), atol=1e-6)
    rows = [Sequence({"input_ids": np.asarray(HashedTokenizer(500)(t)["input_ids"], np.int32)}) for t in TEXTS]
    batch = SequenceBatch(rows)
    states = encoder.model(batch.ids["input_ids"], batch.mask["input_ids"]).last_hidden_state
    mask = batch.mask["input_ids"][..., None]
    torch.testing.assert_close((states * mask).sum(1) / mask.sum(1), encoder.embed(batch))


def test_it_loads_like_any_other(encoder, tmp_path) -> None:
    encoder.model.save_pretrained(tmp_path)
    HashedTokenizer(500).save_pretrained(tmp_path)
    model, tokenizer = load_model(tmp_path, architecture="encoder"), load_tokenizer(tmp_path)
    assert tokenizer("An ICU nurse")["input_ids"] == HashedTokenizer(500)("An ICU nurse")["input_ids"]
    again = embed_texts(SentenceEncoder(model), Processor(tokenizer, 999), TEXTS)
    np.testing.assert_array_equal(again, embed_texts(encoder, Processor(HashedTokenizer(500), 999), TEXTS))


def test_it_is_no_language_model() -> None:
    tokenizer = scratch_tokenizer("hashed", [])
    assert len(tokenizer) == 30_000
    with pytest.raises(ModelError, match="scratch:hashed is an encoder"):
        scratch_model("hashed", tokenizer, "causal")


def test_fixed_features_of_texts() -> None:
    made = text_features("hashed")
    one, other, far = made("move the red block left"), made("push the red block leftwards"), made("a green cube")
    np.testing.assert_array_equal(one, made("Move the red block left!"))
    for vector in (one, other, far):
        assert np.square(vector).mean() == pytest.approx(1, rel=1e-5)
    assert one @ other > one @ far
    assert not made("").any()
