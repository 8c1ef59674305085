"""What a training takes beside its seconds: how much of them is measuring, and the most memory at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from trainers import proc, workers
from trainers.call import Spec

FORGET = proc.PROC / "self/clear_refs"


class Usage(Spec):
    """What a stage took, over all its interruptions; of several workers the most of any."""

    images_per_second: float | None  # in training, all workers together; None: nothing was trained
    measuring: float  # seconds in which validation images were looked at and judged; part of the result's `seconds`
    # Bytes, the most at once until the last epoch. On a GPU what torch allocated there for the stage, its teacher
    # included. On a CPU all that the process had in memory, libraries included and loader processes not, so it says
    # what a worker needs rather than what its stage adds; None where the kernel does not count that anew for a stage.
    memory: int | None
    workers: int
    threads: int  # of a worker, on the CPU


class Watch:
    """Watches over one stage in this process, from its start."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.measuring = 0.0  # seconds
        self.memory: int | None = None  # bytes, before this process took the stage up, or at the last `note`
        self.counts = forget(device)

    def restore(self, kept: Mapping[str, float | None]) -> None:
        """Go on from what `note` returned before an interruption."""
        self.measuring = kept["measuring"] or 0.0
        self.memory = None if kept["memory"] is None else int(kept["memory"])

    @contextmanager
    def measures(self) -> Iterator[None]:
        """What happens inside is measuring."""
        started = time.perf_counter()
        yield
        self.measuring += time.perf_counter() - started

    def note(self) -> dict[str, float | None]:
        """Bring all workers to the most of any; -> what to restore later. Every worker calls it."""
        now = peak(self.device) if self.counts else None
        own = [self.measuring, float(max(now or 0, self.memory or 0))]
        self.measuring, most = workers.largest(torch.tensor(own, dtype=torch.float64, device=self.device)).tolist()
        self.memory = int(most) or None
        return {"measuring": self.measuring, "memory": self.memory}

    def usage(self, *, images: int, seconds: float) -> Usage:
        """Of a stage that has trained on so many images, some more than once, in so many seconds in all."""
        return Usage(
            images_per_second=images / (seconds - self.measuring) if images else None,
            measuring=self.measuring,
            memory=self.memory,
            workers=workers.count(),
            threads=torch.get_num_threads(),
        )


def forget(device: torch.device) -> bool:
    """Count the most memory anew from here on; -> whether that can be done here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        FORGET.write_text("5")  # resets the peak and nothing else: man 5 proc_pid_clear_refs
    except OSError:
        return False
    return True


def peak(device: torch.device) -> int:
    """Bytes, the most at once since `forget`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return proc.peak()
