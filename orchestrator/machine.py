"""What this machine has of what a run needs: Python, torch, GPUs, disk, memory that is shared, ports, files."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path as File

from orchestrator.examined import GIB, Finding, State, tried
from orchestrator.writable import existing

OLDEST = (3, 11)
TORCH_LIMIT = 120.0  # seconds
ROOM, LITTLE = 10, 1  # GiB free: below the first a warning, below the second nothing can be trained
FULL = 0.95  # of a disk, from which on Ray places nothing more there
SHARED = 1  # GiB of /dev/shm below which Ray's objects lie on the disk
FILES, FEW = 4096, 1024  # open files of a process
PORTS = {8265: "Ray's dashboard and job server", 6379: "a Ray head"}
PAIR = (
    "install a pair that fits, both at once and from one index: pip install --force-reinstall torch torchvision "
    "(pip install --constraint constraints.txt . takes the tested pair)"
)


def python() -> Finding:
    """Its version."""
    here = platform.python_version()
    if sys.version_info[:2] < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return Finding("Python", "wrong", f"{here} is too old", f"install Python {wanted} or newer")
    return Finding("Python", "well", f"{here}, {sys.executable}")


def torch() -> list[Finding]:
    """Whether torch and torchvision fit each other, and the GPUs that they see."""
    code, out, error = tried(["-m", "orchestrator.probe_torch"], limit=TORCH_LIMIT)
    if code:
        return [Finding("torch", "wrong", f"torchvision's nms does not run: {error or f'exit code {code}'}", PAIR)]
    seen = json.loads(out)
    named = f"torch {seen['torch']}, torchvision {seen['torchvision']}"
    if not seen["right"]:
        return [Finding("torch", "wrong", f"{named}: nms kept {seen['kept']}, where [0, 2] is right", PAIR)]
    gpus = [name for name in seen["kept"] if name != "cpu"]
    return [Finding("torch", "well", f"{named}: nms runs"), _cuda(seen["gpus"], seen["cuda"], gpus)]


def num_gpus() -> int:
    """How many this machine has, whether torch sees them or not."""
    return len(list(File("/dev").glob("nvidia[0-9]*")))


def _cuda(gpus: int, version: str | None, names: list[str]) -> Finding:
    there = num_gpus()
    if gpus:
        return Finding("CUDA", "well", f"{gpus} of {max(there, gpus)} GPUs: {', '.join(names)}; CUDA {version}")
    if not there:
        return Finding("CUDA", "well", "no GPU; stages train on CPUs")
    if version is None:
        mend = "install torch with CUDA, see https://pytorch.org/get-started/locally"
        return Finding("CUDA", "wrong", f"this machine has {there} GPUs, and this torch was built without CUDA", mend)
    mend = f"see that `nvidia-smi` works, its driver knows CUDA {version}, and CUDA_VISIBLE_DEVICES is not empty"
    return Finding("CUDA", "wrong", f"this machine has {there} GPUs, and torch sees none of them", mend)


def disks(store: str) -> Iterator[Finding]:
    """Where results and Ray's files go. store: a folder."""
    ray = File(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    yield disk("disk of the store", File(store), mend="make room, or name another store: --store, resources.store")
    yield disk("disk of Ray's files", ray, mend="make room, or set RAY_TMPDIR to a folder on another disk", most=FULL)


def disk(what: str, folder: File, *, mend: str, most: float = 1.0) -> Finding:
    """Whether something can be written there, and how much. most: the part that may be in use."""
    there = existing(folder)
    total, used, free = shutil.disk_usage(there)
    said = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free at {there}"
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(what, "wrong", f"{there} cannot be written by this user", "name another, or change its rights")
    state: State = "wrong" if free < LITTLE * GIB else "warning" if free < ROOM * GIB or used > most * total else "well"
    return Finding(what, state, said, mend if state != "well" else "")


def shared() -> Finding:
    """/dev/shm, in which Ray keeps its objects and loader processes their batches."""
    place = File("/dev/shm")
    if not place.is_dir():
        return Finding("/dev/shm", "well", "this system has none")
    total, _, free = shutil.disk_usage(place)
    said = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    if free < SHARED * GIB:
        return Finding(
            "/dev/shm",
            "warning",
            said,
            "give a container more: docker run --shm-size=8g; on Kubernetes an emptyDir of medium Memory there",
        )
    return Finding("/dev/shm", "well", said)


def ports(tracking: int | None = None) -> Iterator[Finding]:
    """Who listens where Ray and MLflow would. tracking: of a server of MLflow's here that is meant to listen."""
    for port, whose in {**PORTS, 5000: "`mlflow server`"}.items():
        if port == tracking:
            continue  # that it answers is another question
        if not listening(port):
            yield Finding(f"port {port}", "well", "free")
            continue
        said = f"somebody listens: {whose} cannot start here, or it is that already"
        yield Finding(
            f"port {port}", "warning", said, f"a run needs no port; see who it is: ss -ltnp 'sport = :{port}'"
        )


def listening(port: int) -> bool:
    with socket.socket() as knock:
        knock.settimeout(1)
        return knock.connect_ex(("127.0.0.1", port)) == 0


def files() -> Finding:
    """How many files a process may have open: Ray has a few for each process and node."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = float("inf") if hard == resource.RLIM_INFINITY else hard
    said = f"{soft} at once, {'any number' if most == float('inf') else hard} if asked for"
    if soft >= FILES or soft == resource.RLIM_INFINITY:
        return Finding("open files", "well", said)
    mend = "ulimit -n 65536, before tapath; if that is refused, raise nofile in /etc/security/limits.conf"
    return Finding("open files", "wrong" if soft < FEW else "warning", said, mend)
