"""What can go wrong through no fault of the code, said in one line for a person.

The command prints `teloi: error: <message>` and exits with status 2, without a traceback. Anything that is
not a `TeloiError` is a bug and keeps its traceback.
"""

from __future__ import annotations


class TeloiError(Exception):
    """A message for a person, on one line: what is wrong, where, and what to do about it."""


class UsageError(TeloiError):
    """The command or the configuration asks for something that does not exist or does not fit together."""


class DataError(TeloiError):
    """A data set cannot be read or does not hold what a method needs."""


class RowError(DataError):
    """One row is not what its format says.

    `problem` says what is wrong without the place; `where` is the place ("hh.jsonl row 17"), when it is
    known.
    """

    def __init__(self, problem: str, where: str | None = None) -> None:
        self.problem = problem
        self.where = where
        super().__init__(problem if where is None else f"{where}: {problem}")

    def at(self, where: str) -> RowError:
        """The same error with its place, unless it already has one."""
        return self if self.where is not None else type(self)(self.problem, where)


class CastError(DataError):
    """Rows of one format cannot be turned into another."""


class ModelError(TeloiError):
    """A directory or a name is no model that can be loaded."""


class Overlong(TeloiError):
    """An example has more tokens than the context holds.

    `prompt` and `completion` are its sizes in tokens (of several completions, the longest), `limit` the
    size of the context.
    """

    def __init__(self, prompt: int, completion: int, limit: int, where: str | None = None) -> None:
        self.prompt = prompt
        self.completion = completion
        self.limit = limit
        self.where = where
        place = "" if where is None else f"{where}: "
        super().__init__(
            f"{place}{prompt} prompt and {completion} completion tokens exceed the context of {limit}; "
            "raise the maximal length, or choose --overlong drop or truncate"
        )

    @property
    def size(self) -> int:
        """Positions the example would need."""
        return self.prompt + self.completion

    def at(self, where: str) -> Overlong:
        """The same error with its place, unless it already has one."""
        return self if self.where is not None else Overlong(self.prompt, self.completion, self.limit, where)


class NonFinite(TeloiError):
    """A loss or a gradient stopped being a number; the message names the step and the saved batch."""
