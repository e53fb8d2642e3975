"""Long lists, of which memory holds the beginning only: rows as they are read, examples once they are encoded."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from array import array
from collections.abc import Sequence
from typing import IO, Any, Generic, TypeVar, overload
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from teloi.data.processor import Processor
from teloi.errors import TeloiError
from teloi.files import cache_home

T = TypeVar("T")

IN_MEMORY = 5_000
"""Items of a list that are kept in memory: most sets are no larger, and nothing changes for them. So many rows with
their examples take some ten megabytes, little beside torch itself."""

AT_A_TIME = 1 << 20
"""Bytes that are written at a time."""


class Store(Sequence[T]):
    """A list that only grows. Items beyond the first `IN_MEMORY` lie pickled in a file, 8 bytes in memory for each.

    The file is in `cache_home()` and has no name: no other process reads or changes it, and it is gone with the last
    process that has it open, however that ends. Processes that were forked off may all read. An item from the file is
    made anew whenever it is asked for. TeloiError where there is no room."""

    def __init__(self) -> None:
        self._first: list[T] = []
        self._file: IO[bytes] | None = None
        self._ends = array("q")
        self._waiting: list[bytes] = []
        self._written = 0
        self._processors: list[Processor] = []

    def append(self, item: T) -> None:
        """Add an item at the end."""
        if len(self._first) < IN_MEMORY:
            self._first.append(item)
            return
        stream = io.BytesIO()
        _Pickler(stream, self._processors).dump(item)
        self._waiting.append(stream.getvalue())
        self._ends.append(self._end + stream.tell())
        if self._end - self._written >= AT_A_TIME:
            self._flush()

    def listed(self) -> Sequence[T]:
        """The items as a plain list where memory holds all of them, else this store."""
        return self if self._ends else self._first

    def __len__(self) -> int:
        return len(self._first) + len(self._ends)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return Chosen(self, range(len(self))[index])
        if index < 0:
            index += len(self)
        if index < 0:
            raise IndexError(index - len(self))
        if index < len(self._first):
            return self._first[index]
        at = index - len(self._first)
        begin, end = self._ends[at - 1] if at else 0, self._ends[at]
        if self._waiting:
            self._flush()
        assert self._file is not None
        # Not mapped into memory: its pages would count as the process's own. Nor sought: forked processes share that.
        content = os.pread(self._file.fileno(), end - begin, begin)
        item: T = pickle.loads(content)
        return item

    @property
    def _end(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _flush(self) -> None:
        """Write what waits."""
        home = cache_home()
        try:
            if self._file is None:
                home.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=home, buffering=0)  # noqa: SIM115  # open while the list lives
            content = memoryview(b"".join(self._waiting))
            while len(content):
                content = content[os.pwrite(self._file.fileno(), content, self._end - len(content)) :]
        except OSError as error:
            raise TeloiError(
                f"no place for long data in {home}: {error.strerror or error}; TELOI_CACHE names another directory"
            ) from error
        self._waiting, self._written = [], self._end


class Chosen(Sequence[T], Generic[T]):
    """Some items of a sequence in the given order, looked up when they are asked for."""

    def __init__(self, items: Sequence[T], indices: ArrayLike) -> None:
        self._items = items
        self._indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return Chosen(self._items, self._indices[index])
        return self._items[int(self._indices[index])]


_KEPT: WeakValueDictionary[int, Processor] = WeakValueDictionary()
"""Processors that items refer to, by what stands for them in a file."""


class _Pickler(pickle.Pickler):
    """Pickles an item by itself: its arrays in few bytes; a processor that it refers to is kept, not copied."""

    def __init__(self, stream: IO[bytes], processors: list[Processor]) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self.processors = processors

    def reducer_override(self, item: Any) -> Any:
        if type(item) is np.ndarray and item.dtype.kind in "biuf":
            return _array, (item.dtype.str, item.shape, item.tobytes())
        if isinstance(item, Processor):
            if not any(item is known for known in self.processors):
                self.processors.append(item)
                _KEPT[id(item)] = item
            return _processor, (id(item),)
        return NotImplemented


def _array(dtype: str, shape: tuple[int, ...], content: bytes) -> NDArray[Any]:
    return np.frombuffer(content, dtype).reshape(shape).copy()


def _processor(place: int) -> Processor:
    return _KEPT[place]
