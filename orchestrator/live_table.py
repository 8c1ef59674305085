"""The run as a table in the terminal that refreshes itself."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.board import Board, Row, State
from orchestrator.outlook import Outlook
from orchestrator.verdict import leader
from orchestrator.words import arrow, clock, plain, rate, tally

STYLES: dict[State, str] = {
    "running": "cyan",
    "failed": "bold red",
    "lost": "yellow",
    "done": "green",
    "reused": "dim green",
    "waiting": "dim",
    "paused": "magenta",
    "pruned": "dim magenta",
}
NOTES = {"warning": "yellow", "retry": "yellow"}  # the style of what is said above the table
WIDE, MEDIUM = 72, 56  # columns of a terminal, from which on all is shown, or all but the speed
GAP = 2  # columns between two of the table
AIRY = 20  # lines of a terminal from which on one is left blank
REFRESH = 0.5  # seconds between two frames
REASONS = 3  # failures that are told below the table while it lives


class Terminal(Console):
    """A console that asks its own stream for the size: another may be diverted by now, and COLUMNS out of date."""

    @property
    def size(self) -> ConsoleDimensions:
        try:
            columns, lines = os.get_terminal_size(self.file.fileno())
            if columns and lines:
                return ConsoleDimensions(columns, lines)
        except (OSError, ValueError):
            pass
        return super().size

    @size.setter
    def size(self, new: tuple[int, int]) -> None:
        self._width, self._height = new


class LiveTable:
    """How far all is, and a row a stage: a tree of paths while they all fit, else the most urgent ones."""

    def __init__(self, board: Board, stream: TextIO, outlook: Outlook) -> None:
        self.board, self.outlook = board, outlook
        self.console = Terminal(file=stream, highlight=False, markup=False, emoji=False, force_terminal=True)
        self.best: str | None = None  # None: to be worked out
        self.said: deque[Text] = deque(maxlen=50)  # above the table, to be said once more where that was cleared
        self.size = self.console.size
        self.lock = threading.RLock()  # of the screen
        self.over = threading.Event()
        self.live = self._begun()
        self.painter = threading.Thread(target=self._paint, name="table", daemon=True)

    def _begun(self) -> Live:
        # Others print into the log, so nothing needs to be caught here.
        return Live(
            get_renderable=self.render,
            console=self.console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def start(self) -> None:
        self.live.start(refresh=True)
        self.painter.start()

    def stop(self) -> None:
        self.over.set()
        self.painter.join()
        self.live.stop()

    def _paint(self) -> None:
        while not self.over.wait(REFRESH):
            with self.lock:
                if self.console.size != self.size:
                    self._resized()
                self.live.refresh()

    def _resized(self) -> None:
        """A terminal of another size has folded the lines of the last frame anew: begin on a clear screen."""
        self.size = self.console.size
        self.live.stop()
        self.console.clear()
        for line in list(self.said)[-max(1, self.size.height // 4) :]:
            self.console.print(line)
        self.live = self._begun()
        self.live.start()

    def leave(self) -> None:
        """The process ends at once: give the cursor back."""
        self.console.show_cursor(True)

    def changed(self, row: Row) -> None:
        if row.role in ("student", "alone") and row.state != "running":
            self.best = None

    def say(self, text: str, event: str = "note") -> None:
        line = Text(plain(f"warning: {text}" if event == "warning" else text), style=NOTES.get(event, ""))
        with self.lock:
            self.said.append(line)
            self.console.print(line)

    def tell(self, event: str, row: Row, text: str) -> None:
        self.say(text, event)

    def render(self) -> RenderableType:
        """The frame of this moment, no higher than the screen."""
        rows, height = list(self.board.rows.values()), self.console.height
        head = self._header(rows)
        failed = [row for row in rows if row.state == "failed"]
        reasons = [] if self.over.is_set() else failed[-min(REASONS, max(0, (height - 9) // 3)) or len(failed) :]
        room = max(1, height - len(head) - len(reasons) - 3)  # a table has two lines above its rows; one is spare
        shown, tree = rows_as_tree(rows), True
        if len(rows) > room:
            shown, tree = self._urgent(rows, max(1, room - 1)), False
        rest = Counter(row.state for row in rows) - Counter(row.state for row in shown)
        more = [Text(f"and {tally(rest)}", style="dim")] if rest else []
        told = [_line(f"{row.path}: {row.reason}", STYLES["failed"]) for row in reasons]
        return Group(*head, self._table(shown, tree=tree, several=len({row.seed for row in rows}) > 1), *more, *told)

    def _header(self, rows: list[Row]) -> list[RenderableType]:
        if self.best is None:
            self.best = leader(self.board)
        counts = Counter(row.state for row in rows)
        title = Text(plain(self.board.name), style="bold", no_wrap=True, overflow="ellipsis")
        for state in STYLES:
            if counts[state]:
                title.append(f"  {counts[state]} {state}", style=f"not bold {STYLES[state]}")
        lines: list[RenderableType] = [title, self._total()]
        lines += [_line(self.best, "")] if self.best else []
        return [*lines, Text("")] if self.console.height >= AIRY else lines

    def _total(self) -> RenderableType:
        """A bar of the work of the whole run, and the time that it has taken and still takes."""
        part, left = self.outlook.now()
        words = [f"{100 * part:3.0f}%", clock(time.time() - self.board.started)]
        if left is not None and part < 1:
            words.append(f"about {clock(left)} left")
        line = Table.grid(padding=(0, 2))
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        width = max(5, min(40, self.console.width - 36))
        bar = ProgressBar(100, 100 * part, width=width, complete_style="cyan", finished_style="green", style="dim")
        line.add_row(bar, Text("  ".join(words)))
        return line

    def _table(self, shown: list[Row], *, tree: bool, several: bool) -> Table:
        width = self.console.width
        headings = [
            "epoch",
            *(["img/s"] if width >= WIDE else []),
            "score",
            *(["time"] if width >= MEDIUM else []),
            "left",
        ]
        cells = [[row.state, *map(self._figures(row).__getitem__, headings)] for row in shown]
        widths = [max(map(len, column)) for column in zip(["state", *headings], *cells, strict=True)]
        room = max(5, width - sum(max(5, one) + GAP for one in (7, *widths[1:])))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, border_style="dim")
        table.add_column("stage", no_wrap=True, overflow="ellipsis", max_width=room)
        table.add_column("state", no_wrap=True, min_width=7)  # of the longest: it stays where it is
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True, min_width=5)
        for row, (state, *figures) in zip(shown, cells, strict=True):
            name = self._name(row, tree=tree, several=several, room=room)
            table.add_row(Text(name), Text(state, style=STYLES[row.state]), *map(Text, figures))
        return table

    def _urgent(self, rows: list[Row], room: int) -> list[Row]:
        """The rows to show when not all fit: running ones, failed ones, those that ended last, and what is next."""
        order: list[State] = ["running", "failed", "done", "paused", "pruned", "waiting"]
        urgent = [row for row in rows if row.state in order]
        heard = self.outlook.heard
        urgent.sort(key=lambda row: (order.index(row.state), row.group, -heard.get(row.key, 0)))
        return urgent[:room]

    def _name(self, row: Row, *, tree: bool, several: bool, room: int) -> str:
        """What stage it is, in so many cells if that can be: of a long path the last models."""
        together = self.outlook.together(row) if row.state == "running" else 1
        chosen = f"best epoch {row.selected}" if self.console.width < 100 else row.choice
        notes = [
            "alone" if row.role == "alone" else "",
            f"seed {row.seed}" if several else "",
            f"@{row.path.budget:g}" if row.path.budget != 1 else "",
            f"({chosen})" if row.choice else "",
            f"({together} together)" if together > 1 else "",
        ]
        said = "".join(f" {note}" for note in notes if note)
        names = [plain(name) for name in row.path.models]
        if tree:
            return "  " * (len(names) - 1) + ("> " if names[1:] else "") + names[-1] + said
        name = arrow(names)
        while len(names) > 1 and cell_len(name + said) > room:
            name, names = arrow(["...", *names[1:]]), names[1:]
        return name + said

    def _figures(self, row: Row) -> dict[str, str]:
        since, left = self.outlook.since(row), self.outlook.left(row)  # the figures of a row are of its last epoch
        seconds = row.seconds + since
        return {
            "epoch": "" if row.state in ("waiting", "lost") else f"{row.epoch}/{row.epochs}",
            "img/s": rate(row.speed),
            "score": "" if row.score is None else f"{row.score:.3f}",
            "time": clock(seconds) if seconds else "",
            "left": clock(left) if left else "",
        }


def rows_as_tree(rows: list[Row]) -> list[Row]:
    """Each teacher followed by those it teaches, in the order in which they came; seed by seed."""
    order = {row.key: i for i, row in enumerate(rows)}
    return sorted(rows, key=lambda row: [order.get(stage.key, -1) for stage in row.stage.lineage])


def _line(text: str, style: str) -> Text:
    return Text(plain(text), style=style, no_wrap=True, overflow="ellipsis")
