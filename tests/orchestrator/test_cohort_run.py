"""On one slot those who share a teacher train in one process, and nobody can tell by what they have learnt."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path as File

import pytest

from tests.orchestrator import studies
from tests.orchestrator.studies import command_line, tapath, underway, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUN = ("run", "tiny.yaml", "--set", "resources.stages_at_once=1")
SIBLINGS = ("big > mid", "big > low", "big > wee")


def started_together(text: str) -> set[str]:
    """Of which stages a line says that they started after `big` was done, and before another one was done."""
    (_, rest) = re.split(r"done +big\b(?! >).*\n", text, maxsplit=1)
    return set(re.findall(r"started +(\S.*?) {2,}\d+ epochs", re.split(r"\n.* done ", rest)[0]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[File, studies.Ran]:
    """A whole run on one slot."""
    folder = write(tmp_path_factory.mktemp("shared")).parent
    return folder, tapath(folder, *RUN)


def test_siblings_start_together_and_learn_what_they_learn_alone(
    shared: tuple[File, studies.Ran], finished: File
) -> None:
    folder, ran = shared
    assert ran.code == 0, ran.err
    assert set(SIBLINGS) <= started_together(ran.out + ran.err), ran.out + ran.err
    assert studies.stored(folder) == studies.stored(finished)
    assert set(studies.stages(folder)) == set(studies.stages(finished))


def test_the_seconds_of_all_are_not_more_than_went_by(shared: tuple[File, studies.Ran]) -> None:
    folder, ran = shared
    assert 0 < sum(stage["seconds"] for stage in studies.report(folder)["cost"]["stages"]) < ran.seconds


def test_mlflow_has_a_run_for_each_of_them(shared: tuple[File, studies.Ran]) -> None:
    from mlflow import MlflowClient

    folder, _ = shared
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = client.search_runs([experiment.experiment_id])
    of_the_study = 1
    assert len(runs) == len(studies.stages(folder)) + of_the_study
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_process_that_is_killed_costs_its_siblings_no_epoch_and_each_goes_on_alone(
    tmp_path: File, finished: File
) -> None:
    folder = write(tmp_path).parent

    def half() -> bool:
        return len(list((folder / "store").glob("*/state-*.pt"))) >= len(SIBLINGS)

    with underway(folder, *RUN, "--set", "recipe.epochs=2") as command:
        command.until(half)
        trials = [one for one in command.look() if command_line(one).startswith(("ray::ResourceTrain", "ray::Trial"))]
        os.kill(trials[0][0], signal.SIGKILL)
        assert command.end() == 0, command.text
    assert "it goes on from epoch" in command.text
    assert studies.stored(folder) == studies.stored(finished)
