"""How many processor seconds a process and all that comes of it take, some of which may end unseen by who began it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


class Processor(threading.Thread):
    """Adds up the processor seconds of a process and of all that come of it, as Linux counts them, until it is left."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pids, self.ticks = {pid}, dict[tuple[int, int], int]()  # by process and its start
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.1):
            self.look()

    def look(self) -> None:
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            pid, parent, started = int(file.parent.name), int(fields[1]), int(fields[19])
            if parent in self.pids or pid in self.pids:
                self.pids.add(pid)
                self.ticks[pid, started] = int(fields[11]) + int(fields[12])

    def __enter__(self) -> Processor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    @property
    def seconds(self) -> float:
        return sum(self.ticks.values()) / TICK
