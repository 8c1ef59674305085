"""Work done ahead by other processes, its results in order; a process that dies or hangs is replaced once.

torch's own loader raises in the middle of whatever the main thread does when one of its processes dies. Here
the loss shows only where a result is waited for, and can be made good.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as HungError
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

import torch
import torch.multiprocessing  # hands tensors over in shared memory

PATIENCE = 300.0  # seconds without a result after which a process is taken to hang
AHEAD = 2  # results that each process may be ahead
WATCH = 2.0  # seconds between two looks at whether the parent still lives


class Lost(RuntimeError):
    """Processes died or hung more often than can be made good; `how` says which."""

    def __init__(self, message: str, how: str) -> None:
        super().__init__(message)
        self.how = how


def ahead(
    work: Callable[[Any], Any], items: Sequence[Any], *, processes: int, patience: float = PATIENCE, spare: int = 1
) -> Iterator[Any]:
    """work(item) for each item, in order, by so many forked processes.

    patience: seconds without a result after which a process is taken to hang. What `work` raises is raised
    here. Raises `Lost` when processes are lost once more than `spare` times.
    """
    done, lost = 0, 0
    while done < len(items):
        try:
            for result in _pooled(work, items[done:], processes=processes, patience=patience):
                yield result
                done += 1
        except (BrokenProcessPool, HungError) as error:
            how = "hung" if isinstance(error, HungError) else "died"
            lost += 1
            if lost > spare:
                said = f"a loader process {how} at item {done} of {len(items)}, loss number {lost}"
                raise Lost(said, how) from error


def each(
    work: Callable[[Any], Any], items: Sequence[Any], *, processes: int, patience: float = 60.0
) -> Iterator[Any | Lost]:
    """work(item) for each item, in order, or `Lost` where the process that did it was lost, again and alone.

    `work` must not raise.
    """
    done = 0
    while done < len(items):
        try:
            for result in ahead(work, items[done:], processes=processes, patience=patience, spare=0):
                yield result
                done += 1
        except Lost:
            # One of those that were under way: each is tried by a process of its own.
            for item in items[done : done + AHEAD * processes]:
                yield _alone(work, item, patience=patience)
                done += 1


def _alone(work: Callable[[Any], Any], item: Any, *, patience: float) -> Any | Lost:
    try:
        return next(ahead(work, [item], processes=1, patience=patience, spare=0))
    except Lost as lost:
        return lost


def _pooled(work: Callable[[Any], Any], items: Sequence[Any], *, processes: int, patience: float) -> Iterator[Any]:
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("fork"),  # what `work` holds is inherited and never pickled
        initializer=_begin,
        initargs=(work, os.getpid()),
    )
    rest, waiting = iter(items), deque[Future[Any]]()
    try:
        waiting.extend(pool.submit(_do, item) for item in islice(rest, AHEAD * processes))
        while waiting:
            result = waiting.popleft().result(patience)
            waiting.extend(pool.submit(_do, item) for item in islice(rest, 1))
            yield result
    except HungError:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_job: Callable[[Any], Any]  # in a process of the pool: what it is there for


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    """Set a process up: one thread, none of its parent's signal handling, and no life after its parent."""
    global _job
    _job = work
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)


def _do(item: Any) -> Any:
    return _job(item)
