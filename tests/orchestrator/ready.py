"""Commands in processes that have everything loaded already: to load what a run needs takes longer than a tiny run.

One process loads it, and each command is a fork of that one, with a folder, an environment and an output of its own:
what a process of `tapath` is some seconds after its start. A test cannot wait for what is not its own child, so the
process above each command does: it tells the command's id, and how it ended.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from importlib import import_module
from pathlib import Path as File
from typing import Any

from orchestrator.reach import LOOPBACK

ROOT = File(__file__).parents[2]
PROGRAM = File(sys.executable).with_name("tapath")
LONGEST = 1 << 17  # bytes of a request
BEFORE = dict(os.environ)  # as no test has changed it yet
# What libraries read while they are loaded, with the few of these that are read later.
EARLY = ("RAY_", "TUNE_", "MLFLOW_", "OMP_", "MKL_", "OPENBLAS_", "PYTHON", "TORCH", "CUDA_")
AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")  # which Ray can be told to read again
LATE = (*AUTH, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL")

# What a run needs, `best` and `plan` need too; the last ones are loaded late, by what they belong to.
ALL = (
    "orchestrator.session",
    "orchestrator.trial",
    "trainers.seen",
    "torch._dynamo",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
)


class Command:
    """A command underway, with the part of `subprocess.Popen` that the tests need."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        folder: File,
        environment: dict[str, str],
        out: int,
        err: int,
        alone: bool,
        cores: int | None = None,
    ) -> None:
        """`out`, `err`: descriptors to write to; `alone`: in a session, and so a process group, of its own; `cores`: as
        if the machine had so many."""
        heard, telling = os.pipe()
        asked = {
            "words": list(words),
            "folder": str(folder),
            "environment": environment,
            "alone": alone,
            "cores": cores,
        }
        ours = _loaded(LOOPBACK in environment)[0]
        socket.send_fds(ours, [json.dumps(asked).encode()], [out, err, telling])
        os.close(telling)
        self._heard = os.fdopen(heard, "rb", buffering=0)
        self.pid = int(self._heard.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, -N where signal N ended it; None while it runs."""
        if self.returncode is None and select.select([self._heard], [], [], 0)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._heard.readline()))
            self._heard.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """-> the exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended within so many seconds.
        """
        if self.returncode is None:
            select.select([self._heard], [], [], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("tapath", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fits(environment: dict[str, str]) -> bool:
    """Whether a command would have loaded under this environment what is loaded."""
    _, before, after = _loaded(LOOPBACK in environment)
    wanted = _early(environment)
    return wanted.items() <= after.items() and before.keys() <= wanted.keys()


def _early(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(EARLY) and name not in LATE}


@cache
def _loaded(at_home: bool) -> tuple[socket.socket, dict[str, str], dict[str, str]]:
    """To a process with everything loaded; what libraries read of its environment before, and what they left.

    `at_home`: whether a Ray that starts there keeps to this machine, as Ray decides while it is loaded.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = {name: value for name, value in BEFORE.items() if name not in LATE}
    if at_home:
        before[LOOPBACK] = "0"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.orchestrator.ready", str(its.fileno())],
        cwd=ROOT,
        env=before,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[its.fileno()],
    )
    its.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # runs first, and is what ends the process
    return ours, _early(before), _early(json.loads(ours.recv(LONGEST)))


def serve(end: socket.socket) -> Callable[[], None] | None:
    """Fork for each request until nobody asks any more; -> in a fork, the command to run."""
    before = set(os.environ)
    from orchestrator import cluster
    from orchestrator.cli import main

    for name in ALL:
        import_module(name)
    _know_packages()
    _have_tables()
    _unwatched()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    end.send(json.dumps(dict(os.environ)).encode())
    added = {name: value for name, value in os.environ.items() if name not in before}
    while True:
        request, descriptors, *_ = socket.recv_fds(end, LONGEST, 3)
        if not request:
            return None
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end.close()
    asked, (out, err, telling) = json.loads(request), descriptors
    if pid := os.fork():
        os.write(telling, b"%d\n" % pid)
        os.write(telling, b"%d\n" % os.waitpid(pid, 0)[1])
        os._exit(0)
    os.close(telling)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    if asked["alone"]:
        os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(added | asked["environment"])
    if not {*AUTH}.isdisjoint(os.environ):
        forget()
    if asked["cores"]:
        cluster.cores = lambda: asked["cores"]
    sys.argv = [str(PROGRAM), *asked["words"]]
    sys.path[0] = str(PROGRAM.parent)
    return main


def forget() -> None:
    """Have Ray read the environment again, which it does once, and the token, which it keeps."""
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _unwatched() -> None:
    """Have a Ray that starts here go without its autoscaler, its reader of logs and what is left of its dashboard where
    none is wanted: a run never listens to them, and to start the three takes as long as to train the study."""
    from ray._private.node import Node

    Node.start_monitor = Node.start_log_monitor = Node.start_api_server = lambda node, **asked: None


def _know_packages() -> None:
    """Have MLflow read the names of all that is installed, as it does when a process registers its first model."""
    from mlflow.utils import requirements_utils

    requirements_utils._init_packages_to_modules_map()


def _have_tables() -> None:
    """Have MLflow make the tables of a SQLite database once, by all its migrations; new ones are copies of this one."""
    from mlflow.store.db import utils

    make = utils._initialize_tables
    model = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/mlflow.db"
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{file}")
        make(engine)
        engine.dispose()
        with closing(sqlite3.connect(file)) as made:
            made.backup(model)

    def copied(engine: Any) -> None:
        if engine.dialect.name == "sqlite" and utils._is_empty_database(engine):
            with closing(sqlite3.connect(engine.url.database, timeout=60)) as new:
                model.backup(new)
        else:
            make(engine)

    utils._initialize_tables = copied


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        command = serve(asking)
    if command is not None:
        command()
