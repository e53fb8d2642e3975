from __future__ import annotations

import sys
from pathlib import Path

import pytest

from teloi.errors import DataError, UsageError
from teloi.worlds.rewards import checks, load_reward, score, times

OWN = """
from worth import WORTH

calls = []

def shortness(prompts, completions, **columns):
    calls.append(len(prompts))
    return [WORTH * len(calls) - len(completion) for completion in completions]

NOT_ONE = 3
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "worth.py").write_text("WORTH = 10.0\n")
    # the name of a standard module, which it must not replace
    path = tmp_path / "json.py"
    path.write_text(OWN)
    return path


def test_a_reward_by_name_by_module_and_in_a_file(own_file: Path):
    assert load_reward("checks") is checks
    assert load_reward("teloi.worlds.rewards:checks") is checks
    reward = load_reward(f"{own_file}:shortness")
    assert reward(["p", "q"], ["", "four"]) == [10.0, 6.0]
    # What the file has noted stays from one step to the next.
    assert load_reward(f"{own_file}:shortness")(["p"], [""]) == [20.0]
    import json

    assert json.loads("1") == 1


def test_a_reward_that_is_not_there(own_file: Path):
    with pytest.raises(UsageError, match=r"no reward 'chekcs': use checks, .*gsm8k, .*, my_rewards\.py:function"):
        load_reward("chekcs")
    with pytest.raises(UsageError, match="there is no file"):
        load_reward(f"{own_file.parent}/none.py:shortness")
    with pytest.raises(UsageError, match="has no function NOT_ONE"):
        load_reward(f"{own_file}:NOT_ONE")
    with pytest.raises(UsageError, match=r"'teloi\.nowhere:f' cannot be loaded: No module named"):
        load_reward("teloi.nowhere:f")


def test_a_weight_before_a_reward(own_file: Path):
    columns = {"checks": [[{"kind": "uppercase"}]]}
    (tokens,) = score(load_reward("10*checks"), ["p"], ["YES"], columns, [[1, 2]])
    assert tokens.tolist() == [0, 10]
    assert load_reward(f"-0.5*{own_file}:shortness")(prompts=["p"], completions=["four"]) == [-3.0]
    found = times(2.0, lambda **given: [None, [(1, 0.5)], 1.5])
    assert found() == [None, [(1, 1.0)], 3.0]


def test_where_a_reward_stands():
    def found(prompts, completions, completion_ids, **columns):
        return [2.0, None, [(0, 1.0), (2, -0.5), (0, 0.25), (9, 4.0)]]

    ids = [[5, 6], [7], [8, 9, 10]]
    rows = score(found, ["p"] * 3, ["a", "b", "c"], {}, ids)
    assert [row.tolist() for row in rows] == [[0.0, 2.0], [0.0], [1.25, 0.0, 3.5]]
    with pytest.raises(DataError, match="returned 3 values for 2 completions"):
        score(found, ["p"] * 2, ["a", "b"], {}, ids[:2])
