"""Independent pieces of work: one after the other here, or several at a time in processes of one thread each."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from teloi.errors import TeloiError

Item = TypeVar("Item")
Result = TypeVar("Result")

Answer = tuple[str, Any]
"""What came of an item: ("done", its result), ("error", a line for a person) or ("bug", a traceback)."""

FEW = 4
"""Cores up to which one job a core gets more done than one job on all: fewer threads wait for each other."""


def default_jobs() -> int:
    """Jobs at a time that suit this machine, if they train: one a core where there are few cores and no GPU, else
    one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if sys.platform == "linux" and cores <= FEW and not torch.cuda.is_available() else 1


def one_by_one(
    work: Callable[[Item], Result], items: Sequence[Item], name: Callable[[Item], str] = str
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) for each item, in this process. A TeloiError tells which item it was, by its `name`."""
    for item in items:
        try:
            yield item, work(item)
        except TeloiError as error:
            raise TeloiError(f"{name(item)}: {error}") from error


def in_parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    name: Callable[[Item], str] = str,
    *,
    ready: Callable[[Item], bool] = lambda item: True,
    fork: bool = False,
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) for each item, so many at a time, as they are done.

    An item starts once it is `ready`, which is asked anew whenever one is done. A TeloiError of any ends all and tells
    whose it is, by its `name`; so does a RuntimeError where one has another exception (with its traceback) or dies.

    The processes are spawned: what `work` needs is imported there, and it is pickled. With `fork` they are copies of
    this one, made when the first item is asked for: everything that is loaded here, as weights and examples, is there
    at once and held once, and `work` may be a closure.
    """
    waiting, busy = list(items), dict[Connection, Item]()
    with _workers(work, min(jobs, len(waiting)), fork) as idle:
        while waiting or busy:
            for item in [item for item in waiting if ready(item)][: len(idle)]:
                waiting.remove(item)
                pipe = idle.pop()
                pipe.send(item)
                busy[pipe] = item
            ended = set(wait(list(busy)))
            for pipe in [pipe for pipe in busy if pipe in ended]:
                item = busy.pop(pipe)
                try:
                    what, content = pipe.recv()
                except (EOFError, ConnectionError):
                    raise RuntimeError(f"the process of {name(item)} ended without a word: out of memory?") from None
                if what == "error":
                    raise TeloiError(f"{name(item)}: {content}")
                if what == "bug":
                    raise RuntimeError(f"{name(item)} failed:\n{content}")
                idle.append(pipe)
                yield item, content


@contextmanager
def _workers(work: Callable[[Any], Any], count: int, fork: bool) -> Iterator[list[Connection]]:
    """Pipes to so many processes that work on what is sent to them; they end with the block, or with this process."""
    context: Any = get_context("fork" if fork else "spawn")
    started: list[tuple[BaseProcess, Connection]] = []
    with _one_thread():
        for _ in range(count):
            here, there = context.Pipe()
            inherited = [here, *(pipe for _, pipe in started)] if fork else []
            process: BaseProcess = context.Process(target=_serve, args=(work, there, inherited), daemon=True)
            process.start()
            there.close()
            started.append((process, here))
    try:
        yield [pipe for _, pipe in started]
    finally:
        for process, pipe in started:
            pipe.close()
            process.terminate()
            process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """What torch and NumPy read when a process imports them."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _serve(work: Callable[[Any], Any], pipe: Connection, inherited: Sequence[Connection]) -> None:
    """A worker: one item after the other, until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the command, which ends its workers
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # forked: the threads that the parent had are not there
    for end in inherited:
        end.close()  # else this copy of the parent's end would be open when the parent has died
    try:
        while True:
            pipe.send(_answer(work, pipe.recv()))
    except (EOFError, ConnectionError):
        return


def _answer(work: Callable[[Any], Any], item: Any) -> Answer:
    try:
        return "done", work(item)
    except TeloiError as error:
        return "error", str(error)
    except Exception:
        return "bug", traceback.format_exc()
