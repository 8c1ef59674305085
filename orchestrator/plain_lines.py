"""The run where nobody sees a table: one plain line an event, and once a minute what runs and how long it takes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TextIO

from orchestrator.board import Board, Row, State
from orchestrator.outlook import Outlook
from orchestrator.verdict import leader
from orchestrator.words import clock, plain, rate, tally

HEARTBEAT = 60.0  # seconds between two lines that say what runs
QUIET = 10.0  # seconds between two lines about epochs of one stage


class Lines:
    """Prints each event of a board."""

    def __init__(self, board: Board, stream: TextIO, outlook: Outlook) -> None:
        self.board, self.stream, self.outlook = board, stream, outlook
        self.lock = threading.RLock()
        self.known: dict[str, tuple[State, float]] = {}  # state last told, and when, by key
        self.reused = 0  # not told yet
        self.counted, self.seeds = 0, set[int]()  # rows, and the seeds that they have
        self.over = threading.Event()
        self.heart = threading.Thread(target=self._beat, name="progress", daemon=True)

    def start(self) -> None:
        self.heart.start()

    def stop(self) -> None:
        self.over.set()
        self.heart.join()
        self._tell_reused()
        best = leader(self.board)
        totals = tally(Counter(row.state for row in list(self.board.rows.values())))
        self._print("end", ", ".join(filter(None, [totals, best])))

    def say(self, text: str, event: str = "note") -> None:
        with self.lock:
            self._tell_reused()
            self._print(event, text)

    def tell(self, event: str, row: Row, text: str) -> None:
        self.say(text, event)

    def changed(self, row: Row) -> None:
        with self.lock:
            state, told = self.known.get(row.key, (None, 0.0))
            now = time.monotonic()
            again = state == row.state
            if again and (row.state != "running" or now - told < QUIET or row.epoch == row.epochs):
                return  # nothing new, or so soon after the last line or before the one that it is done
            self.known[row.key] = row.state, now
            if row.state == "reused":
                self.reused += 1
            elif row.state != "waiting":
                event = ("epoch" if again else "started") if row.state == "running" else row.state
                self._tell_reused()
                self._print(event, self._what(row, again=again))

    def _what(self, row: Row, *, again: bool) -> str:
        name, score = self._name(row), "" if row.score is None else f"  score {row.score:.3f}"
        chosen = f" ({row.choice})" if row.choice else ""
        match row.state:
            case "running" if again:
                left = self.outlook.left(row)
                speed = f"  {rate(row.speed)} img/s" if row.speed is not None else ""
                return f"{name}  {row.epoch}/{row.epochs}{score}{speed}" + (
                    "" if left is None else f"  {clock(left)} left"
                )
            case "running":
                epochs = f"{row.epochs} epochs" if row.epochs else "measured only"
                return f"{name}  {epochs}" + (f", from epoch {row.epoch}" if row.epoch else "")
            case "lost":
                above = self.board.rows.get(row.reason)
                return f"{name}  needs {self._name(above) if above else row.reason}, which failed"
            case "failed":
                return f"{name}: {row.reason}"
            case "paused":
                return f"{name}  after {row.epoch}/{row.epochs}{score}  in {clock(row.seconds)}"
            case "pruned":
                return f"{name}  {row.reason}{score}  in {clock(row.seconds)}"
        return f"{name}{score}{chosen}  in {clock(row.seconds)}"

    def _name(self, row: Row) -> str:
        alone = " alone" if row.role == "alone" else ""
        rows = self.board.rows
        if len(rows) != self.counted:  # a line is written of each stage: not every time are all looked through
            self.counted, self.seeds = len(rows), {other.seed for other in list(rows.values())}
        return f"{row.path}{alone}" + (f" (seed {row.seed})" if len(self.seeds) > 1 else "")

    def _tell_reused(self) -> None:
        if self.reused:
            number, self.reused = self.reused, 0
            self._print("reused", f"{number} stage{'' if number == 1 else 's'} trained before")

    def _beat(self) -> None:
        while not self.over.wait(HEARTBEAT):
            with self.lock:
                self._tell_reused()
                rows = list(self.board.rows.values())
                running = [self._name(row) for row in rows if row.state == "running"]
                more = f" and {len(running) - 4} more" if len(running) > 4 else ""
                what = f"{'; '.join(running[:4])}{more}" if running else "nothing"
                totals = tally(Counter(row.state for row in rows if row.state != "running"))
                part, left = self.outlook.now()
                ahead = f"{100 * part:.0f}%" + ("" if left is None else f", about {clock(left)} left")
                self._print("running", ". ".join(filter(None, [what, totals, ahead])))

    def _print(self, what: str, text: str) -> None:
        passed = clock(time.time() - self.board.started)
        with self.lock:
            print(f"{passed:>8}  {what:<8} {plain(text)}", file=self.stream, flush=True)
