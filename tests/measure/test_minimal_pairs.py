"""Scores of sentences, one forward pass a token, and what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from teloi.data.processor import Processor
from teloi.data.vocabulary import begin_id, given_mask_id
from teloi.measure.minimal_pairs import by_paradigm, causal_scores, fused_scores, masked_scores, right
from teloi.models.attention import TREE
from teloi.models.roles import LanguageModel
from teloi.models.scratch import scratch_model, train_tokenizer
from teloi.models.sequences import ScoredModel

TEXTS = ["the cat sat on the mat", "a dog", "the dog sat on a log and sat", "x"]


def decoder() -> tuple[Any, Processor]:
    tokenizer = train_tokenizer(TEXTS, 300)
    given_mask_id(tokenizer)
    torch.manual_seed(0)
    return scratch_model("tiny", tokenizer).eval(), Processor(tokenizer)


def packed(model: Any) -> LanguageModel:
    model.set_attn_implementation(TREE)
    return LanguageModel(model, "packed")


def test_the_causal_score_is_the_sum_behind_the_begin_token() -> None:
    model, processor = decoder()
    expected = []
    for text in TEXTS:
        ids = [begin_id(processor.tokenizer), *processor.bare_ids(text)]
        with torch.no_grad():
            logps = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(sum(float(logps[t, ids[t + 1]]) for t in range(len(ids) - 1)))
    np.testing.assert_allclose(causal_scores(packed(model), processor, TEXTS), expected, rtol=1e-5)


def test_a_decoder_is_read_one_position_before_the_mask() -> None:
    model, processor = decoder()
    mask, begin = given_mask_id(processor.tokenizer), begin_id(processor.tokenizer)
    expected = []
    for text in TEXTS:
        ids = [begin, *processor.bare_ids(text)]
        everything = torch.zeros(1, 1, len(ids), len(ids))
        total = 0.0
        for place in range(1, len(ids)):
            read = [*ids[:place], mask, *ids[place + 1 :]]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([read]), attention_mask=everything, use_cache=False).logits[0]
            total += float(logits[place - 1].log_softmax(-1)[ids[place]])
        expected.append(total)
    causal = causal_scores(LanguageModel(model, "padded"), processor, TEXTS)
    policy = packed(model)
    np.testing.assert_allclose(masked_scores(policy, processor, TEXTS), expected, rtol=1e-5)
    np.testing.assert_allclose(fused_scores(policy, processor, TEXTS), causal + expected, rtol=1e-5)


def test_a_masked_model_is_read_at_the_mask() -> None:
    tokenizer = train_tokenizer(TEXTS, 300, "masked")
    processor = Processor(tokenizer)
    torch.manual_seed(0)
    model = scratch_model("tiny", tokenizer, "masked").eval()
    expected = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        total = 0.0
        for place in range(1, len(ids) - 1):
            read = [*ids[:place], tokenizer.mask_token_id, *ids[place + 1 :]]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([read])).logits[0]
            total += float(logits[place].log_softmax(-1)[ids[place]])
        expected.append(total)
    np.testing.assert_allclose(masked_scores(ScoredModel(model), processor, TEXTS), expected, rtol=1e-5)


def test_ties_are_wrong_and_paradigms_count_alike() -> None:
    correct = right([-1.0, -2.0, -3.0, -1.0], [-2.0, -2.0, -2.5, -9.0])
    assert correct.tolist() == [True, False, False, True]
    means = by_paradigm(correct, ["b", "b", "b", "a"])
    assert means == {"b": pytest.approx(1 / 3), "a": 1.0}
    assert list(means) == ["b", "a"]
    with pytest.raises(ValueError, match="not a number"):
        right([float("nan")], [0.0])
