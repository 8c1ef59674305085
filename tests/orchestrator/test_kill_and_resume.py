"""Killed or interrupted at any moment and run again, a study ends as if nothing had happened; with real processes."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path as File

import pytest
import torch
from mlflow import MlflowClient

from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.studies import Process, Ran, Underway, command_line, tapath, underway, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = ("run", "tiny.yaml")


def begun(folder: File) -> list[File]:
    """The states of half-trained stages."""
    return list((folder / "store").glob("*/state-*.pt"))


def results(folder: File) -> int:
    return len(studies.stored(folder))


def trial(command: Underway) -> list[Process]:
    """The processes that train."""
    return [
        process
        for process in command.look()
        if command_line(process).startswith(("ray::ResourceTrainable", "ray::Trial"))
    ]


def undisturbed(folder: File, finished: File) -> None:
    """Every stage has the scores and the weights of the run that nobody disturbed, and so has the best path."""
    assert studies.stored(folder) == studies.stored(finished)
    mine, theirs = studies.report(folder), studies.report(finished)
    assert the_answer(mine)["best"]["path"] == the_answer(theirs)["best"]["path"]
    for name in ("best", "baseline", "direct"):
        assert the_answer(mine)[name]["score"] == the_answer(theirs)[name]["score"]
    assert not begun(folder), "no state of a half-trained stage is left"


def kept(before: dict[str, tuple[int, int]], folder: File) -> None:
    """No finished stage was stored again."""
    after = studies.written(folder)
    assert {key: after.get(key) for key in before} == before


class Disturbed:
    """What was seen on the way: the last run, processes that outlived a killed driver, results and first epochs."""

    def __init__(self, folder: File) -> None:
        self.folder = folder
        self.codes: list[int] = []
        self.orphans: list[str] = []
        self.written: list[dict[str, tuple[int, int]]] = []
        self.firsts: dict[str, float] = {}  # by key: the seconds after which the first epoch was over
        self.last: Ran | None = None

    def note(self) -> None:
        """What is on the disk between two runs."""
        self.written.append(studies.written(self.folder))
        for file in begun(self.folder):
            history = torch.load(file, weights_only=True)["history"]
            if history:  # else it was stopped in its first epoch
                self.firsts[file.parent.name] = history[0]["seconds"]

    def finish(self) -> Disturbed:
        self.last = tapath(self.folder, *RUN)
        return self

    @property
    def resumed(self) -> dict[str, float]:
        """By key: when the first epoch of a stage that was left half trained was over, as its result has it."""
        files = {key: self.folder / "store" / key / "result.json" for key in self.firsts}
        return {key: json.loads(file.read_text())["history"][0]["seconds"] for key, file in files.items()}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    """The driver and what trains are killed in the first stage, as by a power cut; then the driver between stages."""
    folder = tmp_path_factory.mktemp("killed")
    write(folder)
    seen = Disturbed(folder)
    with ExitStack() as stack:
        command = stack.enter_context(underway(folder, *RUN))
        command.until(lambda: trial(command))
        command.until(lambda: begun(folder))
        for pid in (trial(command)[0][0], command.popen.pid):
            os.kill(pid, signal.SIGKILL)
        command.popen.wait()
        seen.note()
        another = stack.enter_context(underway(folder, *RUN))
        another.until(lambda: results(folder) >= 4)
        another.look()
        another.popen.kill()
        another.popen.wait()
        # Ray's two agents stay for its 60 s limit of a call: they try to tell the dead control store. So does a worker
        # that was just starting; what works has another name. All are gone in the end.
        own = ("Agent", "default_worker.py")
        seen.orphans = [command_line(process) for process in another.left(patience=30, beside=own)]
        seen.note()
        seen.finish()
        seen.orphans += [line for kill in (command, another) for line in map(command_line, kill.left(patience=90))]
    return seen


def test_after_kill_9_of_the_driver_the_same_command_ends_as_if_nothing_had_happened(
    killed: Disturbed, finished: File
) -> None:
    assert killed.last is not None
    assert killed.last.code == 0, killed.last.err
    undisturbed(killed.folder, finished)


def test_no_finished_stage_is_trained_again_after_kill_9_of_the_driver(killed: Disturbed) -> None:
    assert len(killed.written[-1]) >= 4, "there was something to lose"
    for before in killed.written:
        kept(before, killed.folder)
    reused = {stage["key"] for stage in studies.report(killed.folder)["stages"] if stage["reused"]}
    assert reused == set(killed.written[-1])


def test_a_half_trained_stage_goes_on_from_its_last_epoch(killed: Disturbed) -> None:
    assert killed.firsts, "the driver was killed with a stage half trained"
    assert killed.resumed == killed.firsts


def test_a_killed_driver_leaves_no_process_behind(killed: Disturbed) -> None:
    assert killed.orphans == []


def test_mlflow_is_whole_after_a_killed_driver(killed: Disturbed) -> None:
    client = MlflowClient(f"sqlite:///{killed.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 10, "none is there twice"
    assert {run.info.status for run in runs} == {"FINISHED"}
    children = [run for run in runs if "key" in run.data.tags]
    for run in children:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/AP")]
        assert sorted(steps) == [1, 2]
    assert {run.data.tags["key"]: run.data.metrics["val/AP"] for run in children} == pytest.approx(
        {key: score for key, (score, _) in studies.stored(killed.folder).items()}
    )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    """Ctrl-C in the first stage, SIGTERM in a later one; in the last run kill -9 of the process that trains."""
    folder = tmp_path_factory.mktemp("interrupted")
    write(folder)
    seen = Disturbed(folder)
    with underway(folder, *RUN) as command:
        command.until(lambda: begun(folder))
        command.look()
        command.interrupt()
        seen.codes.append(command.end())
        seen.orphans += [command_line(process) for process in command.left(patience=60)]
    seen.note()
    with underway(folder, *RUN) as command:
        # A process that only starts has not heard of SIGTERM yet: it must have trained a stage.
        command.until(lambda: results(folder) >= max(2, len(seen.written[-1]) + 1))
        command.look()
        command.popen.send_signal(signal.SIGTERM)
        seen.codes.append(command.end())
        seen.orphans += [command_line(process) for process in command.left(patience=60)]
    seen.note()
    with underway(folder, *RUN) as command:
        command.until(lambda: results(folder) > len(seen.written[-1]))
        (victim,) = trial(command)
        os.kill(victim[0], signal.SIGKILL)
        seen.codes.append(command.end(limit=180))
        seen.last = Ran(seen.codes[-1], command.text, command.text, 0.0)
    return seen


def test_an_interrupted_run_ends_with_130(interrupted: Disturbed) -> None:
    assert interrupted.codes[:2] == [130, 130], "Ctrl-C, SIGTERM"


def test_an_interrupted_run_keeps_every_finished_epoch(interrupted: Disturbed) -> None:
    first, second = interrupted.written
    assert len(first) or interrupted.firsts, "the first epoch was over when Ctrl-C came"
    assert len(second) >= 2
    assert interrupted.resumed == interrupted.firsts
    for before in interrupted.written:
        kept(before, interrupted.folder)


def test_an_interrupted_run_takes_its_processes_with_it(interrupted: Disturbed) -> None:
    assert interrupted.orphans == []


def test_a_killed_trial_process_is_replaced_and_its_run_ends_as_if_nothing_had_happened(
    interrupted: Disturbed, finished: File
) -> None:
    assert interrupted.last is not None
    assert interrupted.last.code == 0, interrupted.last.err
    undisturbed(interrupted.folder, finished)


@pytest.mark.parametrize("disturbed", ["interrupted", "killed"])
def test_no_run_of_mlflow_is_left_running_and_none_has_an_epoch_twice(
    disturbed: str, request: pytest.FixtureRequest
) -> None:
    """Nor is any there twice: a run that was left RUNNING by a driver that was killed is gone on with."""
    client = MlflowClient(f"sqlite:///{request.getfixturevalue(disturbed).folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 10
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/AP")]
        assert steps == ([1, 2] if "key" in run.data.tags else [])


def test_ctrl_c_while_ray_still_starts_ends_with_130_as_well(tmp_path: File) -> None:
    write(tmp_path)
    with underway(tmp_path, *RUN) as command:
        command.until(lambda: any("gcs_server" in command_line(process) for process in command.look()))
        command.interrupt()
        assert command.end() == 130, command.text
    assert "Traceback" not in command.text
