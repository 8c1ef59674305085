"""Processes of a run die, freeze, are interrupted and told to go: what is seen of it, and that nothing is lost by it.

One cluster of one node for all that need no more.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import pytest
import torch
from ray.cluster_utils import Cluster

from tests.faults.clusters import TRIALS, WORKERS, cluster, kill, left, processes, trained, until
from tests.orchestrator import studies
from tests.orchestrator.studies import Underway, changed, descendants, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Two stages, big of eight epochs and big > wee of four, with 20 steps each: some seconds, long enough to be disturbed.
EPOCHS = 8
CHANGES = (
    ("epochs: 2", f"epochs: {EPOCHS}"),
    ("wee: {detector", "wee: {recipe: {epochs: 4}, detector"),
    ("[alone]", "[]"),
)
TEXT = changed(("train: 32", "train: 160"), *CHANGES, text=without("mid", "low"))
SILENCE = 8.0
SLOW = 13.0  # seconds; Tune would kill a process that does not end within ten


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Cluster]:
    with cluster(head=2) as made:
        yield made


@pytest.fixture(scope="module")
def run(ray_cluster: Cluster) -> tuple[str, ...]:
    return ("run", "tiny.yaml", "--address", ray_cluster.address)


@pytest.fixture(scope="module")
def alone(run: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> File:
    """What a run makes that nobody disturbs."""
    return ended(tmp_path_factory.mktemp("alone"), *run)


def ended(folder: File, *words: str) -> File:
    write(folder, TEXT)
    ran = tapath(folder, *words)
    assert ran.code == 0, ran.err
    return folder


def states(folder: File, key: str = "*") -> list[File]:
    return list((folder / "store").glob(f"{key}/state-*.pt"))


def state(folder: File) -> dict[str, Any]:
    """Where the stage is that was begun."""
    last = max(states(folder), key=lambda file: file.name)  # the one before is kept, too
    return dict(torch.load(last, weights_only=True))


def undisturbed(folder: File, alone: File, before: dict[str, tuple[int, int]]) -> None:
    """Every bit is that of a run that nobody disturbed, and nothing finished was trained again."""
    assert studies.stored(folder) == studies.stored(alone)
    after = studies.written(folder)
    assert {key: after[key] for key in before} == before
    assert not states(folder)


def test_kill_9_of_all_between_the_last_epoch_and_the_result_trains_nothing_again(
    run: tuple[str, ...], alone: File, tmp_path: File
) -> None:
    write(tmp_path, TEXT)
    with underway(tmp_path, *run) as command:
        command.until(lambda: list((tmp_path / "store").glob(f"*/state-{EPOCHS:06d}-*.pt")))
        kill(trained(), command.popen.pid)
        command.popen.wait()
    assert not studies.stored(tmp_path), "the result was not recorded"
    told = state(tmp_path)["history"]
    assert len(told) == EPOCHS
    before = studies.written(tmp_path)
    again = tapath(tmp_path, *run)
    assert again.code == 0, again.err
    first = studies.stages(tmp_path)["big",]
    assert [one["seconds"] for one in first["history"]] == [one["seconds"] for one in told], "not one epoch anew"
    undisturbed(tmp_path, alone, before)


def test_ctrl_c_ends_a_run_after_the_step_and_twice_at_once_and_the_next_one_goes_on_with_the_step_after(
    run: tuple[str, ...], ray_cluster: Cluster, alone: File, tmp_path: File
) -> None:
    write(tmp_path, TEXT)
    codes, stopped = [], []
    for number in (signal.SIGINT, signal.SIGTERM):
        with underway(tmp_path, *run) as command:
            further(command, tmp_path)
            busy = trained()
            os.kill(busy, signal.SIGSTOP if number == signal.SIGTERM else signal.SIGCONT)
            os.killpg(command.popen.pid, number)
            if number == signal.SIGTERM:
                time.sleep(SLOW)  # as if it measured, or wrote a large state
                os.kill(busy, signal.SIGCONT)
            codes.append(command.end())
            assert "finished epochs are kept, run the same command to go on" in command.text
        stopped.append(state(tmp_path)["training"]["under_way"])
    assert codes == [130, 130]
    assert all(stopped), "it was stopped within an epoch, be it before the first step, and nobody killed it"
    assert left(ray_cluster.address) == {"actors": [], "groups": []}
    with underway(tmp_path, *run) as command:
        further(command, tmp_path)
        os.kill(trained(), signal.SIGSTOP)  # so that the first alone would not end it
        command.interrupt()
        command.until(lambda: "stopping at the next step" in command.text)
        command.interrupt()
        assert command.end() == 130
    until(lambda: not processes(*TRIALS))
    before = studies.written(tmp_path)
    again = tapath(tmp_path, *run)
    assert again.code == 0, again.err
    undisturbed(tmp_path, alone, before)


def further(command: Underway, folder: File) -> None:
    """Wait until another epoch of the first stage is over."""
    have = set(states(folder))
    command.until(lambda: set(states(folder)) - have)


def test_a_process_that_freezes_is_replaced_and_one_that_is_told_to_go_and_a_loader_that_is_killed_lose_nothing(
    run: tuple[str, ...], ray_cluster: Cluster, alone: File, tmp_path: File
) -> None:
    write(tmp_path, TEXT)
    words = ("--set", f"resources.silence={SILENCE}", "--set", "resources.loader_workers=1")
    with underway(tmp_path, *run, *words) as command:
        further(command, tmp_path)
        parent = trained()
        kill(until(lambda: max((pid for pid, _ in descendants(parent) if pid != parent), default=0)))
        further(command, tmp_path)
        os.kill(parent, signal.SIGSTOP)
        command.until(lambda: f"of big (seed 0) gave no sign of life for {SILENCE:g} s and was ended" in command.text)
        until(lambda: studies.stat(parent)[:1] in ([], ["Z"]))
        # Those of the first stage go when it is stored: a moment in which its process has nothing to leave.
        command.until(
            lambda: (done := studies.stored(tmp_path)) and {one.parent.name for one in states(tmp_path)} - {*done}
        )
        os.kill(trained(), signal.SIGTERM)
        command.until(lambda: "of big > wee (seed 0) left, for it or its node is taken away" in command.text)
        assert command.end(limit=180) == 0, command.text
    assert command.text.count("; it goes on from epoch ") == 2
    undisturbed(tmp_path, alone, {})
    assert left(ray_cluster.address) == {"actors": [], "groups": []}, "nor does a run leave anything that goes well"


@pytest.fixture(scope="module")
def shared(run: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> File:
    """What two workers make of each stage that nobody disturbs."""
    return ended(tmp_path_factory.mktemp("shared"), *run, *TWO)


# Their epochs are short, and it takes a second until they hear that they are to stop.
TWO = ("--set", "models.big.resources={workers: 2, cpus: 0.5}", "--set", "models.big.recipe={epochs: 16}")


@dataclass
class Disturbed:
    """Two workers that were interrupted, and of which one was killed and one froze when they went on, and then their
    post was killed."""

    folder: File
    within: bool  # whether they were left within an epoch
    between: dict[str, list[str]]  # what was there of them when they were interrupted
    text: str  # what was said when they went on


@pytest.fixture(scope="module")
def disturbed(run: tuple[str, ...], ray_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    folder = tmp_path_factory.mktemp("disturbed")
    write(folder, TEXT)
    words = (*run, *TWO, "--set", f"resources.silence={SILENCE}")
    for _ in range(3):  # who is interrupted while they measure are left between two epochs
        with underway(folder, *words) as command:
            further(command, folder)
            command.interrupt()
            assert command.end() == 130, command.text
        if within := bool(state(folder)["training"]["under_way"]):
            break
    between = left(ray_cluster.address)
    with underway(folder, *words) as command:
        further(command, folder)
        kill(processes(*WORKERS)[-1])
        command.until(lambda: " of 2 died; all go on from the last epoch" in command.text)
        further(command, folder)
        os.kill(processes(*WORKERS)[-1], signal.SIGSTOP)
        command.until(lambda: f" gave no sign of life, or made no step, for {SILENCE:g} s: ended" in command.text)
        further(command, folder)
        kill(*processes("ray::Letters"))
        command.until(lambda: LOST in command.text)
        assert command.end(limit=300) == 0, command.text
    return Disturbed(folder, within, between, command.text)


LOST = "of big (seed 0) lost the post by which its workers are heard of, and was ended; it goes on from epoch "


def test_of_several_workers_one_that_is_killed_and_one_that_freezes_are_named_and_all_begin_again(
    disturbed: Disturbed, ray_cluster: Cluster, shared: File
) -> None:
    assert disturbed.text.count(" of 2 died; all go on from the last epoch") == 2
    undisturbed(disturbed.folder, shared, {})
    assert left(ray_cluster.address) == {"actors": [], "groups": []}


def test_several_workers_are_left_after_the_same_step_and_go_on_with_the_step_after(
    disturbed: Disturbed, shared: File
) -> None:
    assert disturbed.within, "they were stopped within an epoch, and nobody killed them"
    assert disturbed.between == {"actors": [], "groups": []}
    undisturbed(disturbed.folder, shared, {})


def test_several_workers_that_never_find_together_fail_with_the_reason(tmp_path: File) -> None:
    """What those before them held is given back, or they would wait for it and nobody would learn the reason."""
    write(tmp_path, changed(("[alone]", "[]"), text=without("mid", "low")))
    ran = tapath(tmp_path, "run", "tiny.yaml", *TWO[:2], cores=1, GLOO_SOCKET_IFNAME="nowhere")
    assert ran.code == 3, ran.err
    (said,) = (line for line in ran.err.splitlines() if " failed   big: " in line)
    assert "its workers do not find together: RuntimeError: " in said and said.endswith("nowhere"), said


def test_a_run_of_which_a_stage_failed_leaves_nothing_behind(
    run: tuple[str, ...], ray_cluster: Cluster, tmp_path: File
) -> None:
    """No process, actor, placement group or temporary folder, be it of the driver or of workers."""
    write(tmp_path, TEXT)
    with underway(tmp_path, *run, *TWO, "--set", "recipe.lr=1.0e+30") as command:
        command.until(lambda: len(processes(*WORKERS)) == 2)
        ours, workers = {pid for pid, _ in command.look()} | {*processes("ray::")}, set[int]()
        while command.popen.poll() is None:
            workers |= {*processes(*WORKERS)}
            time.sleep(0.1)
        assert len(workers) == 2, "others were started, for which nothing was left to do"
        assert command.end() == 3 and "failed   big: NonFinite" in command.text, command.text
        assert command.left(patience=60) == set()
    assert left(ray_cluster.address) == {"actors": [], "groups": []}
    until(lambda: not processes(*TRIALS, *WORKERS, "ray::Letters", "ray::TrainController"))
    folders = [folder.name for folder in File(tempfile.gettempdir()).glob("tapath-*-*-*-*")]
    assert not [name for name in folders if int(name.split("-")[2]) in ours]
