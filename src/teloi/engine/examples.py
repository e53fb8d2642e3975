"""The examples of a run, in memory or in a file, and what is asked of all of them at once."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teloi.batch.example import Example
from teloi.data.store import Store
from teloi.engine.objective import Objective


class Examples(Store[Any]):
    """A store of examples that knows their sizes and what they hold without reading them again."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes = array("q")
        self._digest = hashlib.sha256()

    def append(self, item: Any) -> None:
        super().append(item)
        self._sizes.append(item.size)
        _hash_into(self._digest, item)

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.asarray(self._sizes)

    @property
    def hash(self) -> str:
        return _short(self._digest)


def sizes(examples: Sequence[Any]) -> NDArray[np.int64]:
    """Positions of each example, [n]."""
    if isinstance(examples, Examples):
        return examples.sizes
    return np.fromiter((example.size for example in examples), np.int64, len(examples))


def costs(objective: Objective, examples: Sequence[Any]) -> NDArray[np.int64]:
    """Positions that a step of the objective trains on for each example, [n]."""
    if type(objective).cost is Objective.cost:
        return sizes(examples)
    return np.fromiter((objective.cost(example) for example in examples), np.int64, len(examples))


def contents_hash(examples: Sequence[Example]) -> str:
    """Changes with anything that training reads: tokens and where they part, weights, columns."""
    if isinstance(examples, Examples):
        return examples.hash
    digest = hashlib.sha256()
    for example in examples:
        _hash_into(digest, example)
    return _short(digest)


def _hash_into(digest: hashlib._Hash, example: Example) -> None:
    for name, values in example.arrays().items():
        digest.update(f"{name} {_name(values.dtype)} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(repr(getattr(example, "source", None)).encode())


@cache
def _name(dtype: np.dtype[Any]) -> str:
    """What NumPy takes its time to say."""
    return str(dtype)


def _short(digest: hashlib._Hash) -> str:
    return digest.hexdigest()[:16]
