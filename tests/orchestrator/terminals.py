"""Terminals whose screens can be read."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path as File
from types import TracebackType

import pyte


class Tty:
    """A terminal of so many columns and lines: what is written to `stream` can be read on its screen."""

    def __init__(self, columns: int, lines: int) -> None:
        self.master, self.slave = os.openpty()
        self.screen = pyte.Screen(columns, lines)
        self.reader, self.lock = pyte.ByteStream(self.screen), threading.Lock()
        self.raw = b""
        self.resize(columns, lines)
        self.stream = os.fdopen(os.dup(self.slave), "w", buffering=1)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # nobody has the other end any more
                return
            with self.lock:
                self.raw += data
                self.reader.feed(data)

    def resize(self, columns: int, lines: int) -> None:
        with self.lock:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            self.screen.resize(lines, columns)

    def lines(self) -> list[str]:
        """What is on the screen now."""
        self.stream.flush()
        termios.tcdrain(self.slave)
        time.sleep(0.1)  # what was written is read by the other thread
        with self.lock:
            return [line.rstrip() for line in self.screen.display]

    def until(self, condition: Callable[[list[str]], bool], *, limit: float = 240) -> list[str]:
        """Wait for a screen of which this holds; -> it."""
        late = time.monotonic() + limit
        while not condition(lines := self.lines()):
            assert time.monotonic() < late, "\n".join(lines)
        return lines

    def cursor_shown(self) -> bool:
        with self.lock:
            return not self.screen.cursor.hidden

    def run(self, folder: File, *command: str) -> subprocess.Popen[bytes]:
        """Start a program on this terminal."""
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color"},
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )

    def __enter__(self) -> Tty:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()
        os.close(self.slave)
        self.thread.join(10)
        os.close(self.master)
