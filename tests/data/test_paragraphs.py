"""Pairs from documents: labels are what they say, texts do not overlap, lengths do not tell."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.paragraphs import LEAST_WORDS, Task, draw_pairs, sentences
from teloi.errors import DataError

TASKS = get_args(Task)


def corpus(shape: list[list[int]]) -> list[list[tuple[str, ...]]]:
    """Documents whose sentences say where they stand: "d0p1s2."."""
    return [
        [tuple(f"d{d}p{p}s{s}." for s in range(count)) for p, count in enumerate(paragraphs)]
        for d, paragraphs in enumerate(shape)
    ]


def places(text: str) -> list[tuple[int, int, int]]:
    """Document, paragraph and sentence of each sentence of a text."""
    return [
        (int(word.split("p")[0][1:]), int(word.split("p")[1].split("s")[0]), int(word.rstrip(".").split("s")[1]))
        for word in text.split()
    ]


shapes = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=2, max_size=5)


@given(shapes, st.sampled_from(TASKS), st.integers(0, 2), st.integers(0, 2), st.integers(0, 9))
def test_every_pair_is_what_its_label_says(shape: list[list[int]], task: Task, hard: int, easy: int, seed: int) -> None:
    least = 1 if task == "psd" else 2
    usable = [document for document in shape if sum(count >= least for count in document) > 1]
    if len(usable) < 2:
        return
    drawn = draw_pairs(corpus(shape), task, np.random.default_rng(seed), hard, easy)
    assert drawn.skipped == len(shape) - len(usable)
    kinds = Counter(pair.negative for pair in drawn.pairs)
    anchors = sum(count >= least for document in usable for count in document)
    assert kinds[None] == anchors
    assert kinds["easy"] == easy * anchors
    assert kinds["hard"] == (0 if task == "psd" else hard * anchors)
    for pair in drawn.pairs:
        first, second = places(pair.first), places(pair.second)
        assert pair.label == (pair.negative is None)
        assert not set(first) & set(second)
        assert len({place[:2] for place in first}) == len({place[:2] for place in second}) == 1
        same_document, same_paragraph = (first[0][:n] == second[0][:n] for n in (1, 2))
        if task == "psd":
            assert same_document == (pair.label == 1)
            assert not same_paragraph
        else:
            assert same_paragraph == (pair.label == 1)
            assert same_document == (pair.negative != "easy")
            assert len(first) == 1
        # Of a paragraph, all of it (psd), one sentence (ssp), or all but one, in their order (sp).
        count = shape[second[0][0]][second[0][1]]
        assert len(second) == {"psd": count, "ssp": 1, "sp": count - 1}[task]
        assert second == sorted(second)


@pytest.mark.parametrize("task", TASKS)
def test_the_second_text_alone_does_not_tell(task: Task) -> None:
    """Each paragraph is met as often in pairs that belong together as in each kind that does not."""
    shape = [[2] * 3, [2] * 6, [2] * 12, [2] * 12]
    counts: dict[object, Counter[int]] = {}
    for seed in range(300):
        for pair in draw_pairs(corpus(shape), task, np.random.default_rng(seed)).pairs:
            counts.setdefault(pair.negative, Counter())[places(pair.second)[0][0]] += 1
    for found in counts.values():
        share = [found[d] / sum(found.values()) for d in range(4)]
        np.testing.assert_allclose(share, [3 / 33, 6 / 33, 12 / 33, 12 / 33], atol=0.04)


def test_the_draw_belongs_to_the_generator() -> None:
    documents = corpus([[3, 3], [2, 4]])
    one, same, other = (draw_pairs(documents, "ssp", np.random.default_rng(seed)).pairs for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_nothing_to_draw_from() -> None:
    with pytest.raises(DataError, match="1 of 2 documents have two paragraphs of at least two sentences"):
        draw_pairs(corpus([[2, 2], [2, 1]]), "ssp", np.random.default_rng(0))
    assert draw_pairs(corpus([[2, 2], [2, 1]]), "ssp", np.random.default_rng(0), easy=0).skipped == 1
    with pytest.raises(DataError, match="0 of 1 documents"):
        draw_pairs(corpus([[5]]), "psd", np.random.default_rng(0))


def test_sentences() -> None:
    text = 'The Loire is long. "It rises in the south," he said. (So it does indeed.) In the U.S. Congress sat! Why so?'
    assert sentences(text) == (
        "The Loire is long.",
        '"It rises in the south," he said.',
        "(So it does indeed.)",
        "In the U.S. Congress sat! Why so?",
    )
    assert sentences("one and no end") == ("one and no end",)
    assert sentences("  ") == ()


@given(st.text("ab .!?\"'(A", max_size=60))
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(len(sentence.split()) >= LEAST_WORDS for sentence in found[:-1])
