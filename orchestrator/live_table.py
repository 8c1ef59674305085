"""The run as a table in the terminal that refreshes itself."""

from __future__ import annotations

import sys
import time
from collections import Counter

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.board import Board, Row, State
from orchestrator.verdict import arrow, clock, leader, plain, tally

STYLES: dict[State, str] = {
    "running": "cyan",
    "failed": "bold red",
    "lost": "yellow",
    "done": "green",
    "reused": "green",
    "waiting": "dim",
    "paused": "dim",
    "pruned": "dim",
}


class LiveTable:
    """One row a stage, as a tree of paths while they all fit; else what runs, failed and ended last."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board, self.console = board, console
        self.touched: dict[str, float] = {}  # when a row changed last, by key
        self.best: str | None = None  # None: to be worked out
        self.live = Live(
            get_renderable=self.render,
            console=console,
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a pipe stays there
        )

    def start(self) -> None:
        self.live.start(refresh=True)

    def stop(self) -> None:
        self.live.stop()

    def changed(self, row: Row) -> None:
        self.touched[row.key] = time.time()
        if row.role in ("student", "alone") and row.state != "running":
            self.best = None

    def say(self, text: str) -> None:
        self.console.print(Text(text))

    def render(self) -> RenderableType:
        rows = list(self.board.rows.values())
        room = max(3, self.console.height - 6)
        shown, tree = (rows_as_tree(rows), True) if len(rows) <= room else (self._urgent(rows, room), False)
        seeds = len({row.seed for row in rows}) > 1
        table = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1) if self.console.width >= 72 else 0,
            pad_edge=False,
            show_edge=False,
        )
        table.add_column("stage", no_wrap=True, overflow="ellipsis")
        table.add_column("state", no_wrap=True, min_width=7)
        for heading in ("epoch", "score", "time", "left"):
            table.add_column(heading, justify="right", no_wrap=True, min_width=5)
        for row in shown:
            table.add_row(*self._cells(row, tree=tree, seeds=seeds))
        rest = Counter(row.state for row in rows) - Counter(row.state for row in shown)
        more = [Text(f"and {tally(rest)}", style="dim")] if rest else []
        failed = [row for row in shown if row.state == "failed"][:3]
        reasons = [Text(plain(f"{row.path}: {row.reason:.300}"), style=STYLES["failed"]) for row in failed]
        return Group(*self._header(rows), table, *more, *reasons)

    def _header(self, rows: list[Row]) -> list[Text]:
        if self.best is None:
            self.best = leader(self.board)
        passed = clock(time.time() - self.board.started)
        totals = tally(Counter(row.state for row in rows))
        lines = [f"{self.board.name}  {totals}  {passed}", self.best]
        return [_line(line, style) for line, style in zip(lines, ("bold", ""), strict=True) if line]

    def _urgent(self, rows: list[Row], room: int) -> list[Row]:
        """The rows to show when not all fit: running ones, failed ones, then those that ended last."""
        order: list[State] = ["running", "failed", "done"]
        urgent = [row for row in rows if row.state in order]
        urgent.sort(key=lambda row: (order.index(row.state), -self.touched.get(row.key, 0)))
        return urgent[:room]

    def _cells(self, row: Row, *, tree: bool, seeds: bool) -> list[Text]:
        now = time.time()
        names = row.path.models
        name = "  " * (len(names) - 1) + ("> " if names[1:] else "") + names[-1] if tree else arrow(names)
        notes = [
            "alone" if row.role == "alone" else "",
            f"seed {row.seed}" if seeds else "",
            f"@{row.path.budget:g}" if row.path.budget != 1 else "",
            f"({row.choice})" if row.choice else "",
        ]
        seconds, left = row.seconds, row.left
        if row.state == "running":
            since = now - self.touched.get(row.key, now)  # the figures of a row are as old as its last epoch
            seconds, left = seconds + since, None if left is None else max(0.0, left - since)
        return [
            Text(" ".join(filter(None, [name, *notes]))),
            Text(row.state, style=STYLES[row.state]),
            Text("" if row.state in ("waiting", "lost") else f"{row.epoch}/{row.epochs}"),
            Text("" if row.score is None else f"{row.score:.3f}"),
            Text(clock(seconds) if seconds else ""),
            Text("" if left is None else clock(left)),
        ]


def rows_as_tree(rows: list[Row]) -> list[Row]:
    """Each teacher followed by those it teaches, in the order in which they came; seed by seed."""
    order = {row.key: i for i, row in enumerate(rows)}
    return sorted(rows, key=lambda row: [order.get(stage.key, -1) for stage in row.stage.lineage])


def _line(text: str, style: str) -> Text:
    return Text(plain(text), style=style, no_wrap=True, overflow="ellipsis")
