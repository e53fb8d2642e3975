"""Segments by character and the tokens that end them: the rules' examples, and what holds for any text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.data.segmentation import (
    DENSITIES,
    LEAST_WORDS,
    Density,
    ending_token,
    segments,
    sentences,
    subsentences,
)
from teloi.errors import UsageError
from teloi.models.scratch import train_tokenizer

# Words with marks and stops behind them, and more white space than one blank between them.
words = st.text("ab1é", min_size=1, max_size=4)
pieces = st.tuples(words, st.sampled_from(["", "", "", ",", ";", "!", "?", ".", "..."]))
blanks = st.sampled_from([" ", " ", " ", "  ", "\n", "\t ", "\n\n"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    drawn = draw(st.lists(st.tuples(pieces, blanks), max_size=40))
    return draw(st.sampled_from(["", " "])) + "".join(word + mark + blank for (word, mark), blank in drawn)


def cut(text: str, density: Density) -> list[str]:
    return [text[start:end] for start, end in segments(text, density)]


def test_double_spaces_trailing_spaces_and_a_cut_sentence() -> None:
    text = "  It rained.  Did it?\nYes, version 2.5 said so! And th  "
    assert cut(text, "sentence") == ["It rained.", "Did it?", "Yes, version 2.5 said so!", "And th"]
    assert cut(text, "whole") == [text]
    text = "One two  three four five,  six seven eight nine ten, eleven twelve."
    assert cut(text, "sub-sentence") == ["One two  three four five,", "six seven eight nine ten, eleven twelve."]


def test_short_parts_join_what_stands_before_them() -> None:
    first = "a, b c d e f g."  # too short to end behind its first word
    assert cut(first, "sub-sentence") == [first]
    # "f, g," would be a part of two words: it joins the first, and the last begins anew.
    assert cut("a b c d e, f g, h i j k l m.", "sub-sentence") == ["a b c d e, f g,", "h i j k l m."]
    assert cut("a b c d e, f g h i.", "sub-sentence") == ["a b c d e, f g h i."]  # too few words are left


def test_a_text_without_words() -> None:
    for text in ("", "  \n"):
        assert [len(segments(text, density)) for density in ("sub-sentence", "sentence", "whole")] == [0, 0, 1]


def test_a_density_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="a density is sub-sentence, sentence, whole, not 'word'"):
        segments("a b", "word")  # type: ignore[arg-type]
    assert DENSITIES == ("sub-sentence", "sentence", "whole")


@given(texts())
def test_segments_hold_every_word_once_and_in_order(text: str) -> None:
    for density in ("sub-sentence", "sentence"):
        spans = segments(text, density)
        assert [word for start, end in spans for word in text[start:end].split()] == text.split()
        assert all(one[1] <= other[0] for one, other in pairwise(spans))
        assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)


@given(texts())
def test_parts_of_a_sentence_are_long_enough(text: str) -> None:
    for start, end in sentences(text):
        inside = [(a, b) for a, b in subsentences(text) if start <= a and b <= end]
        assert inside[0][0] == start
        assert inside[-1][1] == end
        if len(inside) > 1:
            assert min(len(text[a:b].split()) for a, b in inside) >= LEAST_WORDS


TOKENIZER = train_tokenizer(["abb, a1b é éa. bab ab1; aé! ab? é1"] * 3, 275)


def decode(ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(ids), skip_special_tokens=True))


@given(texts(), st.data())
def test_the_token_that_ends_a_segment(text: str, data: st.DataObject) -> None:
    """However the text was cut into tokens, and where its tokens were cut off amid a word or a character."""
    ids: list[int] = []
    at = 0
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        ids += TOKENIZER(text[at : at + size])["input_ids"]
        at += size
    ids = ids[: data.draw(st.integers(1, max(len(ids), 1)))]
    if data.draw(st.booleans()):
        ids.append(TOKENIZER.eos_token_id)
    said = decode(ids)
    for density in ("sub-sentence", "sentence"):
        ends = [end for _, end in segments(said, density)]
        found = [ending_token(said, end, ids, decode) for end in ends]
        assert found == sorted(found)
        for end, token in zip(ends, found, strict=True):
            assert decode(ids[: token + 1]).startswith(said[:end])
            assert not decode(ids[:token]).startswith(said[:end])


def test_an_end_behind_the_text_is_the_last_token() -> None:
    ids = [*TOKENIZER("ab. a")["input_ids"], TOKENIZER.eos_token_id]
    assert ending_token(decode(ids), 99, ids, decode) == len(ids) - 1
    assert ending_token("", 0, ids[-1:], decode) == 0
