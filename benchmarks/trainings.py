"""Train stages, several at once, each in a process of one thread; what was trained before is only looked up.

A stage starts when its teacher is stored. Whoever kills this and starts it again goes on where it was.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process

import torch

from trainers.call import Call
from trainers.order import Order
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import Store
from trainers.worker import work


def train_all(
    stages: Sequence[Stage], data: Call, store: Store, *, jobs: int
) -> Iterator[tuple[Stage, Result | Exception]]:
    """What becomes of each stage, as they end: those that come first are started first.

    A stage whose training fails comes with the error, and those that it should have taught do not come at all.
    """
    waiting = [stage for stage in stages if store.get(stage) is None]
    yield from ((stage, result) for stage in stages if (result := store.get(stage)) is not None)
    running: dict[Future[Result], Stage] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=begin) as pool:
        while True:
            ready = [s for s in waiting if s.teacher is None or store.get(s.teacher) is not None]
            for stage in ready[: jobs - len(running)]:
                waiting.remove(stage)
                running[pool.submit(train, stage, data, str(store.root))] = stage
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield stage, error or future.result()


def begin() -> None:
    """What a process of ours does first: it ends when whoever started it does, even by being killed."""
    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None, "it was spawned"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def train(stage: Stage, data: Call, store: str) -> Result:
    """Train a stage here, on a GPU if there is one; it is measured once, in the end."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    order = Order(stage=stage, data=data, store=store, evaluate_every=stage.recipe.epochs)
    return work(order, device=device)
