"""Tiny studies and the processes that run them: nine stages of a third of a second, each command as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as File
from tempfile import TemporaryFile
from typing import IO, Any

from orchestrator.cores import cores as usable
from orchestrator.reach import LOOPBACK
from tests.orchestrator import ready

TAPATH = str(File(sys.executable).with_name("tapath"))
MODULE = (sys.executable, "-m", "orchestrator")
CPUS = usable()
LIMIT = 900.0  # seconds that a command may take, on a machine that is busy with other tests

# Line numbers count: the tests of bad input look for them.
TEXT = """\
name: tiny
data: {Digits: {classes: 3, train: 32, val: 16}}
models:
  big: {detector: {GFL: {channels: 16, convs: 1, extra: 0, reg_max: 8}}, backbone: {TinyResNet: {width: 16}}}
  mid: {detector: {GFL: {channels: 16, convs: 1, extra: 0, reg_max: 8}}, backbone: {TinyResNet: {width: 12}}}
  low: {detector: {GFL: {channels: 16, convs: 1, extra: 0, reg_max: 8}}, backbone: {TinyResNet: {width: 8}}}
  wee: {detector: {GFL: {channels: 8, convs: 1, extra: 0, reg_max: 8}}, backbone: {TinyResNet: {width: 4}}}
recipe: {epochs: 2, batch: 8, optimizer: AdamW, lr: 0.008, schedule: OneCycle, warmup: 0, flip: 0}
distill: [{LD: {weight: 0.25, temperature: 10}}]
controls: [alone]
"""

PATHS = [("big", "wee"), ("big", "mid", "wee"), ("big", "low", "wee"), ("big", "mid", "low", "wee")]
STAGES = {("big",), ("big", "mid"), ("big", "low"), ("big", "mid", "low"), *PATHS, ("wee",)}


def changed(*changes: tuple[str, str], text: str = TEXT) -> str:
    """The study with each old part replaced by a new one."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def without(*names: str, text: str = TEXT) -> str:
    """The study without these models."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.strip().startswith(tuple(f"{name}:" for name in names)))


def write(folder: File, text: str = TEXT, name: str = "tiny.yaml") -> File:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


def report(folder: File, study: str = "tiny") -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "runs" / study / "report.json").read_text())
    return made


def stages(folder: File, study: str = "tiny") -> dict[tuple[str, ...], dict[str, Any]]:
    """The stages of a report, by path."""
    return {tuple(stage["path"]): stage for stage in report(folder, study)["stages"]}


def stored(folder: File, store: str = "store") -> dict[str, tuple[float, str]]:
    """What a store has: by key the score and the digest of the weights, which is their every bit."""
    results = {file.parent.name: json.loads(file.read_text()) for file in (folder / store).glob("*/result.json")}
    return {key: (result["score"], result["sha256"]) for key, result in results.items()}


def written(folder: File, store: str = "store") -> dict[str, tuple[int, int]]:
    """When each finished stage was stored, and in which file: changed by whoever stores it again."""
    files = {file.parent.name: file.stat() for file in (folder / store).glob("*/result.json")}
    return {key: (stat.st_mtime_ns, stat.st_ino) for key, stat in files.items()}


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float


def environment() -> dict[str, str]:
    """This process's, without what would lead a command to a cluster or a server elsewhere, nor what Ray left in it
    when a test was connected: no shell has that, and with it a command would have to load everything anew."""
    without = {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAY_CLIENT_MODE", "RAY_USAGE_STATS_ENABLED", "PYTHONBREAKPOINT"}
    if "RAY_AUTH_TOKEN" not in os.environ:
        without.add("RAY_AUTH_MODE")
    return {name: value for name, value in os.environ.items() if name not in without}


def tapath(
    folder: File,
    *words: str,
    program: tuple[str, ...] | None = None,
    cores: int | None = 1,
    limit: float = LIMIT,
    **variables: str,
) -> Ran:
    """Run `tapath WORDS` in a folder, as a user would; `variables`: of its environment, beside this process's.

    `program`: what to start for it; else it is a process that has loaded everything, and took no time for it. `cores`:
    as if the machine had so many; None: all that it has. With one a run needs but one process that trains, and to start
    that takes longer than a tiny study.
    """
    with TemporaryFile() as out, TemporaryFile() as err:
        since = time.monotonic()
        command = start(folder, words, {**environment(), **variables}, out, err, program=program, cores=cores)
        try:
            code = command.wait(limit)
        finally:
            command.kill()
        seconds = time.monotonic() - since
        return Ran(code, _read(out), _read(err), seconds)


def start(
    folder: File,
    words: Sequence[str],
    own: dict[str, str],
    out: IO[bytes],
    err: IO[bytes],
    *,
    alone: bool = False,
    program: tuple[str, ...] | None = None,
    cores: int | None = None,
) -> ready.Command | subprocess.Popen[bytes]:
    """A command underway; `own`: its environment; `alone`: in a process group of its own, as under a terminal."""
    if program is None and "--address" not in words and "RAY_ADDRESS" not in own:
        own = {LOOPBACK: "0", **own}  # as the command itself would before it loads Ray
    if program is None and ready.fits(own):
        files = {"out": out.fileno(), "err": err.fileno()}
        return ready.Command(words, folder=folder, environment=own, alone=alone, cores=cores, **files)
    line = [*(program or (TAPATH,)), *words]
    return subprocess.Popen(line, cwd=folder, env=own, stdout=out, stderr=err, start_new_session=alone)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


Process = tuple[int, int]  # its id, and when it started: ids are used again


class Underway:
    """A command that runs in a process group of its own, as under a terminal."""

    def __init__(
        self, folder: File, *words: str, program: tuple[str, ...] | None = None, cores: int | None = 1
    ) -> None:
        """`program` and `cores` as `tapath` has them."""
        self.log = folder / f"log-{time.monotonic_ns()}.txt"
        with self.log.open("wb") as log:
            self.popen = start(folder, words, environment(), log, log, alone=True, program=program, cores=cores)
        self.seen: set[Process] = set()

    @property
    def text(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], Any], *, limit: float = LIMIT) -> None:
        """Look again and again; fail when the command ends before the condition holds."""
        late = time.monotonic() + limit
        while not condition():
            assert self.popen.poll() is None, f"it ended with {self.popen.returncode} before its time:\n{self.text}"
            assert time.monotonic() < late, f"nothing came within {limit} s:\n{self.text}"
            time.sleep(0.05)

    def look(self) -> set[Process]:
        """All processes that the command has started so far, by their parents."""
        self.seen |= descendants(self.popen.pid)
        return self.seen

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends it to the whole group."""
        os.killpg(self.popen.pid, signal.SIGINT)

    def end(self, limit: float = LIMIT) -> int:
        """Wait for the command to end by itself; -> its exit code."""
        return self.popen.wait(limit)

    def left(self, *, patience: float, beside: tuple[str, ...] = ()) -> set[Process]:
        """The processes still alive after so many seconds at most, but for command lines with one of `beside`."""
        late = time.monotonic() + patience
        while alive := {p for p in self.seen if lives(p) and not any(b in command_line(p) for b in beside)}:
            if time.monotonic() > late:
                break
            time.sleep(0.1)
        return alive


@contextmanager
def underway(
    folder: File, *words: str, program: tuple[str, ...] | None = None, cores: int | None = 1
) -> Iterator[Underway]:
    """A command that surely has ended, with all that it started, when the block ends."""
    command = Underway(folder, *words, program=program, cores=cores)
    try:
        yield command
    finally:
        if command.popen.poll() is None:
            command.look()
            command.popen.kill()
            command.popen.wait()
        for pid, _ in command.left(patience=30):
            os.kill(pid, signal.SIGKILL)


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent, ...; empty if there is no such process."""
    try:
        return File(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def lives(process: Process) -> bool:
    fields = stat(process[0])
    return bool(fields) and fields[0] not in "ZX" and int(fields[19]) == process[1]


def descendants(pid: int) -> set[Process]:
    """A process and all below it."""
    table = {int(file.name): fields for file in File("/proc").glob("[0-9]*") if (fields := stat(int(file.name)))}
    found, new = set(), {pid} & table.keys()
    while new:
        found |= new
        new = {child for child, fields in table.items() if int(fields[1]) in new} - found
    return {(found_pid, int(table[found_pid][19])) for found_pid in found}


def command_line(process: Process) -> str:
    try:
        return File(f"/proc/{process[0]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
