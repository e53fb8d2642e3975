"""Bits of a text against plain transformers calls, one a token where the way of reading asks for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from teloi.data.processor import Processor
from teloi.data.scoring import Scoring
from teloi.data.vocabulary import begin_id, end_id, sentinel_ids
from teloi.measure.likelihood import bits_per_character, pseudo_bits, text_scores
from teloi.models.roles import LanguageModel
from teloi.models.scratch import scratch_model, train_tokenizers
from teloi.models.sequences import ScoredModel

TEXTS = ["the cat sat on the mat, and the dog on a log", "a dog", "the dog sat on a log and sat"]
TOKENIZERS = train_tokenizers(TEXTS, 400, ["causal", "masked", "seq2seq"])
PROCESSORS = {name: Processor(tokenizer, 64) for name, tokenizer in TOKENIZERS.items()}
IDS = [PROCESSORS["causal"].bare_ids(text) for text in TEXTS]


def model(architecture: str) -> Any:
    torch.manual_seed(0)
    return scratch_model("tiny", TOKENIZERS[architecture], architecture).eval()


def logps(model: Any, target: list[int], **inputs: Any) -> list[float]:
    """Log-probability of each target at its position."""
    with torch.no_grad():
        found = model(**{name: torch.tensor([ids]) for name, ids in inputs.items()}).logits[0].log_softmax(-1)
    return [float(found[at, token]) for at, token in enumerate(target)]


def test_one_vocabulary_for_all() -> None:
    for name, tokenizer in TOKENIZERS.items():
        assert [PROCESSORS[name].bare_ids(text) for text in TEXTS] == IDS
        assert len(tokenizer) == len(TOKENIZERS["causal"])
    one, other = train_tokenizers(TEXTS, 400, ["causal", "masked"]).values()
    one.add_tokens(["<|new|>"], special_tokens=True)
    assert len(other) == len(one) - 1


def test_a_causal_text_is_scored_in_blocks_behind_its_front() -> None:
    policy, begin = model("causal"), begin_id(TOKENIZERS["causal"])
    expected = []
    for ids in IDS:
        total = 0.0
        before: list[int] = []
        for start in range(0, len(ids), 6):
            block = ids[start : start + 6]
            read = [begin, *before, *block]
            total += sum(logps(policy, read[1:], input_ids=read[:-1])[len(before) :])
            before = block[-1:]
        expected.append(total)
    scoring = Scoring("causal", (begin,), 6)
    role = LanguageModel(policy, "padded")
    np.testing.assert_allclose(text_scores(role, PROCESSORS["causal"], IDS, scoring), expected, rtol=1e-5)
    bits = bits_per_character(role, PROCESSORS["causal"], TEXTS, scoring)
    assert bits == pytest.approx(-sum(expected) / math.log(2) / sum(map(len, TEXTS)), rel=1e-5)


def test_without_a_front_the_first_token_is_read_only() -> None:
    policy = model("causal")
    expected = [sum(logps(policy, ids[1:], input_ids=ids[:-1])) for ids in IDS]
    role = LanguageModel(policy, "padded")
    np.testing.assert_allclose(text_scores(role, PROCESSORS["causal"], IDS, Scoring("causal")), expected, rtol=1e-5)
    characters = sum(
        len(text) - len(PROCESSORS["causal"].decode(ids[:1])) for text, ids in zip(TEXTS, IDS, strict=True)
    )
    bits = bits_per_character(role, PROCESSORS["causal"], TEXTS, Scoring("causal"))
    assert bits == pytest.approx(-sum(expected) / math.log(2) / characters, rel=1e-5)


def test_a_prefix_model_writes_halves_of_a_segment_given_the_half_before() -> None:
    policy, tokenizer = model("seq2seq"), TOKENIZERS["seq2seq"]
    mode, end, start = tokenizer.get_vocab()["[S]"], end_id(tokenizer), policy.config.decoder_start_token_id
    expected = []
    for ids in IDS:
        total = 0.0
        for at in range(1, len(ids), 4):
            head, tail = ids[max(0, at - 4) : at], ids[at : at + 4]
            total += sum(logps(policy, tail, input_ids=[mode, *head, end], decoder_input_ids=[start, *tail[:-1]]))
        expected.append(total)
    found = text_scores(ScoredModel(policy), PROCESSORS["seq2seq"], IDS, Scoring("prefix", (mode,), 8))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_gap_is_read_behind_its_sentinel() -> None:
    policy, tokenizer = model("seq2seq"), TOKENIZERS["seq2seq"]
    mode, end, start = tokenizer.get_vocab()["[R]"], end_id(tokenizer), policy.config.decoder_start_token_id
    sentinel = int(sentinel_ids(tokenizer)[0])
    expected = []
    for ids in IDS:
        total = 0.0
        for at, token in enumerate(ids):
            read = [mode, *ids[:at], sentinel, *ids[at + 1 :], end]
            total += logps(policy, [sentinel, token], input_ids=read, decoder_input_ids=[start, sentinel])[1]
        expected.append(total)
    found = text_scores(ScoredModel(policy), PROCESSORS["seq2seq"], IDS, Scoring("gaps", (mode,)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pseudo_bits_of_all_tokens_are_those_of_the_texts_and_of_some_an_estimate() -> None:
    role, processor = ScoredModel(model("masked")), PROCESSORS["masked"]
    scoring = Scoring("masked", length=5)
    total = text_scores(role, processor, IDS, scoring).sum()
    bits = pseudo_bits(role, processor, TEXTS, scoring, samples=10_000)
    assert len(bits) == sum(map(len, IDS))
    assert bits.mean() == pytest.approx(-total / math.log(2) / sum(map(len, TEXTS)), rel=1e-5)
    some = pseudo_bits(role, processor, TEXTS, scoring, samples=7)
    assert len(some) == 7
    assert np.isin(np.round(some, 4), np.round(bits, 4)).all()
