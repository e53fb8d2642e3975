from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.worlds import tutor
from teloi.worlds.tutor import KINDS, Record, Turn, direct, macro_f1, parse, reference


def turn(kind: str, last: bool = False, tries: int = 0) -> Turn:
    return Turn(kind, tuple(tutor.kind_words(kind)[:5]), 3, last, tries)


some_turns = st.builds(turn, st.sampled_from(KINDS), st.booleans(), st.integers(0, 2))


# The rules of the paper's record, written out once more.
@pytest.mark.parametrize(
    ("kind", "tries", "last", "record"),
    [
        ("wrong", 0, False, "a 1 x CUE topic3"),
        ("wrong", 1, True, "a 1 x CUE topic3"),
        ("wrong", 2, False, "a 2 y TELL topic3"),
        ("wrong", 2, True, "a 2 z TELL topic3"),
        ("right", 0, False, "b 3 y CUE topic3"),
        ("right", 2, True, "b 3 z CUE topic3"),
        ("part", 1, False, "c 4 x CUE topic3"),
        ("part", 2, False, "c 5 y TELL topic3"),
        ("idk", 2, False, "d 6 x CUE topic3"),
        ("unclear", 0, True, "d 6 x CUE topic3"),
        ("off-topic", 2, True, "e 7 x CUE topic3"),
        ("hint", 2, False, "f 8 x CUE topic3"),
        ("solve", 0, False, "f 9 y TELL topic3"),
        ("solve", 0, True, "f 9 z TELL topic3"),
    ],
)
def test_rules(kind: str, tries: int, last: bool, record: str):
    assert str(reference(turn(kind, last, tries))) == record


@given(some_turns)
def test_a_direct_record_tells_unless_the_answer_was_right(one: Turn):
    told = direct(one)
    assert told.evaluation == reference(one).evaluation
    assert (told.says == "TELL") == (one.kind != "right")
    assert told.state in ("z" if one.last else "y")
    if tutor.scaffolds(one):
        assert (reference(one).action, told.action) in {("1", "2"), ("4", "5")}


@given(some_turns)
def test_a_record_is_read_back(one: Turn):
    assert parse(str(reference(one))) == reference(one)
    assert parse(f" {direct(one)} ") == direct(one)


@pytest.mark.parametrize(
    "text", ["", "a 1 x CUE", "a 1 x CUE topic3 topic3", "g 1 x CUE topic3", "a 12 x CUE topic3", "1 a x CUE topic3",
             "a 1 w CUE topic3", "a 1 x TOLD topic3", "a 1 x CUE topic8", "a 1 x CUE 3", "a 1 x CUE topic03"]
)  # fmt: skip
def test_what_is_no_record(text: str):
    assert parse(text) is None


def test_turns_are_a_function_of_the_generator_and_say_what_they_are():
    made = tutor.turns(4000, np.random.default_rng(1))
    assert made == tutor.turns(4000, np.random.default_rng(1))
    assert made[:9] != tutor.turns(9, np.random.default_rng(2))
    known = set(tutor.vocabulary())
    assert len(known) == len(tutor.vocabulary())
    for one in made:
        assert {*one.prompt.split(), *str(reference(one)).split()} <= known
        own = [word for word in one.words if word in tutor.kind_words(one.kind)]
        assert (len(own), len(set(own)), len(one.words)) == (4, 4, 5)
    for values in ([o.kind for o in made], [o.topic for o in made], [o.tries for o in made], [o.last for o in made]):
        counts = np.unique(values, return_counts=True)[1]
        assert counts.std() / counts.mean() < 0.1


def test_words_tell_the_kind():
    """Four of five words are the kind's own: whoever counts them evaluates every turn right."""
    for one in tutor.turns(300, np.random.default_rng(0)):
        votes = [word.rstrip("0123456789") for word in one.words]
        assert max(votes, key=votes.count) == one.kind


def test_scores():
    asked = tutor.turns(200, np.random.default_rng(0))
    right = [reference(one) for one in asked]
    rng = np.random.default_rng(5)
    mixed = [
        None if rng.random() < 0.1 else direct(t) if rng.random() < 0.4 else r
        for t, r in zip(asked, right, strict=True)
    ]
    assert tutor.accuracy(right, asked, lambda r: r.codes) == macro_f1(right, asked, lambda r: r.action) == 1
    same = [m is not None and m.codes == r.codes for m, r in zip(mixed, right, strict=True)]
    assert tutor.accuracy(mixed, asked, lambda r: r.codes) == pytest.approx(np.mean(same))
    true, found = [r.action for r in right], [m.action if m else "" for m in mixed]
    table = {(t, f): 0 for t in set(true) for f in {*found, *true}}
    for pair in zip(true, found, strict=True):
        table[pair] += 1
    scores = []
    for label in set(true):
        recall = table[label, label] / sum(n for (t, _), n in table.items() if t == label)
        precision = table[label, label] / max(1, sum(n for (_, f), n in table.items() if f == label))
        scores.append(0 if recall == 0 else 2 / (1 / recall + 1 / precision))
    assert macro_f1(mixed, asked, lambda r: r.action) == pytest.approx(np.mean(scores))
    nothing: list[Record | None] = [None] * len(asked)
    assert macro_f1(nothing, asked, lambda r: r.action) == 0
