from __future__ import annotations

import numpy as np
import pytest

from teloi.worlds import digits


def test_a_response_by_hand() -> None:
    prompt, response = "6", "7 0 1 1 5 6 5 5 3"
    assert digits.successors(prompt, response).tolist() == [True, True, True, False, False, True, False, False, False]
    assert digits.good(prompt, response).tolist() == [
        True,
        False,
        False,
        False,
        False,
        False,
    ]  # what is not said is bad
    assert digits.distinct(response).tolist() == [False] * 6
    assert digits.distinct("7 0 1 2 3 3").tolist() == [True] + [False] * 5
    assert digits.counting([prompt], [response]) == [pytest.approx(8 * 4 / 40)]
    assert digits.counting([prompt], [""]) == [0.0]
    assert digits.counting_by_segment([prompt], [response])[0][:2] == [(3, 0.5), (7, -0.5)]
    assert digits.counting_in_all([prompt], [response]) == [0.5 - 5 * 0.5]
    assert digits.repeating_by_segment([prompt], ["7 0 1 2"])[0][:2] == [(3, 0.0), (7, -1.0)]


def test_both_densities_pay_the_same_in_all() -> None:
    rows = digits.rows(50, 24, np.random.default_rng(0))
    prompts, responses = [row["prompt"] for row in rows], [row["completion"] for row in rows]
    dense = digits.counting_by_segment(prompts, responses)
    assert [sum(value for _, value in one) for one in dense] == digits.counting_in_all(prompts, responses)
    assert len({len(one) for one in dense}) == 1
    mixed = digits.counting_of_another(prompts, responses)
    assert mixed[1:] == digits.counting(prompts, responses)[:-1]
    assert digits.counting_by_segment_of_another(prompts, responses)[1:] == dense[:-1]


def test_rows_are_drawn_evenly() -> None:
    rows = digits.rows(400, 20, np.random.default_rng(0))
    said = [int(digit) for row in rows for digit in (row["prompt"], *row["completion"].split())]
    assert set(map(str, said)) == set(digits.words())
    assert np.bincount(said).std() < 0.1 * np.bincount(said).mean()
