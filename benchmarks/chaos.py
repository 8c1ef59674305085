"""Kill at random while a study runs, until it is done; then see that nothing of it shows.

On a cluster of three nodes on this machine, every few seconds one of these is killed with SIGKILL: a process that
trains (trial), one of several that train a stage together (worker), a whole node, which another replaces (node), or the
driver, which is started again (driver). Each round is a study from the beginning. What is promised, and what makes this
end with 1 if it is broken: scores, weights and best path are those of a run that nobody disturbed, to the bit; no
finished stage is stored again; and after a minute no process, actor, placement group or temporary folder is left of it,
nor a file in the store that an undisturbed run does not leave.

    python benchmarks/chaos.py --rounds 20 --study search_spaces/demo.yaml --set recipe.epochs=4

Workers there are where a model has several: --set 'models.large.resources={workers: 2, cpus: 0.5}'.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from table import show

ROOT = Path(__file__).parents[1]
KINDS = ("trial", "worker", "node", "driver")
TRIALS = ("ray::ResourceTrainable", "ray::Trial")
WORKERS = ("ray::RayTrainWorker", "ray::_RayTrainWorker")
OURS = (*TRIALS, *WORKERS, "ray::Letters", "ray::TrainController")
RAYS_OWN = "_AutoscalingCoordinatorActor"  # outlives every driver, for all of them
MINUTE = 60.0


@dataclass
class Round:
    """What was done to a study, and what became of it."""

    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    code: int = 0
    results: dict[str, tuple[float, str]] = field(default_factory=dict)  # by key: the score and the weights' digest
    best: list[list[str]] = field(default_factory=list)
    again: set[str] = field(default_factory=set)  # keys of finished stages that were stored once more
    left: dict[str, int] = field(default_factory=dict)  # how much of what was left
    files: set[str] = field(default_factory=set)  # in the store


def broken(one: Round, alone: Round) -> list[str]:
    """The promises that a round has broken."""
    found = []
    if one.code:
        found.append(f"it ended with {one.code}")
    if one.results.keys() != alone.results.keys():
        found.append(f"{len(one.results.keys() ^ alone.results.keys())} stages too many or too few")
    other = [key for key in one.results.keys() & alone.results.keys() if one.results[key] != alone.results[key]]
    if other:
        found.append(f"other scores or weights: {', '.join(sorted(other))}")
    if one.best != alone.best:
        found.append(f"another best path: {one.best}")
    if one.again:
        found.append(f"trained again: {', '.join(sorted(one.again))}")
    if more := sorted(one.files - alone.files):
        found.append(f"{len(more)} files too many in the store: {', '.join(more[:3])}")
    found += [f"{count} {kind} left" for kind, count in one.left.items() if count]
    return found


class Play:
    """A cluster, and a study that is run on it."""

    def __init__(self, study: Path, sets: Sequence[str], *, folder: Path, every: float, rng: random.Random) -> None:
        """`folder`: where all of it, drivers and nodes alike, has its temporary folders."""
        self.study, self.sets, self.every, self.rng = study.resolve(), sets, every, rng
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        os.environ.update({"TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)})
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(3):
            self.cluster.add_node(num_cpus=1)
        self.cluster.wait_for_nodes()

    def play(self, folder: Path, *, disturb: bool) -> Round:
        """The study from its beginning, in a folder of its own."""
        one, started = Round(), time.monotonic()
        folder.mkdir(parents=True)
        known: dict[str, int] = {}
        driver = self._drive(folder)
        try:
            while driver.poll() is None:
                self._wait(driver)
                self._note(folder, known, one)
                if disturb and driver.poll() is None:
                    driver = self._disturb(folder, driver, one)
        finally:
            driver.kill()  # if somebody has interrupted us
        one.seconds, one.code = time.monotonic() - started, driver.returncode
        self._note(folder, known, one)
        one.results, one.best = stored(folder), best(folder)
        store = folder / "store"
        one.files = {str(file.relative_to(store)) for file in store.rglob("*") if file.is_file()}
        one.left = self._left()
        return one

    def _drive(self, folder: Path) -> subprocess.Popen[bytes]:
        words = ["run", str(self.study), "--address", self.cluster.address, "--store", "store", "--set"]
        words += ["resources.runs=runs", "--set", "resources.tracking=sqlite:///mlflow.db"]
        words += [word for one in self.sets for word in ("--set", one)]
        with (folder / "log.txt").open("a") as log:
            return subprocess.Popen([sys.executable, "-m", "orchestrator", *words], cwd=folder, stdout=log, stderr=log)

    def _wait(self, driver: subprocess.Popen[bytes]) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # every node that Ray starts puts its own
        late = time.monotonic() + self.rng.uniform(0.5, 1.5) * self.every
        while driver.poll() is None and time.monotonic() < late:
            processes()
            time.sleep(0.2)

    def _disturb(self, folder: Path, driver: subprocess.Popen[bytes], one: Round) -> subprocess.Popen[bytes]:
        """Kill something of what there is; -> the driver now."""
        victims = {"trial": processes(*TRIALS), "worker": processes(*WORKERS)}
        kind = self.rng.choice([kind for kind in KINDS if victims.get(kind, True)])
        one.kills[kind] += 1
        if kind in victims:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(victims[kind]), signal.SIGKILL)
        elif kind == "node":
            nodes = sorted(self.cluster.worker_nodes, key=lambda node: node.unique_id)
            self.cluster.remove_node(self.rng.choice(nodes), allow_graceful=False)
            self.cluster.add_node(num_cpus=1)
        else:
            driver.kill()
            driver.wait()
            return self._drive(folder)
        return driver

    def _note(self, folder: Path, known: dict[str, int], one: Round) -> None:
        """Whether what was stored when it was last looked at is what is stored now."""
        now = {file.parent.name: file.stat().st_mtime_ns for file in (folder / "store").glob("*/result.json")}
        one.again |= {key for key, when in known.items() if now.get(key) != when}
        known.update(now)

    def _left(self) -> dict[str, int]:
        """What is left after a minute."""
        look: dict[str, Callable[[], int]] = {
            "processes": lambda: len(processes(*OURS)),
            "actors": lambda: len(actors()),
            "placement groups": lambda: len(groups()),
            "temporary folders": lambda: len(list(self.temporary.glob("tapath-*"))),
        }
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            late = time.monotonic() + MINUTE
            while any(one() for one in look.values()) and time.monotonic() < late:
                time.sleep(0.5)
            return {kind: one() for kind, one in look.items()}
        finally:
            ray.shutdown()


def actors() -> list[str]:
    """The classes of those that live, whoever started them."""
    every = ray._private.state.actors().values()
    return [one["ActorClassName"] for one in every if one["State"] != "DEAD" and one["ActorClassName"] != RAYS_OWN]


def groups() -> list[str]:
    return [key for key, one in ray.util.placement_group_table().items() if one["state"] != "REMOVED"]


def stored(folder: Path) -> dict[str, tuple[float, str]]:
    results = {file.parent.name: json.loads(file.read_text()) for file in (folder / "store").glob("*/result.json")}
    return {key: (result["score"], result["sha256"]) for key, result in results.items()}


def best(folder: Path) -> list[list[str]]:
    """Of each student; none if there is no report."""
    reports = [json.loads(file.read_text()) for file in (folder / "runs").glob("*/report.json")]
    return [answer["best"]["path"] for report in reports for answer in report["answers"] if answer["best"]]


_ours: dict[int, str] = {}  # processes below this one, now or when they were seen; and when they began


def processes(*names: str) -> list[int]:
    """Those below this process, dead ones apart, whose command line begins so; nobody else's. Who was below it
    when this was asked before still is, though its parent was killed: so it is to be asked often."""
    parents, began = dict[int, int](), dict[int, str]()
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *others = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if state not in "ZX":
            pid = int(file.parent.name)
            parents[pid], began[pid] = int(parent), others[17]
    found, new = set[int](), {os.getpid(), *(pid for pid, when in _ours.items() if began.get(pid) == when)}
    while new:
        found |= new
        new = {pid for pid, parent in parents.items() if parent in new} - found
    _ours.update({pid: began[pid] for pid in found if pid in began})
    return sorted(pid for pid in found if command_line(pid).startswith(names))


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def row(name: str, one: Round, alone: Round) -> dict[str, Any]:
    kills: Mapping[str, int] = one.kills
    return {
        "round": name,
        **{kind: kills.get(kind, 0) for kind in KINDS},
        "seconds": round(one.seconds, 1),
        "stages": len(one.results),
        "trained again": len(one.again),
        "left": sum(one.left.values()),
        "broken": "; ".join(broken(one, alone)) or "nothing",
    }


def main() -> int:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--study", type=Path, default=ROOT / "search_spaces/demo.yaml")
    read.add_argument("--set", action="append", default=[], dest="sets", help="as of tapath run")
    read.add_argument("--rounds", type=int, default=20)
    read.add_argument("--every", type=float, default=10.0, help="seconds between two kills, on average")
    read.add_argument("--seed", type=int, default=None, help="of chance; printed, to play the same again")
    asked = read.parse_args()
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    play = Play(asked.study, asked.sets, folder=folder, every=asked.every, rng=random.Random(seed))
    rows, failed = [], False
    try:
        alone = play.play(folder / "alone", disturb=False)
        rows.append(row("alone", alone, alone))
        for number in range(1, asked.rounds + 1 if alone.code == 0 else 1):
            one = play.play(folder / str(number), disturb=True)
            rows.append(row(str(number), one, alone))
            print(rows[-1], flush=True)
    finally:
        play.cluster.shutdown()
    failed = any(one["broken"] != "nothing" for one in rows)
    notes = [f"seed {seed}, {asked.study.name} {' '.join(asked.sets)}", *([f"logs: {folder}"] if failed else [])]
    show("chaos", rows, *notes)
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
