"""Segments of one length, cut from texts laid end to end: the raw material of objectives that corrupt text."""

from __future__ import annotations

from collections.abc import Sequence as Several

import numpy as np

from teloi.batch.sequence import Sequence
from teloi.data.corruption.ragged import Ragged
from teloi.data.formats import Text
from teloi.data.processor import Processor
from teloi.data.vocabulary import end_id
from teloi.errors import DataError


def stream(processor: Processor, text: Text, ended: bool) -> list[Sequence]:
    """The bare tokens of a text, followed by the end token if `ended`; none of an empty text."""
    ids = processor.bare_ids(text if isinstance(text, str) else processor.render(text))
    if not ids:
        return []
    return [Sequence({"input_ids": np.asarray([*ids, end_id(processor.tokenizer)] if ended else ids, np.int32)})]


def cut_ids(processor: Processor, text: str, length: int) -> np.ndarray:
    """A text's first `length` ids, or all of them and the end token: what is cut does not end."""
    ids = processor.bare_ids(text)
    return np.asarray([*ids, end_id(processor.tokenizer)] if len(ids) <= length else ids[:length], np.int32)


def segments(texts: Several[Sequence], length: int) -> list[Sequence]:
    """The texts end to end, cut into segments of exactly `length` tokens; what is left over is dropped.

    A corpus of fewer tokens is one shorter segment. DataError for one of fewer than two tokens.
    """
    tokens = np.concatenate([text.ids["input_ids"] for text in texts])
    rows = Ragged.cut(tokens, length).rows()
    whole = [row for row in rows if len(row) == length] or rows
    if len(whole[0]) < 2:
        raise DataError("the texts have one token in all: there is nothing to corrupt")
    return [Sequence({"input_ids": row}) for row in whole]
