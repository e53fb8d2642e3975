from __future__ import annotations

from itertools import chain

import numpy as np

from teloi.data.formats import ErrorSpans
from teloi.data.read import read
from teloi.data.segmentation import sentences
from teloi.worlds.marked_stories import marked_stories, rows
from teloi.worlds.stories import INSULTS


def test_every_error_is_where_it_is_said_to_be_and_none_is_missed() -> None:
    found = [ErrorSpans.parse(row) for row in marked_stories(200, np.random.default_rng(1))]
    for row in found:
        assert isinstance(row.completion, str)
        said = [row.completion[start:end] for start, end in sentences(row.completion)]
        marked = [(row.completion[start:end], kind) for start, end, kind in row.errors]
        rude = [word for word in row.completion.split() if word in INSULTS]
        assert [text for text, kind in marked if kind == "Rude"] == rude
        again = [text for i, text in enumerate(said) if text in said[:i]]
        assert [text for text, kind in marked if kind == "Redundant"] == again
    kinds = [kind for _, _, kind in chain.from_iterable(row.errors for row in found)]
    assert min(kinds.count("Rude"), kinds.count("Redundant")) > 100


def test_the_embedded_rows_are_what_the_world_makes() -> None:
    assert list(read("marked-stories")) == rows("train")
    assert list(read("marked-stories", "test")) == rows("test")
