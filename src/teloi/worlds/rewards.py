"""Verifiable rewards by TRL's convention: `f(prompts, completions, **columns) -> list[float | None]`.

`prompts` and `completions` have one entry a completion (strings, or lists of messages for conversational rows), every
other column of the row is passed by name with one entry a completion too, besides `completion_ids`. None means that the
function has nothing to say of a completion. A function written for TRL's GRPOTrainer works here unchanged.

Where an error can be located, a function may give a list of (index of a token, number) for a completion instead of one
number: ppo then knows where its reward comes from, grpo and rloo take the sum. A function that knows nothing of tokens
can be asked for the segments of a completion instead, "NAME@sentence" (`teloi.worlds.fine_grained`); the policy's
`tokenizer` is passed too."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teloi.data.formats import Text, plain
from teloi.errors import DataError, UsageError
from teloi.names import import_named
from teloi.worlds.instructions import satisfied

Reward = Callable[..., Sequence[float | Sequence[tuple[int, float]] | None]]


def checks(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """1 for a completion that satisfies all `checks` of its row, else 0."""
    if "checks" not in columns:
        raise DataError("the reward `checks` reads a column of that name (see the embedded data `instructions`)")
    return [
        float(satisfied({"checks": wanted}, plain(completion)))
        for completion, wanted in zip(completions, columns["checks"], strict=True)
    ]


_VERIFIERS = "teloi.worlds.verifiers"
REWARDS: Mapping[str, str] = {
    "checks": "teloi.worlds.rewards:checks",
    "fresh": "teloi.worlds.fine_grained:fresh",
    **{name: f"{_VERIFIERS}:reward_{name}" for name in ("gsm8k", "math", "exact", "format", "code", "verifiable")},
}
"""Rewards that are known by a name of their own; `teloi.worlds.verifiers` says what each reads."""


@cache
def load_reward(spec: str) -> Reward:
    """A reward by name ("checks"), "my_rewards.py:function" or "package.module:function", or the directory of a reward
    model; a file is run once. A number before it, "10*checks", multiplies it; a density behind it,
    "fresh@sentence", asks it for segments. UsageError when there is none."""
    weight, star, weighted = spec.partition("*")
    if star and re.fullmatch(r"-?\d*\.?\d+", weight):
        return times(float(weight), load_reward(weighted))
    name, at, density = spec.rpartition("@")
    if at and re.fullmatch(r"[a-z-]+", density):
        from teloi.worlds.fine_grained import by_density

        return by_density(load_reward(name), density)
    spec = REWARDS.get(spec, spec)
    if Path(spec).is_dir():
        from teloi.models.scalar import load_scalar
        from teloi.models.segment_judge import is_judge, load_judge
        from teloi.worlds.fine_grained import by_density

        return by_density(*load_judge(spec)) if is_judge(spec) else load_scalar(spec)
    place, _, name = spec.rpartition(":")
    if not place:
        raise UsageError(
            f"no reward {spec!r}: use {', '.join(REWARDS)}, my_rewards.py:function, package.module:function or the run "
            "of a reward model"
        )
    found: Reward = import_named(spec, "reward")
    if not callable(found):
        raise UsageError(f"{place} has no function {name}")
    return found


def load_rewards(spec: str) -> list[Reward]:
    """Several rewards, joined by +."""
    return [load_reward(one) for one in spec.split("+")]


def times(weight: float, reward: Reward) -> Reward:
    """A reward function whose numbers are multiplied."""

    def weighted(**given: Any) -> list[float | list[tuple[int, float]] | None]:
        return [
            None
            if value is None
            else [(place, weight * number) for place, number in value]
            if isinstance(value, Sequence)
            else weight * value
            for value in reward(**given)
        ]

    return weighted


def score(
    reward: Reward,
    prompts: Sequence[Text],
    completions: Sequence[Text],
    columns: Mapping[str, Sequence[Any]],
    completion_ids: Sequence[Sequence[int]],
    tokenizer: Any = None,
) -> list[NDArray[np.float32]]:
    """Call a reward function; of each completion the reward of its tokens, float32 [n].

    A number stands on the last token. A function may also say where: a list of (index of a token, number), of which
    those of one token add up and one past the end is on the last token. None is 0. DataError when it does not return
    one entry a completion."""
    given = {"completion_ids": completion_ids, "tokenizer": tokenizer}
    values = list(reward(prompts=prompts, completions=completions, **given, **columns))
    if len(values) != len(completions):
        name = getattr(reward, "__name__", str(reward))
        raise DataError(f"reward {name} returned {len(values)} values for {len(completions)} completions")
    return [on_tokens(value, len(ids)) for value, ids in zip(values, completion_ids, strict=True)]


def on_tokens(value: float | Sequence[tuple[int, float]] | None, length: int) -> NDArray[np.float32]:
    """What a reward function says of one completion, token by token."""
    found = np.zeros(length, np.float32)
    for place, number in value if isinstance(value, Sequence) else [(length - 1, value or 0.0)]:
        found[min(place, length - 1)] += number
    return found
