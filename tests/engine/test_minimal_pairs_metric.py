"""Held-out minimal pairs decide a comparison: which rows are pairs, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from teloi.data.read import Rows
from teloi.engine.compare import split
from teloi.engine.config import CompareConfig
from teloi.engine.fit import as_base
from teloi.engine.metrics import Evaluator
from teloi.errors import DataError, RowError
from teloi.measure.minimal_pairs import causal_scores
from tests.engine.conftest import tiny_model, tiny_processor

PAIRS = [
    {"paradigm": "agreement", "good": "the cat sat", "bad": "the cat sit", "field": "morphology"},
    {"paradigm": "agreement", "good": "a cat sat on the mat", "bad": "a cat sat on on mat"},
    {"paradigm": "order", "good": "the mat", "bad": "mat the"},
]


def evaluator(rows: list[dict[str, str]]) -> Evaluator:
    base = as_base(tiny_model(), tiny_processor().tokenizer, layout="packed")
    return Evaluator(base, Rows(rows, "pairs"), prompts=8, max_new_tokens=4, micro_tokens=64)


def test_a_share_of_each_paradigm_and_their_mean() -> None:
    measuring = evaluator(PAIRS)
    assert [metric.name for metric in measuring.metrics("auto")] == ["minimal_pairs"]
    measured = measuring.measure(measuring.start)
    good, bad = (
        causal_scores(measuring.start, tiny_processor(), [row[side] for row in PAIRS]) for side in ("good", "bad")
    )
    correct = (good > bad).astype(float)
    assert measured.items["minimal_pairs"] == correct.tolist()
    assert measured.metrics["minimal_pairs"] == pytest.approx(np.mean([correct[:2].mean(), correct[2]]))


def test_equal_sentences_are_no_pair_that_a_model_gets_right() -> None:
    measuring = evaluator([{"good": "the cat", "bad": "the cat"}])
    assert measuring.measure(measuring.start).metrics["minimal_pairs"] == 0


def test_a_side_that_is_missing_is_named() -> None:
    with pytest.raises(RowError, match="'bad' is empty"):
        evaluator([PAIRS[0], {"good": "the cat", "bad": " "}])


def test_a_set_of_one_part_may_be_held_out_but_not_from_itself(tmp_path: Path) -> None:
    for name in ("corpus", "pairs"):
        (tmp_path / name).mkdir()
    (tmp_path / "corpus" / "train.txt").write_text("the cat\n\nsat on\n\nthe mat\n")
    (tmp_path / "pairs" / "pairs.csv").write_text("good,bad\nthe cat sat,the cat sit\n")
    corpus, pairs = str(tmp_path / "corpus"), str(tmp_path / "pairs")
    rows, held_out = split(CompareConfig(data=corpus, eval_data=pairs))
    assert (len(rows), [row["bad"] for row in held_out]) == (3, ["the cat sit"])
    with pytest.raises(DataError, match="no split 'test'"):
        split(CompareConfig(data=corpus, eval_data=corpus))
