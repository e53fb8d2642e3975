from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teloi.batch.tensors import Tensors
from teloi.batch.tree import Branch, Tree
from teloi.data import store
from teloi.data.formats import PromptOnly
from teloi.data.processor import Processor
from teloi.data.read import read
from teloi.data.store import Chosen, Store
from teloi.errors import TeloiError
from teloi.jobs import in_parallel


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TELOI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "IN_MEMORY", 3)


def stored(items: Sequence[Any]) -> Store[Any]:
    made: Store[Any] = Store()
    for item in items:
        made.append(item)
    return made


@given(st.lists(st.one_of(st.text(), st.integers(), st.dictionaries(st.text(), st.floats(allow_nan=False)))))
def test_it_holds_what_a_list_holds(items: list[Any]) -> None:
    made = stored(items)
    assert len(made) == len(items)
    assert list(made) == items
    assert [made[-1 - i] for i in range(len(items))] == items[::-1]
    assert list(made[1::2]) == items[1::2]
    assert type(made.listed()) is (Store if len(items) > 3 else list)
    for beyond in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            made[beyond]


def test_it_is_read_while_it_grows_and_whatever_is_written_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "AT_A_TIME", 50)
    made: Store[str] = Store()
    for i in range(100):
        made.append("x" * i)
        assert [len(made[i]), len(made[i // 2])] == [i, i // 2]


def test_examples_come_back_with_all_they_hold() -> None:
    row = PromptOnly("why?", columns={"checks": [{"kind": "max_words", "count": 3}]}, where="a.jsonl row 1")
    branch = Branch.scored([4, 5])
    tree = Tree(np.arange(3, dtype=np.int32), (branch, branch), {"label": np.float32(1)}, row)
    arrays = Tensors({"image": np.ones((2, 3), np.float32)}, 7)
    made = stored([0, 0, 0, tree, arrays])
    assert made[3] is not tree
    assert (made[3].source, made[3].source.where) == (row, "a.jsonl row 1")
    assert made[3].columns["label"] == 1
    for one, other in ((made[3], tree), (made[4], arrays)):
        assert one.size == other.size
        assert one.arrays().keys() == other.arrays().keys()
        for name, array in other.arrays().items():
            found = one.arrays()[name]
            assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())
            assert found.flags.writeable == array.flags.writeable


def test_a_processor_is_kept_and_not_copied(tokenizer: Any) -> None:
    processor = Processor(tokenizer)
    made = stored([(i, processor) for i in range(9)])
    assert all(item[1] is processor for item in made)


def test_rows_of_a_long_file_keep_their_places(tmp_path: Path) -> None:
    for number, lines in enumerate(
        (["", *(f'{{"n": {n}}}' for n in range(6))], [f'{{"n": {n}}}' for n in range(6, 9)])
    ):
        (tmp_path / f"train-0000{number}-of-00002.jsonl").write_text("\n".join(lines))
    rows = read(tmp_path)
    assert [row["n"] for row in rows] == list(range(9))
    places = [rows.where(i).removeprefix(f"{tmp_path.name}/train-0000") for i in (0, 5, 6, 8)]
    assert places == [f"{file}-of-00002.jsonl row {n}" for file, n in ((0, 2), (0, 7), (1, 1), (1, 3))]
    some = rows.select([7, 1, 8])[1:]
    assert [row["n"] for row in some] == [1, 8]
    assert some.where(1) == rows.where(8)


def test_chosen_items_are_looked_up_late() -> None:
    items = ["a", "b", "c"]
    some = Chosen(items, [2, 0, 0])
    items[2] = "d"
    assert list(some) == ["d", "a", "a"]
    assert (some[-1], list(some[:2]), len(some)) == ("a", ["d", "a"], 3)


def test_the_file_has_no_name(tmp_path: Path) -> None:
    made = stored(range(9))
    assert made[8] == 8
    assert list((tmp_path / "cache").iterdir()) == []


KILLED = """
import os, signal
from teloi.data import store
store.IN_MEMORY = 0
made = store.Store()
made.append("x" * 10**6)
assert len(made[0]) == 10**6
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED], env={**os.environ}).returncode == -9
    assert list((tmp_path / "cache").iterdir()) == []


def test_forked_processes_read_at_the_same_time() -> None:
    made = stored(range(200))
    found = in_parallel(lambda index: made[index], range(200), 3, fork=True)
    assert dict(found) == {index: index for index in range(200)}


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    made = stored(["x" * 10_000] * 9)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(TeloiError, match=f"^no place for long data in {tmp_path / 'cache'}: .*; TELOI_CACHE names"):
            made[5]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
