"""The format of what an agent went through: for controllers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from teloi.data.formats.base import Format, kind, string_in, value_in
from teloi.errors import RowError


@dataclass(frozen=True)
class Trajectory(Format):
    """What an agent went through: `states`, one more than `actions`, each a list of numbers; and the `instruction` it
    followed, where somebody wrote it down.

    Optional column `group`: trajectories of one group do the same thing, however it is worded.
    """

    name: ClassVar[str] = "trajectory"
    needs: ClassVar[tuple[str, ...]] = ("states", "actions")

    states: tuple[tuple[float, ...], ...]
    actions: tuple[tuple[float, ...], ...]
    instruction: str | None = None

    @property
    def conversational(self) -> bool:
        return False

    @classmethod
    def about(cls) -> str:
        return f"{cls.name} rows (states, actions and, where known, instruction)"

    @classmethod
    def _parse(cls, row: Mapping[str, Any], where: str | None) -> Self:
        states, actions = (_vectors(row, name, cls) for name in cls.needs)
        if len(states) != len(actions) + 1:
            raise RowError(f"{len(states)} states and {len(actions)} actions: there is one state more than actions")
        instruction = string_in(row, "instruction", cls) if row.get("instruction") is not None else None
        columns = {k: v for k, v in row.items() if k not in (*cls.needs, "instruction")}
        return cls(states, actions, instruction, columns=columns, where=where)


def _vectors(row: Mapping[str, Any], column: str, format: type[Format]) -> tuple[tuple[float, ...], ...]:
    """A list of vectors of one length, at least one."""
    value = value_in(row, column, format)
    if not isinstance(value, list | tuple) or not value:
        raise RowError(f"column '{column}' is {kind(value)}, not a list of vectors")
    for number, vector in enumerate(value, 1):
        here = f"column '{column}', vector {number}"
        if not isinstance(vector, list | tuple) or not vector:
            raise RowError(f"{here} is {kind(vector)}, not a list of numbers")
        if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in vector):
            raise RowError(f"{here} holds something that is no finite number")
        if len(vector) != len(value[0]):
            raise RowError(f"{here} has {len(vector)} numbers, the first has {len(value[0])}")
    return tuple(tuple(map(float, vector)) for vector in value)
