"""One process of all trains a stage, and one that was thought dead writes nothing when it comes back."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainers.places import Files
from trainers import lease as leases
from trainers.address import at
from trainers.folder import Folder
from trainers.lease import Holder, Lease, Lost, held
from trainers.store import Store
from trainers.turns import alone

ROOT = Path(__file__).parents[2]
EXPIRY = 0.6

PROCESS = """
import sys, time
from trainers.lease import Lease, Lost
lease = Lease(sys.argv[1], expiry=float(sys.argv[2]))
print(lease.take(), flush=True)
for line in sys.stdin:
    try:
        lease.check()
        print("ours", flush=True)
    except Lost:
        print("lost", flush=True)
"""


class Other:
    """Another process that holds the lease."""

    def __init__(self, folder: Path | str, expiry: float = EXPIRY) -> None:
        words = [sys.executable, "-c", PROCESS, str(folder), str(expiry)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes)
        assert self.said() == "True"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def asked(self) -> str:
        """Whether it thinks that the stage is its own."""
        assert self.process.stdin is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self.said()


@pytest.fixture
def folder(address: Path | str) -> Path | str:
    """Of a stage."""
    return Store(address).place.file("0123456789abcdef")


@pytest.fixture
def expiry(folder: Path | str) -> float:
    """Seconds in which even a busy machine renews a lease."""
    return EXPIRY if isinstance(folder, Path) else 4 * EXPIRY


@pytest.fixture
def other(folder: Path | str, expiry: float) -> Iterator[Other]:
    one = Other(folder, expiry)
    yield one
    one.process.send_signal(signal.SIGCONT)
    one.process.kill()
    one.process.communicate()


def until(condition: object, seconds: float = 60.0) -> float:
    """Wait for it; -> how long that took."""
    assert callable(condition)
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


def test_of_many_that_want_a_stage_at_once_one_gets_it(address: Path | str) -> None:
    for attempt in range(20 if isinstance(address, Path) else 2):
        many = [Lease(Store(address).place.file(str(attempt))) for _ in range(8)]
        gate = threading.Barrier(len(many))
        found: list[bool] = []

        def want(one: Lease, gate: threading.Barrier = gate, found: list[bool] = found) -> None:
            gate.wait()
            found.append(one.take())

        threads = [threading.Thread(target=want, args=(one,)) for one in many]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [False] * 7 + [True]
        for one in many:
            one.release()


def test_a_stage_that_is_released_is_the_next_ones_at_once(folder: Path | str) -> None:
    first, second = Lease(folder), Lease(folder)
    assert first.take() and not second.take()
    first.release()
    assert second.take()
    first.release()  # again: nothing of the other's is removed
    second.check()
    second.release()
    assert not Files(folder)


def test_a_holder_that_lives_is_left_alone_however_long_it_takes(
    folder: Path | str, other: Other, expiry: float
) -> None:
    mine, started = Lease(folder, expiry=expiry), time.monotonic()
    while time.monotonic() - started < 3 * expiry:
        assert not mine.take()
        time.sleep(expiry / 12)
    assert other.asked() == "ours"


def test_a_process_of_this_machine_that_died_is_known_to_be_dead(folder: Path | str) -> None:
    dead = Other(folder, expiry=1000)
    dead.process.kill()
    mine = Lease(folder, expiry=1000)
    assert until(mine.take) < 5  # not waited for by the parent yet, it is dead all the same
    dead.process.communicate()
    mine.release()


def test_a_number_that_another_process_has_by_now_is_not_the_holder(tmp_path: Path) -> None:
    now = Lease(tmp_path).me.model_copy(update={"pid": os.getppid(), "started": leases.started(os.getppid())})
    assert not now.is_dead
    assert now.model_copy(update={"started": "1"}).is_dead and now.model_copy(update={"pid": 2**22 + 1}).is_dead
    assert not now.model_copy(update={"machine": "another", "pid": 2**22 + 1}).is_dead, "nobody can know"


def test_a_frozen_process_loses_its_stage_and_notices_when_it_comes_back(
    folder: Path | str, other: Other, expiry: float
) -> None:
    mine = Lease(folder)
    assert not mine.take()
    os.kill(other.process.pid, signal.SIGSTOP)
    assert until(mine.take) >= expiry / 2
    os.kill(other.process.pid, signal.SIGCONT)
    assert other.asked() == "lost"
    time.sleep(expiry)
    mine.check()
    assert list(Files(folder)) == ["lease-000002"], "it has not come back"
    mine.release()


def test_a_frozen_process_whose_stage_nobody_took_goes_on(other: Other, expiry: float) -> None:
    os.kill(other.process.pid, signal.SIGSTOP)
    time.sleep(1.5 * expiry)
    os.kill(other.process.pid, signal.SIGCONT)
    assert other.asked() == "ours"


def test_a_lease_of_another_machine_is_waited_for_by_this_ones_clock(folder: Path | str, expiry: float) -> None:
    held = Holder(name="x", machine="another", pid=1, started="1", expiry=expiry)
    Files(folder)["lease-000007"] = held.model_dump_json().encode()
    if isinstance(folder, Path):
        os.utime(folder / "lease-000007", (0, 0))  # whatever its clock says
    mine = Lease(folder, expiry=1000)  # what its holder promised counts
    assert not mine.take()
    for beat in range(1, 8):
        Files(folder)["lease-000007"] = held.model_copy(update={"beat": beat}).model_dump_json().encode()
        assert not mine.take()
        time.sleep(expiry / 4)
    assert until(mine.take) > expiry / 2 and mine.number == 8
    mine.release()


def test_a_lease_that_cannot_be_read_counts_as_held_until_it_expires(folder: Path | str, expiry: float) -> None:
    Files(folder)["lease-000001"] = b"{"
    mine = Lease(folder, expiry=expiry)
    assert not mine.take() and until(mine.take) > expiry / 2
    mine.release()


@pytest.mark.parametrize("how", ["done", "stopped"])
def test_waiting_ends_when_the_stage_is_done_or_somebody_stops(folder: Path | str, other: Other, how: str) -> None:
    said: list[str] = []
    started = time.monotonic()

    def later() -> bool:
        return time.monotonic() - started > 0.5

    def never() -> bool:
        return False

    done, stop = (later, never) if how == "done" else (never, later)
    assert not alone(Lease(folder, expiry=60).wait(done=done, stop=stop, say=said.append))
    assert said == ["another run trains this stage; waiting for it"]


@pytest.mark.parametrize(
    ("study", "run", "waits", "lost"),
    [
        (
            "mine",
            "this",
            "an earlier process of this run has not given this stage up yet",
            "another process of this run",
        ),
        (
            "mine",
            "that",
            "another run of this study, or an earlier one whose process still lives, trains",
            "another run",
        ),
        ("theirs", "that", "another run trains this stage", "another run"),
        ("", "", "another run trains this stage", "another run"),
    ],
)
def test_it_is_said_whether_a_stage_is_held_by_another_run_or_by_a_process_of_this_one(
    tmp_path: Path, study: str, run: str, waits: str, lost: str
) -> None:
    said: list[str] = []
    first = Lease(tmp_path, study=study, run=run)
    second = Lease(tmp_path, study="mine" if study else "", run="this" if run else "")
    assert first.take() and held({"one": second}) == {"one"}
    stops = iter([False, True])
    assert not alone(second.wait(done=lambda: False, stop=lambda: next(stops), say=said.append))
    assert said[0].startswith(waits) and said[0].endswith("; waiting for it") and len(said) == 1
    first.me = first.me.model_copy(update={"expiry": 0.0})
    first._renew()
    assert second.take()
    with pytest.raises(Lost, match=f"^{lost} has taken over"):
        first.check()
    first.release()
    second.release()
    assert not held({"one": second})


def test_of_leases_of_another_machine_those_are_held_that_are_renewed(folder: Path | str) -> None:
    place = at(folder)
    left = Holder(name="left", machine="elsewhere", pid=1, started="1", expiry=0.6)
    place.create("lease-000001", left.model_dump_json())
    assert held({"left": Lease(folder)}) == set()
    timer = threading.Timer(0.05, lambda: place.swap("lease-000001", place.read("lease-000001"), renewed))
    renewed = left.model_copy(update={"beat": 1}).model_dump_json()
    timer.start()
    assert held({"kept": Lease(folder)}) == {"kept"}
    timer.join()


def test_what_was_done_in_the_moment_between_is_not_done_again(folder: Path | str) -> None:
    answers = iter([False, True])
    mine = Lease(folder)
    assert not alone(mine.wait(done=lambda: next(answers), stop=lambda: False, say=print))
    assert mine.number == 0 and not Files(folder)


def test_where_there_are_no_hard_links_one_alone_gets_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    first, second = Lease(tmp_path), Lease(tmp_path)
    assert first.take() and not second.take()
    first.release()
    assert second.take()
    second.release()


def test_a_disk_that_refuses_for_a_while_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Lease(tmp_path, expiry=EXPIRY)
    assert mine.take()
    with monkeypatch.context() as patch:

        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Folder, "swap", full)
        time.sleep(EXPIRY)
    until(lambda: time.monotonic() - mine._renewed < EXPIRY / 3)
    mine.check()
    mine.release()


def test_a_late_process_that_checks_after_it_lost_writes_nothing(folder: Path | str) -> None:
    late, mine = Lease(folder, expiry=1000), Lease(folder)
    assert late.take()
    late.me = late.me.model_copy(update={"expiry": 0.0})
    late._renew()
    assert mine.take()
    with pytest.raises(Lost, match="another run has taken over"):
        late.check()
    late.release()
    mine.check()
    mine.release()


def test_a_number_that_was_given_anew_is_not_the_old_holders(folder: Path | str) -> None:
    """The first is frozen, the second takes over and releases, the third begins anew; then the first comes back."""
    first, second, third = Lease(folder), Lease(folder), Lease(folder)
    assert first.take()
    first.me = first.me.model_copy(update={"expiry": 0.0})
    first._renew()
    assert second.take()
    second.release()
    assert third.take() and third.number == first.number == 1
    first._renew()
    with pytest.raises(Lost):
        first.check()
    first.release()
    third.check()
    third.release()


def test_who_was_frozen_while_it_renewed_claims_nothing_with_the_file_it_writes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look and its rename another took the stage, finished and released it."""
    late, other = Lease(tmp_path, expiry=EXPIRY), Lease(tmp_path)
    assert late.take()
    swap, thawed, written = Folder.swap, threading.Event(), threading.Event()

    def frozen(place: Folder, name: str, old: bytes, text: str) -> bool:
        monkeypatch.setattr(Folder, "swap", swap)
        late.place.remove(name)  # as who takes the next number does
        thawed.wait()
        time.sleep(EXPIRY)
        (tmp_path / name).write_text(text)
        written.set()
        return True

    monkeypatch.setattr(Folder, "swap", frozen)
    until(lambda: not list(tmp_path.glob("lease-*")))
    assert other.take()
    other.release()
    thawed.set()
    assert written.wait(20)
    with pytest.raises(Lost):
        late.check()
    assert not list(tmp_path.glob("lease-*")), "what it wrote late is in nobody's way"
    late.release()


def test_an_error_on_releasing_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Lease(tmp_path)
    assert mine.take()

    def stale(*args: object, **more: object) -> None:
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stale)
        mine.release()
    assert mine.number == 0 and list(tmp_path.iterdir())
    again = Lease(tmp_path)
    assert again.take(), "this process knows that it is held no more"
    again.release()


def test_a_process_that_nobody_may_look_at_lives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Lease(tmp_path).me.model_copy(update={"pid": 1, "started": "5"})

    def hidden(*args: object, **more: object) -> str:
        raise FileNotFoundError

    def refused(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refused)
    here = leases.machine()
    monkeypatch.setattr(leases, "machine", lambda: here)
    monkeypatch.setattr(Path, "read_text", hidden)
    assert not other.is_dead
