"""`--stop-when "kl > 10"`: a run ends early when a number that it logs says so."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from teloi.errors import UsageError

SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}

HELD_OUT = "eval_"
"""How the names of numbers begin that are measured on held-out rows, and so are not in every record."""


@dataclass(frozen=True)
class Condition:
    """A logged number compared with a bound."""

    name: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"

    def holds(self, record: Mapping[str, float]) -> bool:
        return self.name in record and SIGNS[self.sign](record[self.name], self.bound)


@dataclass(frozen=True)
class StopWhen:
    """Conditions any of which ends a run."""

    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, text: str) -> StopWhen:
        """ "kl > 10", "reward >= 0.9", "kl > 10 or reward >= 0.9". UsageError for anything else."""
        found = []
        for part in re.split(r"\s+or\s+", text.strip()):
            match = re.fullmatch(r"([^\s<>=]+)\s*(>=|<=|>|<)\s*(\S+)", part)
            try:
                bound = float(match[3]) if match else None
            except ValueError:
                bound = None
            if match is None or bound is None:
                raise UsageError(f'stop_when {text!r} is not of the form "kl > 10" or "kl > 10 or reward >= 0.9"')
            found.append(Condition(match[1], match[2], bound))
        return cls(tuple(found))

    def __str__(self) -> str:
        return " or ".join(map(str, self.conditions))

    @property
    def names(self) -> list[str]:
        """The numbers that are asked for."""
        return [condition.name for condition in self.conditions]

    def check(self, record: Mapping[str, float]) -> None:
        """UsageError where a run that logs such records never logs a number that is asked for."""
        measured = any(name.startswith(HELD_OUT) for name in record)
        for condition in self.conditions:
            if condition.name not in record and (measured or not condition.name.startswith(HELD_OUT)):
                raise UsageError(
                    f"stop_when: no number {condition.name!r} is logged here; there are {', '.join(record)}"
                )

    def reached(self, record: Mapping[str, float]) -> str | None:
        """The condition that holds, with the value that met it; None where none does."""
        met = next((one for one in self.conditions if one.holds(record)), None)
        return None if met is None else f"{met} ({met.name} was {record[met.name]:.4g} at step {record['step']:.0f})"
