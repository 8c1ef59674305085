"""Servers for MLflow, real ones, on 127.0.0.1: PostgreSQL, an S3 API, and MLflow's own, which tests kill and freeze."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path as File
from typing import Any

from tests.orchestrator.heads import ports
from tests.orchestrator.studies import environment

MLFLOW = str(File(sys.executable).with_name("mlflow"))
LEAN = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}  # no jobs of its own


class Mlflow:
    """An `mlflow server` that may be killed, and started again at the same address."""

    def __init__(self, folder: File, *words: str, **variables: str) -> None:
        """`words`: its options, beside those that say where it listens."""
        (self.port,) = ports(1)
        self.folder, self.words, self.variables = folder, words, variables
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, limit: float = 120) -> None:
        """Have it answer."""
        words = [MLFLOW, "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", *self.words]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                words,
                cwd=self.folder,
                env={**environment(), **LEAN, **self.variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        late = time.monotonic() + limit
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < late, (self.folder / "server.log").read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def signal(self, number: int) -> None:
        """Send all its processes a signal."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """As by a power cut."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def mlflow(folder: File, *words: str, **variables: str) -> Iterator[Mlflow]:
    """An MLflow server that has started, and surely has ended after the block."""
    server = Mlflow(folder, *words, **variables)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def postgres(user: str, password: str) -> Iterator[str]:
    """A PostgreSQL server with a database of this user, who needs the password; -> HOST:PORT/DATABASE."""
    import pgserver

    # Short, for the name of its socket has a limit; and of a user's own, for PostgreSQL does not run as root.
    folder = File(tempfile.mkdtemp(prefix="tapath-", dir="/tmp"))
    server = pgserver.get_server(folder / "pg", cleanup_mode="delete")
    server.psql(f"CREATE USER {user} PASSWORD '{password}'; CREATE DATABASE {user} OWNER {user};")
    (folder / "pg" / "pg_hba.conf").write_text(
        "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8"
    )
    (port,) = ports(1)
    own = {"pgdata": server.pgdata, "user": server.system_user}
    pgserver.pg_ctl(["-w", "-m", "fast", "stop"], **own)
    listening = f"-h 127.0.0.1 -p {port} -k {server.pgdata}"
    pgserver.pg_ctl(["-w", "-o", listening, "-l", str(server.log), "start"], timeout=60, **own)
    try:
        yield f"127.0.0.1:{port}/{user}"
    finally:
        pgserver.pg_ctl(["-w", "-m", "immediate", "stop"], **own)
        server._postmaster_info = None  # it was started again since, and has been stopped
        server.cleanup()
        folder.rmdir()


@contextmanager
def bucket(name: str, keys: Mapping[str, str]) -> Iterator[str]:
    """An S3 API with a bucket; -> its address. `keys`: AWS's variables, which its clients need."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        s3(address, keys).create_bucket(Bucket=name)
        yield address
    finally:
        server.stop()


def s3(address: str, keys: Mapping[str, str]) -> Any:
    """A client of it."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )


class Gate:
    """Passes on what is said to a server, and notes which processes say it."""

    def __init__(self, port: int) -> None:
        self.port, self.callers = port, list[int]()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self.listening.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                caller, (_, port) = self.listening.accept()
                self.callers += owners(port)
                server = socket.create_connection(("127.0.0.1", self.port))
                for one, other in ((caller, server), (server, caller)):
                    threading.Thread(target=_pass, args=(one, other), daemon=True).start()


def _pass(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while said := one.recv(1 << 16):
            other.sendall(said)
        other.shutdown(socket.SHUT_WR)


def owners(port: int) -> list[int]:
    """The processes that hold a TCP connection from this port of 127.0.0.1."""
    sockets = {row[9] for row in tcp("tcp") if row[1] == f"0100007F:{port:04X}"}
    every = [int(process.name) for process in File("/proc").glob("[0-9]*")]
    return [process for process in every if sockets & held(process)]


LISTENING = "0A"
# 127.0.0.1, the same as an address of IPv6, and ::1, as the kernel writes them.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def exposed(processes: Iterable[int]) -> set[str]:
    """The addresses, beside this machine's own, at which some of these processes listen."""
    sockets = set[str]().union(*map(held, processes))
    rows = [row for table in ("tcp", "tcp6") for row in tcp(table) if row[3] == LISTENING and row[9] in sockets]
    return {row[1] for row in rows if row[1].partition(":")[0] not in LOOPBACK}


def tcp(table: str) -> list[list[str]]:
    """The kernel's table: fields 1, 3 and 9 are the address, the state and the socket."""
    return [line.split() for line in (File("/proc/net") / table).read_text().splitlines()[1:]]


def held(process: int) -> set[str]:
    """The sockets of a process."""
    found = set()
    with suppress(OSError):  # it is gone
        for file in (File("/proc") / str(process) / "fd").iterdir():
            with suppress(OSError):
                found.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
    return found
