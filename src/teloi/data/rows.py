"""Rows of segments: documents are cut, rows are filled with pieces of them, and each position gets the token after it
as its target. What a decoder reads that must not look across documents (GPT-BERT)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np

from teloi.data.corruption.ragged import Array, Bools, Ints
from teloi.data.corruption.tokens import IGNORED

SPARE = 2
"""Positions of a row that its longest segment leaves free: the begin token's, and the last one, which is only a
target."""


@dataclass(frozen=True)
class Window:
    """A part of a segment: which segment, and the tokens start ... start + length of it."""

    segment: int
    start: int
    length: int


@dataclass(frozen=True)
class Row:
    """What is read and predicted: `inputs` and `targets` [t], `lengths` [k] of its segments, which sum to t."""

    inputs: Ints
    targets: Ints
    lengths: Ints


def pieces(document: int, size: int) -> list[tuple[int, int]]:
    """A document of so many tokens cut into pieces for rows of `size`: where each begins, and its length. A last piece
    of one token is dropped."""
    most = size - SPARE
    return [(at, min(most, document - at)) for at in range(0, document, most) if document - at > 1]


def fill(lengths: Sequence[int], size: int, rng: np.random.Generator) -> list[list[Window]]:
    """Segments of `lengths` in rows of `size` positions, in random order, so that each is whole in one row."""
    used = [np.zeros(length, np.int64) for length in lengths]
    waiting: list[int] = rng.permutation(len(lengths)).tolist()
    rows = []
    while waiting:
        anyone = (int(rng.integers(len(lengths))) for _ in count())
        row = fill_row(waiting[-1], chain(reversed(waiting[:-1]), anyone), used, size)
        for window in row:  # one that was cut still waits
            if waiting and (window.segment, window.length) == (waiting[-1], lengths[waiting[-1]]):
                waiting.pop()
        rows.append(row)
    return rows


def fill_row(first: int, further: Iterator[int], used: Sequence[Array], size: int) -> list[Window]:
    """The row that begins with a whole segment and takes `further` ones in their order; of one that is too long for the
    rest, the window that is used least.

    A begin token stands before each segment and the last token of a full row is a target only, so there is room for
    size + 1 tokens with their begin tokens; a rest of less than two positions stays empty.

    Args:
        used: how often each token of each segment stands in a row, which is kept up to date.
    """
    row: list[Window] = []
    taken = 0
    for segment in chain([first], further):
        row.append(_least_used(segment, used[segment], size - taken))
        taken += 1 + row[-1].length
        if size - taken <= 1:
            break
    return row


def _least_used(segment: int, used: Array, room: int) -> Window:
    length = min(room, len(used))
    sums = np.concatenate([[0], np.cumsum(used)])
    start = int(np.argmin(sums[length:] - sums[: len(sums) - length]))
    used[start : start + length] += 1
    return Window(segment, start, length)


def next_token_row(
    segments: Sequence[Array],
    begin: int,
    size: int,
    corrupted: Sequence[Array] | None = None,
    chosen: Sequence[Bools] | None = None,
) -> Row:
    """The row `<begin> segment <begin> segment ...`, each position with the token that belongs at the next one.

    Args:
        segments: original tokens, with their begin tokens at most size + 1; the last one is a target only.
        corrupted: what is read instead of them.
        chosen: the tokens that are predicted; all of them by default. A begin token never is.

    Returns:
        A row of at most `size` positions. The last position of a row that is not full has no target.
    """
    read: list[Any] = []
    said: list[Any] = []
    for k, segment in enumerate(segments):
        read += [[begin], segment if corrupted is None else corrupted[k]]
        said += [[IGNORED], segment if chosen is None else np.where(chosen[k], segment, IGNORED)]
    inputs, targets = np.concatenate(read).astype(np.int64), np.concatenate(said).astype(np.int64)
    lengths = np.array([len(segment) + 1 for segment in segments], np.int64)
    if len(inputs) > size:
        lengths[-1] -= 1
    return Row(inputs[:size], np.append(targets, IGNORED)[1 : size + 1][: len(inputs[:size])], lengths)
