from __future__ import annotations

import re

import numpy as np

from teloi.worlds import word_problems
from teloi.worlds.verifiers import gsm8k


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_a_problem_as_it_is_told():
    one = word_problems.Problem("kim", 5, (("blicks", 1, 3), ("dorps", -1, 2)))
    assert one.prompt() == "kim has 5 . she blicks 3 . she dorps 2 . how many ?"
    assert one.worked() == "5 + 3 = 8 . 8 - 2 = 6 . #### 6"
    assert one.worked((1, 0)) == "5 + 3 = 8 . so that is clear . 8 - 2 = 6 . #### 6"
    assert one.row()["ground_truth"] == "6"


def test_answers_are_right_and_numbers_in_range():
    signs = word_problems.signs(rng())
    assert sorted(signs.values()) == [-1] * 8 + [1] * 8
    known = set(word_problems.words())
    for one in word_problems.problems(300, signs, rng()):
        assert gsm8k(one.worked((1, 2)), str(one.answer))
        assert all(sign == signs[verb] for verb, sign, _ in one.steps)
        assert {*one.prompt().split(), *one.worked((1, 2)).split()} <= known
        assert all(0 <= int(n) <= word_problems.MOST for n in re.findall(r"\d+", one.worked()))
    for text in word_problems.equations(300, rng()):
        for a, sign, b, c in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", text):
            assert int(a) + int(b) * (1 if sign == "+" else -1) == int(c)
        assert set(text.split()) <= known


def test_problems_differ_from_each_other_and_from_those_without():
    signs = word_problems.signs(rng())
    first = [one.prompt() for one in word_problems.problems(200, signs, rng())]
    second = [one.prompt() for one in word_problems.problems(200, signs, rng(), first)]
    assert len({*first, *second}) == 400
    assert first == [one.prompt() for one in word_problems.problems(200, signs, rng())]
