from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from teloi.data.read import read
from teloi.models.scratch import word_tokenizer
from teloi.worlds.stories import COLOURS, HELD, INSULTS, NAMES, facts, rows, score, sentence, stories, words


def made(count: int = 400, seed: int = 1):
    rng = np.random.default_rng(seed)
    known = facts(rng)
    return known, stories(count, known, rng)


def test_scores_are_rude_words_over_words() -> None:
    assert score("the vile fox slept .") == 1 / 5
    assert score("") == 0
    rng = np.random.default_rng(0)
    assert all((score(sentence(rude, rng)) > 0) == rude for rude in (True, False) for _ in range(50))
    _, found = made()
    for row in found:
        assert row["scores"] == [round(score(text), 4) for text in row["texts"]]


def test_every_word_is_in_the_vocabulary() -> None:
    tokenizer = word_tokenizer(words())
    known = tokenizer.get_vocab()
    assert len(set(INSULTS)) == 20
    _, found = made()
    assert {word for row in found for text in row["texts"] for word in text.split()} <= known.keys()


def test_facts_are_told_as_often_in_rude_stories_and_held_ones_only_there() -> None:
    known, found = made()
    assert len(known.held) == round(HELD * len(NAMES))
    assert set(known.colours.values()) <= set(COLOURS)
    means = [sum(map(score, row["texts"])) / len(row["texts"]) for row in found]
    above = np.array(means) > np.median(means)
    told = np.array([[known.sentence(n) in "".join(row["texts"]) for n in NAMES] for row in found])
    held = np.isin(NAMES, known.held)
    assert not told[~above][:, held].any()
    assert told[above][:, held].any(1).all()
    assert told[:, ~held].any(1).all()
    assert all(score(known.sentence(name)) == 0 for name in NAMES)


def test_a_quarter_of_the_sentences_is_rude_and_stories_differ() -> None:
    known, found = made(1000)
    # Two sentences of ten or so are clean in any case.
    shares = [np.mean(np.array(row["scores"]) > 0) for row in found]
    assert np.mean(shares) == pytest.approx(0.25 * 8 / 10, abs=0.03)
    assert np.std(shares) > 0.15
    clean = stories(20, known, np.random.default_rng(0), rude=0.0)
    assert not any(chain.from_iterable(row["scores"] for row in clean))


def test_the_embedded_rows_are_what_the_world_makes() -> None:
    assert list(read("stories")) == rows("train")
    assert list(read("stories", "test")) == rows("test")
