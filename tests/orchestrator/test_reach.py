"""What a run writes lasts and is seen by every node: SQLite, stores and working folders of jobs."""

from __future__ import annotations

import os
from pathlib import Path as File

import pytest

from orchestrator import reach
from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from orchestrator.study import Study, load
from tests.orchestrator.commands import folder
from tests.orchestrator.studies import write
from trainers.call import Invalid
from trainers.folder import Folder

__all__ = ["folder"]

SQLITE = ("resources.tracking=sqlite:////shared/mlflow.db",)
SERVER = ("resources.tracking=http://mlflow:5000",)


def study(*sets: str) -> Study:
    return load(write(File.cwd()), ('resources.store="/shared/store"', *sets))


def test_sqlite_is_safe_where_the_driver_always_runs_however_many_nodes_train(
    folder: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(reach.JOB, raising=False)
    for nodes in (1, 2, 100):
        reach.scattered(study(*SQLITE), nodes)
        reach.scattered(study(), nodes)


def test_sqlite_under_a_job_of_several_nodes_is_refused_and_a_server_is_not(
    folder: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(reach.JOB, "{}")
    reach.scattered(study(*SQLITE), 1)
    reach.scattered(study(*SERVER), 2)
    for sets in (SQLITE, ()):
        with pytest.raises(Invalid, match="start `mlflow server` where the cluster reaches it") as refused:
            reach.scattered(study(*sets), 2)
        assert refused.value.where == ("resources", "tracking")


def test_what_matters_is_not_written_into_the_working_folder_of_a_job(
    folder: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder)
    here = load("tiny.yaml")
    assert reach.lasting(here) is here, "this is a folder like any other"
    inside = folder / "session_1/runtime_resources/working_dir_files/_ray_pkg_1"
    inside.mkdir(parents=True)
    write(inside)
    monkeypatch.chdir(inside)
    with pytest.raises(Invalid, match="store lies in the working folder of this job") as refused:
        reach.lasting(load("tiny.yaml"))
    assert refused.value.where == ("resources", "store")
    with pytest.raises(Invalid, match=r"mlflow\.db lies in the working folder of this job") as refused:
        reach.lasting(study())
    assert refused.value.where == ("resources", "tracking")
    assert reach.lasting(study(*SQLITE)).resources.runs == "/shared/store/runs", "the report is not lost either"
    in_a_bucket = ("resources.store=s3://bucket/store", *SQLITE)
    assert reach.lasting(study(*in_a_bucket)).resources.runs == "s3://bucket/store/runs"
    assert reach.lasting(study(*in_a_bucket, "resources.runs=s3://other/b")).resources.runs == "s3://other/b"
    assert reach.lasting(study(*SQLITE, "resources.runs=/shared/runs")).resources.runs == "/shared/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    reach.lasting(study())


def test_a_store_that_a_node_does_not_see_is_refused_and_that_node_is_named(tmp_path: File) -> None:
    looked = []

    def look(file: str) -> dict[str, str]:
        looked.append(File(file))
        assert looked[-1].parent == tmp_path and looked[-1].exists()
        return {"node 10.0.0.1": "", "node 10.0.0.2": "it does not see it"}

    with pytest.raises(
        Invalid, match=r"is not seen by every node that may train:\n  node 10\.0\.0\.2: it does"
    ) as refused:
        reach.unseen(Folder(tmp_path), look)
    assert refused.value.where == ("resources", "store") and "10.0.0.1" not in str(refused.value)
    assert not looked[0].exists(), "nothing is left behind"
    reach.unseen(Folder(tmp_path), lambda file: {"node 10.0.0.1": ""})


def test_what_a_run_leaves_that_is_killed_while_nodes_look_is_removed_by_the_next(tmp_path: File) -> None:
    child = os.fork()
    if child == 0:
        try:
            reach.unseen(Folder(tmp_path), lambda file: os._exit(9))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (left,) = tmp_path.iterdir()
    looking: list[File] = []

    def look(file: str) -> dict[str, str]:
        looking.extend(tmp_path.iterdir())
        reach.unseen(Folder(tmp_path), lambda other: {})
        return {"node 10.0.0.1": "" if File(file).exists() else "another run has removed it"}

    reach.unseen(Folder(tmp_path), look)
    assert left not in looking and not list(tmp_path.iterdir()), "nor is anything left of this one"


def test_nodes_on_which_no_stage_can_be_need_not_see_the_store_unless_one_has_several_workers() -> None:
    nodes = [Node("head", {"CPU": 0.0}), Node("large", {"CPU": 8.0}), Node("fast", {"CPU": 1.0}, {"disk": "ssd"})]
    fast = Placement(labels={"disk": "ssd"})
    room = Room(nodes, {"wee": fast, "big": Placement(cpus=4)})
    assert [node.name for node in room.hosts()] == ["large", "fast"]
    room = Room(nodes, {"wee": fast, "big": Placement(cpus=4, workers=2)})
    assert [node.name for node in room.hosts()] == ["head", "large", "fast"], "who watches over workers may be anywhere"
