"""Held-out minimal pairs decide a comparison: which rows are pairs, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from teloi.data.formats import MinimalPair
from teloi.data.scoring import Scoring
from teloi.engine.config import CompareConfig
from teloi.engine.evaluator import Evaluator, Subject
from teloi.engine.fit import as_base
from teloi.engine.held_out import HeldOut, read_data
from teloi.errors import DataError, RowError
from teloi.measure.minimal_pairs import causal_scores
from teloi.models.roles import LanguageModel
from tests.engine.conftest import tiny_model, tiny_processor

PAIRS = [
    {"paradigm": "agreement", "good": "the cat sat", "bad": "the cat sit", "field": "morphology"},
    {"paradigm": "agreement", "good": "a cat sat on the mat", "bad": "a cat sat on on mat"},
    {"paradigm": "order", "good": "the mat", "bad": "mat the"},
]


CAUSAL = (Scoring("causal"),)


def evaluator(rows: list[dict[str, str]]) -> tuple[Evaluator, Subject]:
    base = as_base(tiny_model(), tiny_processor().tokenizer, layout="packed")
    pairs = [MinimalPair.parse(row) for row in rows]
    subject = Subject(LanguageModel(base.model, "packed"), base.processor, CAUSAL)
    return Evaluator(HeldOut(pairs=pairs), {"causal": base}, CompareConfig()), subject


def test_a_share_of_each_paradigm_and_their_mean() -> None:
    measuring, subject = evaluator(PAIRS)
    assert [metric.name for metric in measuring.metrics("auto", [CAUSAL])] == ["minimal_pairs"]
    measured = measuring.measure(subject)
    good, bad = (
        causal_scores(subject.model, tiny_processor(), [row[side] for row in PAIRS]) for side in ("good", "bad")
    )
    correct = (good > bad).astype(float)
    assert measured.items["minimal_pairs"] == correct.tolist()
    assert measured.metrics["minimal_pairs"] == pytest.approx(np.mean([correct[:2].mean(), correct[2]]))


def test_equal_sentences_are_no_pair_that_a_model_gets_right() -> None:
    measuring, subject = evaluator([{"good": "the cat", "bad": "the cat"}])
    assert measuring.measure(subject).metrics["minimal_pairs"] == 0


def test_a_side_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("the cat\n\nsat on\n")
    (tmp_path / "pairs.csv").write_text("good,bad\nthe cat sat,the cat sit\nthe cat, \n")
    with pytest.raises(RowError, match=r"pairs.csv row 3: column 'bad' is empty"):
        read_data(CompareConfig(data=str(tmp_path / "corpus.txt"), eval_data=(str(tmp_path / "pairs.csv"),)))


def test_a_set_of_one_part_may_be_held_out_but_not_from_itself(tmp_path: Path) -> None:
    for name in ("corpus", "pairs"):
        (tmp_path / name).mkdir()
    (tmp_path / "corpus" / "train.txt").write_text("the cat\n\nsat on\n\nthe mat\n")
    (tmp_path / "pairs" / "pairs.csv").write_text("good,bad\nthe cat sat,the cat sit\n")
    corpus, pairs = str(tmp_path / "corpus"), str(tmp_path / "pairs")
    rows, held_out = read_data(CompareConfig(data=corpus, eval_data=(pairs,)))
    assert (len(rows), [pair.bad for pair in held_out.pairs]) == (3, ["the cat sit"])
    with pytest.raises(DataError, match="no split 'test'"):
        read_data(CompareConfig(data=corpus, eval_data=(corpus,)))


def test_few_pairs_of_many_are_of_all_paradigms(tmp_path: Path) -> None:
    rows = [f"the cat {n},cat the {n},{n // 10}" for n in range(50)]
    (tmp_path / "corpus.txt").write_text("the cat\n\nsat on\n")
    (tmp_path / "pairs.csv").write_text("\n".join(["good,bad,paradigm", *rows]))
    config = CompareConfig(data=str(tmp_path / "corpus.txt"), eval_data=(str(tmp_path / "pairs.csv"),), eval_limit=5)
    assert [pair.paradigm for pair in read_data(config)[1].pairs] == ["0", "1", "2", "3", "4"]
