"""Progress bars on what takes longer than two seconds; nothing where the output is no terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

# Of several processes that train as one, the first speaks.
console = Console(stderr=True, highlight=False, quiet=os.environ.get("RANK", "0") != "0")
PATIENCE = 2.0
"""Seconds before a bar appears."""

PAUSE = 0.1
"""Seconds between what a bar shows: a million items a minute must not wait for it."""


def say(message: str) -> None:
    """One line for the person who watches."""
    console.print(message, markup=False, soft_wrap=True)


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is said: what runs inside another run, which speaks for it."""
    console.quiet, spoke = True, console.quiet
    try:
        yield
    finally:
        console.quiet = spoke


def track(items: Collection[T], what: str) -> Iterator[T]:
    """Iterate with a progress bar and an ETA, once it has taken two seconds."""
    return track_some(items, len(items), what)


def track_some(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same over what does not know how many items it has."""
    with bar(total, what) as advance:
        for item in items:
            yield item
            advance("")


class bar:
    """A progress bar as a context manager; call it with a short note after each item or some of them. It appears after
    two seconds."""

    def __init__(self, total: int, what: str) -> None:
        self.total = total
        self.what = what
        self.count = 0

    def __enter__(self) -> bar:
        self.due = time.monotonic() + PATIENCE
        self.progress: Progress | None = None
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress:
            self.progress.stop()

    def __call__(self, note: str, items: int = 1) -> None:
        self.count += items
        if (now := time.monotonic()) < self.due:
            return
        self.due = now + PAUSE
        if self.progress is None and console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self.task = self.progress.add_task(self.what, total=self.total, note=note)
            self.progress.start()
        if self.progress:
            self.progress.update(self.task, completed=self.count, note=note)


def seconds(duration: float) -> str:
    """A duration for people: 12 s, 3 min, 1 h 20 min."""
    if duration < 90:
        return f"{duration:.0f} s"
    minutes = round(duration / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
