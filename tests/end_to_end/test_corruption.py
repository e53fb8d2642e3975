"""From plain text to a checkpoint that plain transformers loads, for the models that are not causal."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from teloi.catalogue import METHODS
from tests.end_to_end.conftest import WORDS, Teloi, records

CORRUPTING = {
    m.name: m.load().architecture
    for m in METHODS
    if m.stage == "pretrain" and m.reads == "language-modeling" and m.load().architecture in ("masked", "seq2seq")
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(" ".join(draw.choices(WORDS, k=12)) + "." for _ in range(60)))
    return path


@pytest.mark.parametrize("method", CORRUPTING)
def test_a_checkpoint_comes_out(method: str, corpus: Path, train: Teloi, tmp_path: Path):
    out = tmp_path / "out"
    flags = ("--length", 24, "--eval-data", corpus)
    assert train(method, corpus, out, *flags).status == 0
    last = records(out)[-1]
    assert last["step"] == 2
    assert {"loss", "eval_loss"} <= last.keys()
    tokenizer = AutoTokenizer.from_pretrained(out)
    auto = AutoModelForMaskedLM if CORRUPTING[method] == "masked" else AutoModelForSeq2SeqLM
    model, report = auto.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    if CORRUPTING[method] == "masked":
        ids = tokenizer(f"red {tokenizer.mask_token} tree", return_tensors="pt")
        assert model(**ids).logits.shape[-1] == len(tokenizer)
        assert AutoModelForSequenceClassification.from_pretrained(out)(**ids).logits.shape == (1, 2)
    else:
        ids = tokenizer("red <extra_id_0> tree", return_tensors="pt")
        assert tokenizer.convert_tokens_to_ids("<extra_id_0>") in ids["input_ids"]
        assert model.generate(**ids, max_new_tokens=3).shape[0] == 1


@pytest.mark.parametrize(("method", "shown"), [("ul2", "<extra_id_0>"), ("mlm", "<|mask|>["), ("rts", "f1 ")])
def test_a_dry_run_shows_what_is_trained_on(method: str, shown: str, corpus: Path, train: Teloi, tmp_path: Path):
    answer = train(method, corpus, tmp_path / "out", "--length", 24, "--dry-run")
    assert answer.status == 0
    assert not (tmp_path / "out").exists()
    for text in ("example 1", shown, "scored tokens", "% padding", "the run: 2 steps"):
        assert text in answer.out


def test_a_decoder_of_both_ways_comes_out_as_a_causal_model_that_knows_its_mask(
    corpus: Path, train: Teloi, tmp_path: Path
):
    out = tmp_path / "out"
    assert train("gpt-bert", corpus, out, "--length", 24, "--eval-data", corpus).status == 0
    assert {"nll_masked", "nll_causal", "eval_loss"} <= records(out)[-1].keys()
    tokenizer = AutoTokenizer.from_pretrained(out)
    loaded: Any = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    model, report = loaded
    assert not report["missing_keys"]
    ids = tokenizer(f"red {tokenizer.mask_token} tree", return_tensors="pt")["input_ids"]
    assert tokenizer.mask_token_id in ids
    assert model(input_ids=ids).logits.shape[-1] == len(tokenizer)
    assert model.generate(input_ids=ids, max_new_tokens=3).shape[1] > ids.shape[1]
