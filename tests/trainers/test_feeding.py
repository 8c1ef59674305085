"""A worker's loader processes that hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.trainers.stages import CPU, stage
from trainers import build, data
from trainers.call import Call
from trainers.data.processes import Lost
from trainers.order import Order
from trainers.worker import work


def test_a_loader_process_that_hangs_is_replaced_once_and_the_second_fails_the_stage_by_name(tmp_path: Path) -> None:
    """They are replaced after a third of the time after which the whole stage counts as hung."""
    others = {process.pid for process in multiprocessing.active_children()}  # of other tests
    stopped: set[int] = set()
    over = threading.Event()

    def stop_them() -> None:
        while not over.is_set() and len(stopped) < 2:
            for process in multiprocessing.active_children():
                if process.pid and process.pid not in stopped | others:
                    os.kill(process.pid, signal.SIGSTOP)
                    stopped.add(process.pid)
            time.sleep(0.001)

    stopping = threading.Thread(target=stop_them)
    stopping.start()
    begun = time.monotonic()
    many = Call(name="Digits", args={"classes": 2, "train": 800, "val": 16, "size": 32}).complete(data)
    long = stage(epochs=1).model_copy(update={"data": build.contents(many)})
    one = Order(stage=long, data=many, store=str(tmp_path), loader_workers=1, silence=4.5)
    try:
        with pytest.raises(Lost, match=r"^a loader process hung at item \d of 100, loss number 2$"):
            work(one, device=CPU)
    finally:
        over.set()
        stopping.join()
    assert len(stopped) == 2 and time.monotonic() - begun > 2 * 1.5
