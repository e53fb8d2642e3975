"""What an objective says of how its models score a text is what it trains them on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from teloi.data.formats import LanguageModeling, ScoredSegments
from teloi.data.processor import Processor
from teloi.data.scoring import Scoring
from teloi.data.vocabulary import MODES, begin_id, control_ids, end_id
from teloi.methods.pretrain.clm import CLM
from teloi.methods.pretrain.denoise import UL2, PrefixLM, SpanCorruption
from teloi.methods.pretrain.gpt_bert import GPTBERT
from teloi.methods.pretrain.human_preferences import ConditionalLM, FilteredLM
from teloi.methods.pretrain.substitution import MLM, RTS, SLM
from teloi.models.scratch import train_tokenizer

TEXT = "the cat sat on the mat"


def processor(architecture: str = "causal") -> Processor:
    return Processor(train_tokenizer([TEXT], 400, architecture), 256)


def test_a_text_is_trained_behind_the_begin_token_that_it_is_scored_behind() -> None:
    made = processor()
    (tree,) = CLM().encode(LanguageModeling(TEXT), made)
    (scoring,) = CLM().scorings(made)
    assert scoring == Scoring("causal", (begin_id(made.tokenizer),))
    assert tuple(tree.prompt.tolist()) == scoring.front
    assert tree.branches[0].ids.tolist() == [*made.bare_ids(TEXT), end_id(made.tokenizer)]
    assert (tree.branches[0].weights == 1).all()


def test_the_begin_token_of_a_chat_model_opens_turns_not_texts() -> None:
    made = processor()
    made.tokenizer.chat_template = "{% for m in messages %}{{ bos_token }}{{ m['content'] }}{% endfor %}"
    (tree,) = CLM().encode(LanguageModeling(TEXT), made)
    assert CLM().scorings(made) == (Scoring("causal"),)
    assert tree.prompt.tolist() == made.bare_ids(TEXT)[:1]


def test_documents_of_scored_segments_begin_with_the_end_token_and_the_control_token() -> None:
    made = processor()
    row = ScoredSegments(("the cat ", "sat"), (0.1, 0.9))
    end = end_id(made.tokenizer)
    assert FilteredLM().scorings(made) == (Scoring("causal", (end,), 128),)
    conditional = ConditionalLM(length=16, threshold=0.5, drop=0.0)
    (block,) = conditional.prepare(conditional.encode(row, made), 0)
    (scoring,) = conditional.scorings(made)
    begins = [*block.prompt.tolist(), *block.branches[0].ids.tolist()]
    assert scoring.front == (end, control_ids(made.tokenizer)[0]) == tuple(begins[:2])


@pytest.mark.parametrize(
    ("objective", "kinds"),
    [
        (GPTBERT(), ["causal", "masked"]),
        (GPTBERT(ratio=0, masked_rows=0), ["causal"]),
        (GPTBERT(ratio=1, masked_rows=1), ["masked"]),
    ],
)
def test_a_decoder_of_both_ways_is_scored_in_those_it_was_trained_in(objective: GPTBERT, kinds: list[str]) -> None:
    made = processor()
    found = objective.scorings(made)
    assert [one.kind for one in found] == kinds
    rows = objective.prepare(objective.encode(LanguageModeling(TEXT * 40), made), 0)
    assert {one.length for one in found} == {max(int(row.columns["lengths"].max()) for row in rows)}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (MLM(length=32), [Scoring("masked", length=32)]),
        (SLM(), []),
        (MLM(mix=(0.0, 1.0, 0.0)), []),
        (RTS(), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_trained_mask_is_asked(objective: Any, expected: list[Scoring]) -> None:
    assert list(objective.scorings(processor("masked"))) == expected


def test_an_encoder_decoder_is_asked_behind_its_modes_and_only_for_what_was_split_anywhere() -> None:
    made = processor("seq2seq")
    r, _, s = (made.tokenizer.get_vocab()[mode] for mode in MODES)
    assert SpanCorruption().scorings(made) == (Scoring("gaps", (), 128),)
    assert PrefixLM().scorings(made) == (Scoring("prefix", (), 128),)
    assert PrefixLM(s_split=0.5).scorings(made) == ()
    assert UL2().scorings(made) == (Scoring("gaps", (r,), 128),)
    assert UL2(s_split="uniform").scorings(made) == (Scoring("gaps", (r,), 128), Scoring("prefix", (s,), 128))
    assert np.isin([r, s], made.tokenizer.all_special_ids).all()
