"""What Ray, MLflow and other libraries print goes into a log file, so that the terminal has our own lines alone."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import TextIO

from orchestrator.masking import without_secrets
from trainers.call import Invalid

OURS = ("orchestrator", "trainers")  # whose warnings are for people
FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Unexpected(RuntimeError):
    """Something went wrong that nobody has thought of. Its cause says what, the file `log` where."""

    def __init__(self, log: str) -> None:
        super().__init__(f"see {log}")
        self.log = log


@dataclass
class Aside:
    """Where a run speaks, and where everybody else does."""

    out: TextIO  # what it is asked for
    err: TextIO  # how it goes
    log: TextIO  # what nobody needs to read while all is well
    file: str = ""  # where the log lies; empty: nowhere yet
    warn: Callable[[str], None] = lambda text: None  # told of warnings of ours
    _diverted: list[int] = field(default_factory=list)  # descriptors that lead into the log

    def keep(self, file: File) -> None:
        """Have the log at the end of this file from now on, with all that it has so far."""
        file.parent.mkdir(parents=True, exist_ok=True)
        there = file.open("a+", buffering=1, errors="backslashreplace")
        self.log.flush()
        self.log.seek(0)
        shutil.copyfileobj(self.log, there)
        there.flush()
        os.dup2(there.fileno(), self.log.fileno())  # for whoever holds it already
        for fd in self._diverted:
            os.dup2(there.fileno(), fd)
        there.close()
        self.file = str(file)

    def copy(self, folder: File) -> None:
        """Put the log, as far as it is written, into a folder beside what else a run leaves."""
        if self.file:
            self.log.flush()
            with suppress(shutil.SameFileError, OSError):
                shutil.copyfile(self.file, folder / File(self.file).name)


@contextmanager
def aside() -> Iterator[Aside]:
    """While the block runs all that this process prints, and libraries log, goes aside; but what is written to the
    streams that it is given. An error that nobody has thought of is logged; it becomes `Unexpected` if the log is kept.
    """
    with tempfile.TemporaryFile("w+", buffering=1, errors="backslashreplace") as log:
        streams = Aside(kept(sys.stdout, 1), kept(sys.stderr, 2), log)
        try:
            with diverted(streams), logging_to(streams):
                yield streams
        except Exception as error:
            if isinstance(error, Invalid | BrokenPipeError):
                raise
            log.write(without_secrets("".join(traceback.format_exception(error))))
            if not streams.file:
                raise
            raise Unexpected(streams.file) from error
        finally:
            for stream, whole in ((streams.out, sys.stdout), (streams.err, sys.stderr)):
                if stream is not whole:
                    stream.close()


def kept(stream: TextIO, descriptor: int) -> TextIO:
    """The stream, by another descriptor if it has the one that is about to be diverted."""
    try:
        if stream.fileno() != descriptor:
            return stream
    except (AttributeError, OSError, ValueError):  # there is none, or no file behind it
        return stream
    return open(os.dup(descriptor), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)


@contextmanager
def diverted(streams: Aside) -> Iterator[None]:
    """Descriptors 1 and 2, to which C++ and child processes write past Python, lead into the log."""
    before: dict[int, int] = {}
    for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
        with suppress(OSError, ValueError, AttributeError):  # it is closed
            stream.flush()
            before[fd] = os.dup(fd)
            os.dup2(streams.log.fileno(), fd)
            streams._diverted.append(fd)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr, streams.out, streams.err):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        for fd, was in before.items():
            os.dup2(was, fd)
            os.close(was)


class Spoken(logging.Handler):
    """Hands warnings on to people."""

    def __init__(self, streams: Aside) -> None:
        super().__init__(logging.WARNING)
        self.streams = streams

    def emit(self, record: logging.LogRecord) -> None:
        self.streams.warn(record.getMessage())


class Masked(logging.Formatter):
    """Writes no password of any address."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


@contextmanager
def logging_to(streams: Aside) -> Iterator[None]:
    """Python's loggers write into the log, and the warnings of ours are said as well."""
    root, whole, spoken = logging.getLogger(), logging.StreamHandler(streams.log), Spoken(streams)
    whole.setFormatter(Masked(FORM))
    level = root.level
    root.addHandler(whole)
    root.setLevel(logging.INFO)
    for name in OURS:
        logging.getLogger(name).addHandler(spoken)
    try:
        yield
    finally:
        for name in OURS:
            logging.getLogger(name).removeHandler(spoken)
        root.removeHandler(whole)
        root.setLevel(level)
