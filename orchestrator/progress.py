"""How a run speaks: a live table, plain lines, JSON lines, or its answer alone."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from orchestrator.board import Board, Row
from orchestrator.json_lines import JsonLines, answers
from orchestrator.outlook import Outlook
from orchestrator.plain_lines import Lines
from orchestrator.words import plain
from trainers.spec import Stage

if TYPE_CHECKING:
    from orchestrator.live_table import LiveTable

NARROW = 20  # columns; on fewer nothing is broken
Manner = Literal["", "quiet", "json"]  # empty: as the stream can


class View(Protocol):
    """What is told of all that happens."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def changed(self, row: Row) -> None: ...
    def say(self, text: str, event: str = "note") -> None: ...
    def tell(self, event: str, row: Row, text: str) -> None: ...


class Progress:
    """Shows a board from `with` to the end of it. Names and reasons are text, never markup.

    `err` is where people see how it goes, `out` where the answer is printed, or by the manner "json" every event;
    `log` gets plain lines, whatever is shown. `live`: a table that refreshes itself; None: where `err` is a terminal
    that can.
    """

    def __init__(
        self,
        board: Board,
        *,
        out: TextIO,
        err: TextIO,
        log: TextIO | None = None,
        manner: Manner = "",
        live: bool | None = None,
    ) -> None:
        self.board, self.out, self.err, self.manner = board, out, err, manner
        self.outlook = Outlook(board)
        self.json = JsonLines(board, out, self.outlook) if manner == "json" else None
        self.table: LiveTable | None = None
        if not manner and (able(err) if live is None else live):
            from orchestrator.live_table import LiveTable  # loads rich

            self.table = LiveTable(board, err, self.outlook)
        lines = None if manner or self.table else Lines(board, err, self.outlook)
        self.shown: View | None = self.json or self.table or lines  # None: nothing
        kept = Lines(board, log, self.outlook) if log else None
        self.views: list[View] = [view for view in (self.shown, kept) if view is not None]

    @property
    def told(self) -> bool:
        """Whether whoever reads the answer has read by then why stages failed: both go where no terminal is, as into
        the log of a job."""
        return isinstance(self.shown, Lines) and not self.out.isatty()

    def __enter__(self) -> Progress:
        for view in self.views:
            view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for view in self.views:
            view.stop()

    def begin(self, log: str) -> None:
        """Say where the log is; before anything else."""
        if self.json:
            self.json.begin(version("tapath"), log)
        elif not self.manner:
            print(f"log: {plain(log)}", file=self.err, flush=True)

    def expect(self, made: Mapping[str, Any], cost: Callable[[Stage], float], *, whole: bool) -> None:
        """Take a forecast of the run, as `Outlook` does."""
        self.outlook.expect(made, cost, whole=whole)

    def changed(self, row: Row) -> None:
        """The driver changed this row."""
        self.outlook.changed(row)
        for view in self.views:
            view.changed(row)

    def say(self, text: str) -> None:
        """Say something that is of no stage."""
        for view in self.views:
            view.say(text)

    def tell(self, event: str, row: Row, text: str) -> None:
        """Say something of a stage."""
        for view in self.views:
            view.tell(event, row, text)

    def warn(self, text: str) -> None:
        """Warn, whatever the manner; the log has it already."""
        if self.shown is not None:
            self.shown.say(text, "warning")
        if self.manner:
            print(f"warning: {plain(text)}", file=self.err, flush=True)

    def leave(self) -> None:
        """The process ends at once."""
        if self.table:
            self.table.leave()

    def answer(self, lines: list[str], summary: Mapping[str, Any], *, page: str, code: int) -> None:
        """Say what came of it."""
        if self.json:
            self.json.end(code, report=page, **answers(summary))
            return
        for line in [*lines, f"report: {page}"]:
            print(folded(line, self.out), file=self.out, flush=True)

    def broken(self, code: int, reason: str) -> None:
        """Nothing came of it; whoever started the run is told by an error of why. Of what was refused no line was
        written, and there is no last one."""
        if self.json and self.json.begun:
            self.json.end(code, reason=reason)


def folded(line: str, stream: TextIO) -> str:
    """A sentence that is longer than a terminal is wide, broken between words; anything else as it is."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # it is none
        return line
    if len(line) <= width or line.startswith((" ", "report: ")) or width < NARROW:
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def able(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a table can refresh itself."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
