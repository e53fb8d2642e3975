from __future__ import annotations

import pytest

from teloi.engine.stopping import StopWhen
from teloi.errors import UsageError

RECORD = {"step": 7, "kl": 10.0, "reward": 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kl > 10", None),
        ("kl >= 10", "kl >= 10 (kl was 10 at step 7)"),
        ("kl<1e1", None),
        ("kl <= 10.0", "kl <= 10 (kl was 10 at step 7)"),
        ("reward > 0.9 or kl >= 1", "kl >= 1 (kl was 10 at step 7)"),
        ("reward > -1", "reward > -1 (reward was 0.5 at step 7)"),
        ("eval_reward > 0", None),
    ],
)
def test_conditions(text: str, said: str | None) -> None:
    assert StopWhen.parse(text).reached(RECORD) == said


@pytest.mark.parametrize(
    "text", ["", "kl", "kl > ", "kl == 1", "kl > one", "kl > 1 and reward > 2", "> 3", "kl > 1 or"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not of the form"):
        StopWhen.parse(text)


def test_names_are_checked_against_a_record() -> None:
    StopWhen.parse("kl > 10 or eval_kl > 3").check(RECORD)  # which may come with the first evaluation
    with pytest.raises(UsageError, match=r"no number 'kll' is logged here; there are step, kl, reward"):
        StopWhen.parse("kl > 10 or kll > 3").check(RECORD)
    with pytest.raises(UsageError, match="no number 'eval_kll' is logged here"):
        StopWhen.parse("eval_kll > 3").check({**RECORD, "eval_kl": 1.0})
