"""A Ray head of a test's own, as `ray start` makes it, with little beside: on 127.0.0.1, with ports that nobody else
has, and a token."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path as File

from tests.orchestrator.studies import descendants, environment, lives

RAY = str(File(sys.executable).with_name("ray"))
# The same without what nobody asks here: an autoscaler, a reader of logs, a server of Ray's client, and all modules of
# the dashboard, of which each is a process, but those of jobs, nodes and states.
BARE = """
from ray._private import services
from ray._private.node import Node
from ray.scripts.scripts import main
Node.start_monitor = Node.start_log_monitor = Node.start_ray_client_server = lambda node: None
start = services.start_ray_process
def few(command, kind, **told):
    if kind == "dashboard" and not any(word.startswith("--modules-to-load") for word in command):
        command = [*command, "--modules-to-load=JobHead,NodeHead,StateHead"]
    return start(command, kind, **told)
services.start_ray_process = few
main()
"""
RARE = range(20000, 32000)  # above those of Ray's workers, below those that the kernel gives to whoever asks for any
TOKEN = "a-token-of-the-tests-0123456789abcdef"


@dataclass(frozen=True)
class Head:
    """A head that runs: the addresses of its GCS and of its job server, and the process that started it all."""

    gcs: str
    jobs: str
    pid: int


def ports(count: int) -> list[int]:
    """Ports that are free now, all different, and that no kernel and no Ray hands out to somebody else meanwhile."""
    found: list[int] = []
    for port in random.SystemRandom().sample(RARE, len(RARE)):
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


@contextmanager
def head(*, dashboard: bool = True) -> Iterator[Head]:
    """Start a head with two CPUs and token authentication, and end it and all that it started."""
    gcs, jobs, agent, client = ports(4)
    folder = tempfile.mkdtemp(prefix="tapath-", dir="/tmp")  # short, for the names of its sockets have a limit
    words = [sys.executable, "-c", BARE, "start", "--head", "--block"]
    words += ["--node-ip-address=127.0.0.1", f"--port={gcs}", "--num-cpus=2"]
    words += ["--dashboard-host=127.0.0.1", f"--dashboard-port={jobs}", f"--dashboard-agent-listen-port={agent}"]
    words += [f"--ray-client-server-port={client}", f"--include-dashboard={dashboard}", f"--temp-dir={folder}"]
    started = subprocess.Popen(words, env=own(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_answering(started, jobs if dashboard else gcs)
        yield Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{jobs}", started.pid)
    finally:
        end(started)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def node(of: Head) -> Iterator[None]:
    """A second node, with one CPU, beside a head that runs."""
    (agent,) = ports(1)
    words = [sys.executable, "-c", BARE, "start", "--block"]
    words += [f"--address={of.gcs}", "--node-ip-address=127.0.0.1", "--num-cpus=1"]
    words.append(f"--dashboard-agent-listen-port={agent}")
    started = subprocess.Popen(words, env=own(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        end(started)


def end(started: subprocess.Popen[bytes], *, patience: float = 30) -> None:
    """Ask a process to end, and end all that is left of what it started after so many seconds."""
    family = descendants(started.pid)
    started.terminate()
    late = time.monotonic() + patience
    while any(lives(process) for process in family) and time.monotonic() < late:
        time.sleep(0.1)
        started.poll()
    for process in family:
        if lives(process):
            os.kill(process[0], signal.SIGKILL)
    started.wait()


def own() -> dict[str, str]:
    """The environment of the head: its token, and the Python of the tests first."""
    path = f"{File(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    return {**environment(), "PATH": path, **token}


def until_answering(started: subprocess.Popen[bytes], port: int, *, limit: float = 180) -> None:
    late = time.monotonic() + limit
    while True:
        assert started.poll() is None, f"it ended with {started.returncode}"
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            assert time.monotonic() < late, "it did not answer"
            time.sleep(0.2)
