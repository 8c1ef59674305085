"""Work in other processes comes back in order and whole, whatever happens to the processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from trainers.data.processes import Lost, ahead, each


def square(n: int) -> torch.Tensor:
    return torch.tensor(n * n)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_results_come_in_order(processes: int, count: int) -> None:
    results = list(ahead(square, range(count), processes=processes))
    assert [int(each) for each in results] == [n * n for n in range(count)]


def test_work_is_done_elsewhere_and_a_little_ahead_only(tmp_path: Path) -> None:
    def note(n: int) -> int:
        (tmp_path / str(n)).touch()
        return os.getpid()

    results = ahead(note, range(50), processes=1)
    assert next(results) != os.getpid()
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) < 6
    results.close()


def test_what_the_work_raises_is_raised_here() -> None:
    def refuse(n: int) -> int:
        raise ValueError(f"no {n}")

    with pytest.raises(ValueError, match="no 0"):
        list(ahead(refuse, range(3), processes=1))


def die(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(folder: Path) -> None:
    time.sleep(3600)


def at_three(n: int, *, folder: Path, times: int, fate: Callable[[Path], None]) -> int:
    """n, but on three its process meets its fate so many times."""
    losses = len(list(folder.iterdir()))
    if n == 3 and losses < times:
        (folder / str(losses)).touch()
        fate(folder)
    return n


@pytest.mark.parametrize("fate", [die, hang])
def test_a_lost_process_is_replaced_once_and_nothing_is_lost_or_seen_twice(
    tmp_path: Path, fate: Callable[[Path], None]
) -> None:
    work = partial(at_three, folder=tmp_path, times=1, fate=fate)
    assert list(ahead(work, range(8), processes=2, patience=3.0)) == list(range(8))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("fate", "how"), [(die, "died"), (hang, "hung")])
def test_the_second_loss_ends_the_work(tmp_path: Path, fate: Callable[[Path], None], how: str) -> None:
    work = partial(at_three, folder=tmp_path, times=2, fate=fate)
    with pytest.raises(RuntimeError, match=f"a loader process {how} at item"):
        list(ahead(work, range(8), processes=1, patience=3.0))


def at_some(n: int, *, fates: dict[int, Callable[[Path], None]], folder: Path) -> int:
    """n, but on some numbers its process meets its fate, every time."""
    if n in fates:
        fates[n](folder)
    return n


@pytest.mark.parametrize("processes", [1, 3])
def test_each_names_the_items_that_no_process_survives_and_does_all_others(tmp_path: Path, processes: int) -> None:
    work = partial(at_some, fates={0: die, 7: hang, 8: die, 19: die}, folder=tmp_path)
    results = list(each(work, range(20), processes=processes, patience=3.0))
    assert [r.how if isinstance(r, Lost) else r for r in results] == [
        {0: "died", 7: "hung", 8: "died", 19: "died"}.get(n, n) for n in range(20)
    ]


def test_each_of_nothing_is_nothing() -> None:
    assert list(each(square, [], processes=2)) == []


ORPHAN = """
import os, sys, time
from trainers.data.processes import Lost, ahead, each
results = ahead(lambda n: os.getpid(), range(9), processes=1)
print(next(results), flush=True)
time.sleep(60)
"""


def test_no_process_outlives_a_parent_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # it lives
        parent.kill()
    deadline = time.monotonic() + 20
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running(worker)


def running(process: int) -> bool:
    """Whether a process is there and not merely waiting to be buried."""
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
