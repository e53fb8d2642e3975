"""Pieces of work in processes: spawned or forked, of one thread, ended with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teloi.errors import Overlong, TeloiError
from teloi.jobs import in_parallel, one_by_one

ROOT = Path(__file__).parents[1]


def look(item: Any) -> int:
    """Which process has looked, or the trouble that the item asks for."""
    if item == "error":
        raise Overlong(7, 3, 8, "row 5")
    if item == "bug":
        raise ZeroDivisionError
    if item == "death":
        os._exit(1)
    time.sleep(0.05)
    return os.getpid()


def threads(item: Any) -> int:
    import torch

    return torch.get_num_threads()


@pytest.fixture(params=["spawned", "forked"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, Any]]]:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    forked = request.param == "forked"
    return lambda work, items: list(in_parallel(work, items, 2, lambda item: f"item {item}", fork=forked))


def test_every_item_once_on_two_processes_of_one_thread(run: Callable[..., list[tuple[Any, Any]]]):
    found = run(look, [1, 2, 3, 4, 5, 6])
    assert sorted(item for item, _ in found) == [1, 2, 3, 4, 5, 6]
    pids = {pid for _, pid in found}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert run(threads, [1]) == [(1, 1)]
    assert run(look, []) == []


def test_the_parent_keeps_its_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = threads(0)
    list(in_parallel(look, [1], 1, fork=True))
    assert threads(0) == before
    assert (os.environ["OMP_NUM_THREADS"], os.environ.get("MKL_NUM_THREADS")) == ("3", None)


def test_forked_workers_have_what_is_loaded_here():
    loaded = object()
    ((_, there),) = in_parallel(lambda item: id(loaded), [1], 1, fork=True)
    assert there == id(loaded)


def test_an_item_waits_until_it_is_ready():
    done: list[int] = []
    for item, _ in in_parallel(look, [3, 2, 1], 2, ready=lambda item: item == 1 or item - 1 in done, fork=True):
        done.append(item)
    assert done == [1, 2, 3]


@pytest.mark.parametrize(
    ("trouble", "error", "says"),
    [
        ("error", TeloiError, "^item error: row 5: 7 prompt and 3 completion tokens exceed the context of 8"),
        ("bug", RuntimeError, r"(?s)^item bug failed:\nTraceback.*ZeroDivisionError"),
        ("death", RuntimeError, "^the process of item death ended without a word"),
    ],
)
def test_trouble_ends_all(
    trouble: str, error: type[Exception], says: str, run: Callable[..., list[tuple[Any, Any]]]
) -> None:
    with pytest.raises(error, match=says):
        run(look, [1, trouble, *range(2, 1000)])  # a thousand would take 25 seconds


def test_an_error_in_this_process_names_the_item_too():
    with pytest.raises(TeloiError, match=r"^item error: row 5: 7 prompt"):
        list(one_by_one(look, ["error"], lambda item: f"item {item}"))


@pytest.mark.parametrize("fork", [False, True])
def test_workers_do_not_outlive_a_killed_parent(fork: bool):
    code = f"""
import multiprocessing, time
from teloi.jobs import in_parallel
from tests.test_jobs import look

for _ in in_parallel(look, range(3), 3, fork={fork}):
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len([pid for pid in pids if alive(pid)]) == 3
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
