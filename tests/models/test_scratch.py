"""Models from scratch and their tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from teloi.data.processor import Processor
from teloi.data.vocabulary import ordinary_ids, sentinel_ids
from teloi.errors import DataError, ModelError
from teloi.models.scratch import BEGIN, END, PRESETS, scratch_model, train_tokenizer, word_tokenizer

TEXTS = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 5
TOKENIZER = train_tokenizer(TEXTS, 300)


@given(text=st.text(max_size=60))
@settings(max_examples=200)
def test_any_text_comes_back_unchanged(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    if not any(token in text for token in TOKENIZER.all_special_tokens):
        assert not set(ids) & set(TOKENIZER.all_special_ids), "encoding adds nothing"


def test_merges_are_learned_and_the_size_is_kept() -> None:
    assert len(TOKENIZER) <= 300
    assert len(TOKENIZER("the cat sat")["input_ids"]) <= 4
    assert len({TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id}) == 3


def test_the_same_texts_give_the_same_tokenizer() -> None:
    def written(texts: list[str]) -> str:
        backend: str = train_tokenizer(iter(texts), 300).backend_tokenizer.to_str()
        return json.dumps(json.loads(backend), sort_keys=True)

    assert written(TEXTS) == written(TEXTS)
    assert written(TEXTS) != written([text.upper() for text in TEXTS])


def test_no_text_and_no_room_are_refused() -> None:
    for texts in ([], ["", ""]):
        with pytest.raises(DataError, match="no text"):
            train_tokenizer(texts, 300)
    with pytest.raises(ModelError, match="at least 259"):
        train_tokenizer(TEXTS, 258)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_grow_and_know_their_special_tokens(preset: str) -> None:
    model = scratch_model(preset, TOKENIZER)
    assert model.config.vocab_size == len(TOKENIZER)
    assert model.config.eos_token_id == TOKENIZER.eos_token_id
    count = sum(parameter.numel() for parameter in model.parameters())
    smaller = list(PRESETS)[: list(PRESETS).index(preset)]
    assert all(count > 5 * sum(p.numel() for p in scratch_model(name, TOKENIZER).parameters()) for name in smaller)


def test_a_size_of_its_own() -> None:
    config = scratch_model((32, 4, 2), train_tokenizer(TEXTS, 500, "seq2seq"), "seq2seq").config
    assert (config.d_model, config.num_layers, config.num_decoder_layers, config.num_heads) == (32, 2, 2, 2)


def test_model_and_tokenizer_load_in_plain_transformers(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = scratch_model("tiny", TOKENIZER)
    model.save_pretrained(place)
    TOKENIZER.save_pretrained(place)
    again, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    ids = tokenizer("the cat", return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == TOKENIZER("the cat")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)


def test_a_word_is_a_token() -> None:
    tokenizer = word_tokenizer(["cat", "mat", "=>"])
    assert len(tokenizer) == 3 + 4
    processor = Processor(tokenizer, 16)
    prompt, (completion,) = processor.pair_ids("mat cat =>", [" cat mat"])
    assert tokenizer.convert_ids_to_tokens([*prompt, *completion]) == ["mat", "cat", "=>", "cat", "mat", "<|end|>"]
    assert tokenizer.decode(completion, skip_special_tokens=True) == "cat mat"
    assert tokenizer("dog")["input_ids"] == [tokenizer.unk_token_id]
    for words in (["cat", "cat"], ["a cat"], [""], ["<|end|>"]):
        with pytest.raises(DataError, match="different words"):
            word_tokenizer(words)


def test_a_masked_models_tokenizer_has_a_mask_and_frames_texts() -> None:
    tokenizer = train_tokenizer(TEXTS, 300, "masked")
    one, two = (tokenizer(*texts)["input_ids"] for texts in (["the cat"], ["the cat", "a dog"]))
    assert tokenizer.convert_ids_to_tokens(one)[0] == tokenizer.cls_token == BEGIN
    assert tokenizer.convert_ids_to_tokens(one)[-1] == tokenizer.sep_token == END
    assert two.count(tokenizer.sep_token_id) == 2
    assert tokenizer(f"the{tokenizer.mask_token}")["input_ids"].count(tokenizer.mask_token_id) == 1
    assert tokenizer.decode(one, skip_special_tokens=True) == "the cat"


def test_a_seq2seq_models_tokenizer_has_t5s_sentinels_and_ul2s_modes(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 400, "seq2seq").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    names = [f"<extra_id_{k}>" for k in range(100)] + ["[R]", "[X]", "[S]"]
    ids = [tokenizer(name)["input_ids"] for name in names]
    assert all(len(found) == 1 for found in ids)
    assert {found[0] for found in ids} <= set(tokenizer.all_special_ids)
    assert sentinel_ids(tokenizer).tolist() == [found[0] for found in ids[:100]]
    assert not set(ordinary_ids(tokenizer).tolist()) & set(tokenizer.all_special_ids)
    with pytest.raises(ModelError, match="at least 362"):
        train_tokenizer(TEXTS, 300, "seq2seq")
