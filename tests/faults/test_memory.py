"""A process that is killed because its machine has no memory left is known as such, with the figures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path as File

import pytest
from ray.cluster_utils import Cluster

from tests.faults.clusters import cluster, trained, until
from tests.orchestrator.studies import changed, tapath, underway, without, write
from trainers import proc
from trainers.deaths import Life, why
from trainers.proc import CGROUP

GIB = 2**30
LAST = Life(node="a", pid=1, peak=14 * GIB, used=15 * GIB, total=16 * GIB, kills=2)
FIGURES = "it had taken 14 GiB, and 15 of 16 GiB of the node were in use when it was last heard of"
UNEXPECTED = "Worker unexpectedly exits with a connection error code 2. (1) the process was killed by the OOM killer"
BEGINNING = """The actor died because of an error raised in its creation task, ray::Trial.__init__()
  File "trial.py", line 20, in <module>
ModuleNotFoundError: No module named 'trainers'
"""
NODE = "The actor died because its node has died. Node Id: 5c5f"


@pytest.mark.parametrize(
    ("said", "last", "killed", "expected"),
    [
        (UNEXPECTED, LAST, 2, "died"),
        (UNEXPECTED, LAST, 3, f"was killed by the kernel, for its node had no memory left: {FIGURES}"),
        (UNEXPECTED, LAST, None, "died"),
        (UNEXPECTED, None, 3, "died"),
        (NODE, LAST, None, "died with its node"),
        (BEGINNING, None, None, "could not begin: ModuleNotFoundError: No module named 'trainers'"),
        ("running low on memory", LAST, 2, f"was ended by Ray, for its node had too little memory left: {FIGURES}"),
        ("running low on memory", None, None, "was ended by Ray, for its node had too little memory left"),
    ],
)
def test_a_death_is_named(said: str, last: Life | None, killed: int | None, expected: str) -> None:
    assert why(said, last, killed) == expected


MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    4194304 kB\n"
CACHED = f"anon {GIB}\nfile {5 * GIB}\ninactive_file {3 * GIB}\nactive_file {2 * GIB}\n"
NO_LIMIT = {"memory.max": "max\n", "memory.current": "1\n"}
FIRST_NO_LIMIT = {"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "1\n"}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, (12 * GIB, 16 * GIB)),
        (NO_LIMIT, (12 * GIB, 16 * GIB)),
        (FIRST_NO_LIMIT, (12 * GIB, 16 * GIB)),
        ({"memory.max": f"{8 * GIB}", "memory.current": f"{7 * GIB}"}, (7 * GIB, 8 * GIB)),
        ({"memory.max": f"{8 * GIB}", "memory.current": f"{7 * GIB}", "memory.stat": CACHED}, (4 * GIB, 8 * GIB)),
        (
            {
                "memory/memory.limit_in_bytes": f"{8 * GIB}",
                "memory/memory.usage_in_bytes": f"{7 * GIB}",
                "memory/memory.stat": CACHED.replace("inactive", "total_inactive"),
            },
            (4 * GIB, 8 * GIB),
        ),
    ],
)
def test_the_memory_of_a_container_is_what_it_may_have(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch, groups: dict[str, str], expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(proc, "PROC", tmp_path / "proc")
    monkeypatch.setattr(proc, "CGROUP", tmp_path / "cgroup")
    for name, text in {"proc/meminfo": MEMINFO, **{f"cgroup/{name}": text for name, text in groups.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert proc.memory() == expected


def test_what_the_kernel_killed_is_counted_wherever_it_says_so(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "PROC", tmp_path)
    monkeypatch.setattr(proc, "CGROUP", tmp_path)
    assert proc.kills() == 0
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert proc.kills() == 2
    (tmp_path / "vmstat").write_text("pgfault 31\noom_kill 5\n")
    assert proc.kills() == 5


@pytest.fixture
def tight() -> Iterator[Cluster]:
    """A cluster that thinks of its memory as used up as soon as anything is used at all."""
    system = {"memory_usage_threshold": 0.001, "memory_monitor_refresh_ms": 200}
    with cluster(head=1, _system_config=system) as made:
        yield made


@pytest.mark.ray
@pytest.mark.slow
def test_a_stage_that_ray_ends_for_lack_of_memory_again_and_again_fails_and_it_is_said_what_helps(
    tight: Cluster, tmp_path: File
) -> None:
    write(tmp_path, without("mid", "low"))
    words = ("--address", tight.address, "--set", "recipe.epochs=4000", "--set", "controls=[]")
    ran = tapath(tmp_path, "run", "tiny.yaml", *words)
    assert ran.code == 3, ran.err
    why = "the last was ended by Ray, for its node had too little memory left"
    (said,) = (line for line in ran.err.splitlines() if "failed   big: its process died 4 times" in line)
    assert why in said and "say in resources.memory what a stage takes" in said, ran.out + ran.err


GROUPS = ("memory/{}/memory.limit_in_bytes", "{}/memory.max")  # control groups of the first and the second version


@contextmanager
def without_memory() -> Iterator[Callable[[int], None]]:
    """Takes a process by its id, for which the kernel has no more memory from then on."""
    name = f"tapath-{os.getpid()}"
    for place in GROUPS:
        limit = CGROUP / place.format(name)
        if (limit.parent.parent / "cgroup.procs").exists():
            break
    try:
        limit.parent.mkdir()
        limit.write_text("65536")
    except OSError as error:
        pytest.skip(f"nobody but root limits what a process may have: {error}")
    try:

        def starve(process: int) -> None:
            (limit.parent / "cgroup.procs").write_text(str(process))

        yield starve
    finally:
        until(lambda: not (limit.parent / "cgroup.procs").read_text())
        limit.parent.rmdir()


@pytest.mark.ray
@pytest.mark.slow
def test_a_stage_that_the_kernel_ends_for_lack_of_memory_is_said_to_be_so_with_the_figures_and_goes_on(
    tmp_path: File,
) -> None:
    write(tmp_path, changed(("train: 32", "train: 1600"), text=without("mid", "low")))
    with (
        cluster(head=1) as roomy,
        without_memory() as starve,
        underway(tmp_path, "run", "tiny.yaml", "--address", roomy.address) as command,
    ):
        command.until(lambda: list(tmp_path.glob("store/*/state-*.pt")))
        starve(trained())
        command.until(lambda: "; it goes on from epoch " in command.text)
        command.interrupt()
        assert command.end() == 130, command.text
    (said,) = (line for line in command.text.splitlines() if "; it goes on from epoch " in line)
    assert re.search(
        r"big \(seed 0\) was killed by the kernel, for its node had no memory left: it had taken [\d.]+ GiB, and "
        r"[\d.]+ of [\d.]+ GiB of the node were in use when it was last heard of; it goes on from epoch [12]",
        said,
    ), command.text
