"""Pairwise judges, apart from rewards: which of two completions is the better one, or how likely the first is to be.

A judge of TRL's convention works here unchanged: `judge(prompts, completions)` gets one text a prompt and a pair of
texts for it, and gives one verdict a prompt: an integer is the index of the better one (0 or 1; -1 where it could not
tell), a float the probability that it is the first. It may be a function, an object with a method `judge`, or a class
of such. Columns of the row that it names are passed to it too, one entry a prompt. Of what TRL's own judges take,
`return_scores` is set, and `shuffle_order` is not, since every pair is shown in both orders anyway."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scipy.special import expit

from teloi.data.formats import Text, plain
from teloi.errors import DataError, UsageError
from teloi.names import import_named
from teloi.worlds.instructions import check

Pairs = Sequence[tuple[Text, Text]]
Columns = Mapping[str, Sequence[Any]]
TRL_OPTIONS = {"shuffle_order": False, "return_scores": True}


@dataclass(frozen=True)
class Judge:
    """`ask(prompts, pairs, columns)` gives the probability that the first of each pair is preferred, None where it
    cannot tell. `fair`: the order of a pair makes no difference to it."""

    ask: Callable[[Sequence[Text], Pairs, Columns], list[float | None]]
    fair: bool = False

    def preferences(self, prompts: Sequence[Text], pairs: Pairs, columns: Columns) -> list[float | None]:
        """P(first > second) of each pair, so that P(a > b) + P(b > a) = 1: (f(a, b) + 1 - f(b, a)) / 2. Where the judge
        could tell in one order only, what it said there."""
        if self.fair:
            return self.ask(prompts, pairs, columns)
        both = [*pairs, *((second, first) for first, second in pairs)]
        found = self.ask([*prompts, *prompts], both, {name: [*column, *column] for name, column in columns.items()})
        halves = zip(found[: len(pairs)], found[len(pairs) :], strict=True)
        return [_mean([*([] if a is None else [a]), *([] if b is None else [1 - b])]) for a, b in halves]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def more_checks(prompts: Sequence[Text], pairs: Pairs, columns: Columns) -> list[float | None]:
    """Which of the two satisfies more of the `checks` of its row: 1, 0, or 1/2 where they satisfy as many."""
    if "checks" not in columns:
        raise DataError("the judge `checks` reads a column of that name (see the embedded data `instructions`)")
    found: list[float | None] = []
    for pair, wanted in zip(pairs, columns["checks"], strict=True):
        first, second = (sum(check(one, plain(text)) for one in wanted) for text in pair)
        found.append(0.5 if first == second else float(first > second))
    return found


JUDGES: Mapping[str, Judge] = {"checks": Judge(more_checks, fair=True)}


@cache
def load_judge(spec: str) -> Judge:
    """A judge by name ("checks"), "my_judge.py:function" or "package.module:function" (or a class, or an object), or
    the run of a preference model (pm) or a reward model (rm); a file is run once. UsageError when there is none."""
    if spec in JUDGES:
        return JUDGES[spec]
    if Path(spec).is_dir():
        from teloi.models.scalar import compares, load_preference, load_scalar

        return by_preference(load_preference(spec)) if compares(spec) else by_reward(load_scalar(spec))
    if ":" not in spec:
        raise UsageError(
            f"no judge {spec!r}: use {', '.join(JUDGES)}, my_judge.py:function, package.module:function or the run of "
            "a preference model or a reward model"
        )
    found = import_named(spec, "judge")
    if isinstance(found, Judge):
        return found
    if isinstance(found, type):
        found = found()
    return by_convention(getattr(found, "judge", found), spec)


def by_reward(score: Callable[[Sequence[Text], Sequence[Text]], Sequence[float]]) -> Judge:
    """The Bradley-Terry judge of a scalar reward: P(first) = sigmoid(r(first) - r(second)). Whatever the reward, its
    preferences do not go round in circles."""

    def ask(prompts: Sequence[Text], pairs: Pairs, columns: Columns) -> list[float | None]:
        scores = score([*prompts, *prompts], [*(a for a, _ in pairs), *(b for _, b in pairs)])
        return [float(expit(a - b)) for a, b in zip(scores[: len(pairs)], scores[len(pairs) :], strict=True)]

    return Judge(ask, fair=True)


def by_preference(said: Callable[[Sequence[Text], Pairs], Sequence[float]]) -> Judge:
    """The judge that a preference model is, in both orders, since it may like a place."""
    return Judge(lambda prompts, pairs, columns: list(said(prompts, pairs)))


def by_convention(judge: Callable[..., Any], name: str) -> Judge:
    """A user's judge, of TRL's convention. UsageError where it cannot be called so."""
    if not callable(judge):
        raise UsageError(f"the judge {name} is no function, nor has it a method `judge`")
    parameters = inspect.signature(judge).parameters.values()
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    named = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}

    def ask(prompts: Sequence[Text], pairs: Pairs, columns: Columns) -> list[float | None]:
        known = {n: list(column) for n, column in columns.items() if takes_all or n in named}
        options = {n: value for n, value in TRL_OPTIONS.items() if n in named}
        verdicts = judge(
            [spoken(prompt) for prompt in prompts], [[plain(a), plain(b)] for a, b in pairs], **known, **options
        )
        if len(verdicts) != len(pairs):
            raise DataError(f"judge {name} gave {len(verdicts)} verdicts for {len(pairs)} pairs")
        return [probability(verdict, name) for verdict in verdicts]

    return Judge(ask)


def probability(verdict: Any, name: str) -> float | None:
    """The probability of the first that a verdict means; None for -1 and None. DataError where it means none."""
    value = verdict.item() if hasattr(verdict, "item") else verdict  # numpy's and torch's scalars
    if value is None or (type(value) is int and value == -1):
        return None
    if type(value) is int and value in (0, 1):  # true and false would say neither
        return 1.0 - value
    if isinstance(value, float) and 0 <= value <= 1 and not math.isnan(value):
        return value
    raise DataError(
        f"judge {name} gave {verdict!r}: a verdict is the index of the better one (0 or 1, or -1 for none), or as a "
        "float the probability of the first"
    )


def spoken(prompt: Text) -> str:
    """A prompt as one text: a conversation's turns, each with who speaks, where there are several."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in prompt)
