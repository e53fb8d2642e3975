"""Independent runs on one machine: in turn with all cores, or several at a time with one core each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")

# What a worker runs. It is forked with everything loaded, so that nothing is loaded twice or sent.
_work: Callable[[Any], Any]

FEW = 4
"""Cores up to which one run a core gets more done than one run on all: fewer threads wait for each other."""


def default_jobs() -> int:
    """Runs at a time that suit this machine: one a core where there are few cores and no GPU, else one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if sys.platform == "linux" and cores <= FEW and not torch.cuda.is_available() else 1


def run_all(work: Callable[[Item], Any], items: Sequence[Item], jobs: int) -> Iterator[tuple[Item, Any]]:
    """(item, work(item)) for each item, as they are done; an exception of any ends all.

    With several jobs, workers are forked and compute on one thread each (a forked process must not use more: the
    threads of its parent are not there)."""
    if jobs == 1:
        yield from ((item, work(item)) for item in items)
        return
    global _work
    _work = work
    with ProcessPoolExecutor(jobs, get_context("fork"), torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(_call, item): item for item in items}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _call(item: Any) -> Any:
    return _work(item)
