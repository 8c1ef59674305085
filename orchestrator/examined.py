"""What an examination finds, and how commands are tried in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path as File
from typing import Literal, NamedTuple

State = Literal["well", "warning", "wrong"]
GIB = 2**30


class Finding(NamedTuple):
    """What was looked at, what was found, and how to mend it."""

    what: str
    state: State
    said: str
    mend: str = ""


def tried(words: Sequence[str], *, limit: float) -> tuple[int, str, str]:
    """Run a Python program in a process of its own; -> its exit code, its output, and the last line of its errors.

    After `limit` seconds it is ended with all that it started, and the exit code is 124.
    """
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [_sources(), os.environ.get("PYTHONPATH")]))}
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=own,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return 124, "", f"it did not end within {limit:g} seconds"
    finally:
        with suppress(ProcessLookupError):  # what it has started, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = [line for line in err.strip().splitlines() if line.strip()]
    return process.returncode, out.strip(), lines[-1].strip() if lines else ""


def _sources() -> str:
    """Where this very program lies, for a Python that is started elsewhere."""
    return str(File(__file__).parents[1])
