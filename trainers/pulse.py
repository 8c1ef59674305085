"""The pulse of a training: when it last made a step, for whoever watches over it from another thread."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from trainers import workers

TOGETHER = (
    50  # steps after which workers on GPUs agree whether to stop: it waits for the device, as the meter does then
)


class Pulse:
    """Beats with every step. Between epochs it rests, and so it does while data is read, weights are fetched or images
    are measured: nobody knows how long that may take, and all of it comes to an end or to an error by itself."""

    def __init__(self) -> None:
        self.steps = 0  # of all stages that are trained together
        self.stopping = False  # whether all workers have agreed to stop
        self._since: float | None = None

    def beat(self) -> None:
        """A step begins."""
        self.steps += 1
        self._since = time.monotonic()

    def rest(self) -> None:
        """No step is to be expected for now."""
        self._since = None

    def silent(self) -> float:
        """Seconds since the last step began, if another is to be expected; else 0."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def beating(self, stop: Callable[[], bool], *, device: torch.device) -> Callable[[], bool]:
        """To be asked before every step: whether to stop before it. All workers of a stage find the same, though
        `stop` may tell one of them before the others. Once several have agreed, so do all stages with this pulse."""

        def ask() -> bool:
            self.beat()
            if workers.count() == 1:
                return stop()
            if not self.stopping and not (device.type == "cuda" and self.steps % TOGETHER):
                self.stopping = workers.anywhere(stop(), device=device)
            return self.stopping

        return ask
