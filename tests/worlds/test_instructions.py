"""The rules of checkable instructions, from their definitions: cases by hand, and replies built to pass or to fail."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.errors import DataError
from teloi.worlds.instructions import KINDS, check, describe, request, satisfied, sentences, words

# (check, replies that satisfy it, replies that do not)
CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"kind": "lowercase"}, ["cats purr.", "über 3 cats", "42"], ["Cats purr.", "cats puRr", "...!", "", "   "]),
    ({"kind": "uppercase"}, ["CATS PURR.", "ÜBER 3 CATS", "42"], ["CATS Purr.", "straße", "?!"]),
    (
        {"kind": "bullets", "count": 2},
        ["- one\n- two", "Here:\n* one\n\n  • two\nDone.", "- one\n- two\n-three"],
        ["- one", "- one\n- two\n- three", "1. one\n2. two", "-\n- two", "- ...\n- ...", "a - b\nc - d"],
    ),
    (
        {"kind": "numbered", "count": 2},
        ["1. one\n2. two", "Sure:\n1) one\n  2) two\n"],
        ["1. one", "1. one\n2. two\n3. three", "2. one\n1. two", "1. one\n1. two", "1.one\n2.two", "1. \n2. two"],
    ),
    (
        {"kind": "sentences", "count": 2},
        ["One. Two!", "Is it? Yes, it is", "She said “no.” Then she left.", "One...\nTwo", "It costs 3.50. Fine."],
        ["One.", "One. Two. Three.", "One, two", "e.g. this. And that."],
    ),
    ({"kind": "sentences", "count": 1}, ["Only one.", "no mark at all", "Wow!!!"], ["One. Two.", "...", "a\nb"]),
    ({"kind": "question"}, ["Why?", "Is it (really)?"], ["Why. Why?", "Why? Yes.", "Why", "?"]),
    ({"kind": "quoted"}, ['"Yes."', "“Yes”", '  "a" and "b"  '], ['"Yes', 'Yes"', "'Yes'", '""', 'He said "yes".']),
    ({"kind": "max_words", "count": 3}, ["one two three", "well-known don't three", "1, 2, 3!"], ["one two and four"]),
    ({"kind": "min_words", "count": 3}, ["one two three", "a b c d"], ["one two", "well-known don't", "- - - -"]),
    ({"kind": "starts_with", "word": "The"}, ["The cat", "the cat", '- "The" cat'], ["A cat", "Then", "these"]),
    ({"kind": "ends_with", "word": "now"}, ["Do it now", "NOW!!", 'say "now".'], ["Now we go", "just-now"]),
    ({"kind": "contains", "word": "warm"}, ["So Warm.", "warm-up? no: warm"], ["warmer", "lukewarm", "warm-up"]),
    ({"kind": "avoids", "word": "is"}, ["This isn't", "his"], ["It is.", "IS it?", ""]),
    ({"kind": "avoids_letter", "letter": "b"}, ["cat", "123"], ["Bird", "cab", "."]),
    ({"kind": "no_commas"}, ["one and two", "a; b"], ["one, two", ","]),
]  # fmt: skip

plain_words = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=6), min_size=1, max_size=12)


def id_of(case: Any) -> str:
    return "-".join(map(str, case[0].values()))


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_rules_by_hand(case: Any) -> None:
    wanted, satisfying, failing = case
    assert [reply for reply in satisfying if not check(wanted, reply)] == []
    assert [reply for reply in failing if check(wanted, reply)] == []


def test_every_kind_has_a_case() -> None:
    assert {case[0]["kind"] for case in CASES} == set(KINDS)


@pytest.mark.parametrize("case", CASES, ids=id_of)
@given(space=st.text(" \n\t", max_size=3))
def test_outer_white_space_never_counts(case: Any, space: str) -> None:
    wanted, satisfying, failing = case
    for reply in satisfying + failing:
        assert check(wanted, space + reply + space) == check(wanted, reply)


@given(parts=plain_words)
def test_words_come_back_from_any_punctuation(parts: list[str]) -> None:
    assert words("... " + ", ".join(parts) + "!") == parts
    assert words(" ".join(parts).upper()) == parts


@given(
    parts=st.lists(st.tuples(plain_words, st.sampled_from([".", "!", "?", "...", '."', "?!"])), min_size=1, max_size=5)
)
def test_sentences_built_are_sentences_found(parts: list[tuple[list[str], str]]) -> None:
    built = [" ".join(part) + mark for part, mark in parts]
    assert sentences(" ".join(built)) == built
    assert sentences("\n".join(built)) == built


@given(points=st.lists(plain_words, min_size=1, max_size=6), mark=st.sampled_from(["- ", "* ", "• ", "  - "]))
def test_lists_built_are_lists_found(points: list[list[str]], mark: str) -> None:
    lines = [" ".join(point) for point in points]
    bullets = "\n".join(mark + line for line in lines)
    numbers = "\n".join(f"{i}. {line}" for i, line in enumerate(lines, start=1))
    for count in range(1, 8):
        assert check({"kind": "bullets", "count": count}, bullets) == (count == len(points))
        assert check({"kind": "numbered", "count": count}, numbers) == (count == len(points))
        assert not check({"kind": "bullets", "count": count}, numbers)


@given(parts=plain_words, count=st.integers(0, 13))
def test_word_limits_meet(parts: list[str], count: int) -> None:
    reply = " ".join(parts)
    assert check({"kind": "max_words", "count": count}, reply) == (len(parts) <= count)
    assert check({"kind": "min_words", "count": count}, reply) == (len(parts) >= count)


@given(parts=plain_words, word=st.text(string.ascii_lowercase, min_size=1, max_size=3))
def test_a_word_is_there_or_it_is_not(parts: list[str], word: str) -> None:
    reply = " ".join(parts)
    assert check({"kind": "contains", "word": word}, reply) == (word in parts)
    assert check({"kind": "avoids", "word": word}, reply) != check({"kind": "contains", "word": word}, reply)


@given(reply=st.text(max_size=80))
def test_any_reply_can_be_checked(reply: str) -> None:
    for wanted, _, _ in CASES:
        assert check(wanted, reply) in (True, False)


def test_a_row_needs_all_its_checks() -> None:
    row = {"checks": [{"kind": "no_commas"}, {"kind": "max_words", "count": 2, "word": None}]}
    assert satisfied(row, "yes indeed")
    assert not satisfied(row, "yes, indeed")
    assert not satisfied(row, "yes indeed so")


def test_checks_in_words() -> None:
    assert describe({"kind": "bullets", "count": 3}) == "exactly 3 bullet points"
    assert describe({"kind": "sentences", "count": 1}) == "exactly one sentence"
    assert describe({"kind": "ends_with", "word": "today"}) == 'ends with the word "today"'
    assert request({"kind": "bullets", "count": 2}, 0) == "Answer with 2 short bullet points like this:\n- ...\n- ..."
    assert request({"kind": "no_commas"}, 4, also=True) == "Do not use commas."


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "rhyme"}, "no check of kind 'rhyme': there are lowercase"),
        ({}, "no check of kind None"),
        ({"kind": "bullets"}, "takes count, not no arguments"),
        ({"kind": "no_commas", "count": 3}, "takes no arguments, not count"),
        ({"kind": "contains", "letter": "b"}, "takes word, not letter"),
    ],
)
def test_an_unknown_check_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(wrong, "a reply")
