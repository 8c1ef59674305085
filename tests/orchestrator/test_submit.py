"""A study as a job of a real Ray cluster that wants a token: shipped, followed, stopped and taken up again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path as File
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from orchestrator import submit
from tests.faults.clusters import until
from tests.faults.servers import LEAN
from tests.orchestrator import studies
from tests.orchestrator.heads import RAY, TOKEN, Head, end, head, node, ports, until_answering
from tests.orchestrator.studies import changed, environment, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = File(__file__).parents[2]
SMALL = without("mid", "low")
KEYS = {("big",), ("big", "wee"), ("wee",)}


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Head]:
    with head() as running:
        yield running


@pytest.fixture
def mlflow(tmp_path: File) -> Iterator[str]:
    """The address of a server, started as deploy/mlflow.yaml does but for its database and where models go."""
    command = yaml.safe_load((ROOT / "deploy/mlflow.yaml").read_text())["services"]["mlflow"]["command"]
    (port,) = ports(1)
    program = str(File(sys.executable).with_name(command[0]))
    changed_words = {"0.0.0.0": "127.0.0.1", "5000": str(port), "s3://mlflow": str(tmp_path / "models")}
    words = [program, *(changed_words.get(word, word) for word in command[1:]), "--workers", "1"]
    database = {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'server.db'}", **LEAN}
    path = f"{File(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = tmp_path / "server.txt"
    with log.open("w") as said:
        server = subprocess.Popen(
            words, env={**environment(), **database, "PATH": path}, cwd=tmp_path, stdout=said, stderr=said
        )
    try:
        until_answering(server, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(server)


@pytest.fixture
def let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


def places(folder: File) -> tuple[str, ...]:
    """A store and an MLflow that outlive a job on a cluster of this machine alone; one process trains, which takes less
    than to start another."""
    tracking = f"resources.tracking=sqlite:///{folder}/mlflow.db"
    return ("--store", str(folder / "shared"), "--set", tracking, "--set", "resources.stages_at_once=1")


def asking(ray_head: Head) -> JobSubmissionClient:
    """A client of this process, which read Ray's variables long ago."""
    return JobSubmissionClient(ray_head.jobs, headers={"Authorization": f"Bearer {TOKEN}"})


def jobs(lines: str) -> list[str]:
    return re.findall(r"tapath-tiny-[0-9a-f]{8}", lines)


# Who may, and where.


def test_a_cluster_that_wants_a_token_is_named_with_what_to_do(
    ray_head: Head, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    write(tmp_path, SMALL)
    ran = tapath(tmp_path, "submit", "tiny.yaml", "--address", ray_head.jobs, *places(tmp_path))
    assert ran.code == 2 and "wants a token: export RAY_AUTH_MODE=token" in ran.err
    assert len(ran.err.splitlines()) == 1
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    ran = tapath(tmp_path, "submit", "tiny.yaml", "--address", ray_head.jobs, *places(tmp_path))
    assert ran.code == 2 and "does not take this token: export" in ran.err
    assert TOKEN not in ran.err and "another" not in ran.err
    ran = tapath(tmp_path, "run", "tiny.yaml", "--address", ray_head.gcs)
    assert ran.code == 2 and "wants a token that is not here, or another one: export" in ran.err
    assert len(ran.err.splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_a_cluster_without_a_job_server_is_named_with_what_to_do(tmp_path: File, let_in: None) -> None:
    write(tmp_path, SMALL)
    with head(dashboard=False) as bare:
        ran = tapath(tmp_path, "submit", "tiny.yaml", "--address", bare.jobs, *places(tmp_path))
    assert ran.code == 2 and f"no job server answers at {bare.jobs}" in ran.err and "'ray[default]'" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_an_address_at_which_nobody_listens_is_said_at_once(tmp_path: File) -> None:
    write(tmp_path, SMALL)
    (port,) = ports(1)
    ran = tapath(tmp_path, "run", "tiny.yaml", "--address", f"127.0.0.1:{port}", limit=120)
    assert ran.code == 2 and f"the Ray cluster at 127.0.0.1:{port} does not answer: does it run" in ran.err
    assert len(ran.err.splitlines()) == 1


# A job from start to end.


@pytest.fixture(scope="module")
def followed(ray_head: Head, tmp_path_factory: pytest.TempPathFactory) -> tuple[File, studies.Ran]:
    """The folder of somebody who submitted the study and read along."""
    folder = tmp_path_factory.mktemp("followed")
    write(folder, SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("MLFLOW_TRACKING_URI", "http://of.this.machine:1")
        return folder, tapath(folder, "submit", "tiny.yaml", "--address", ray_head.jobs, "--follow", *places(folder))


def test_who_follows_reads_plain_lines_and_ends_with_the_exit_code_of_the_run(
    followed: tuple[File, studies.Ran],
) -> None:
    _, ran = followed
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.count(" started  ") == ran.out.count(" done     ") == 3
    assert re.search(r"^ +\S+( s)?  end +3 done", ran.out, flags=re.MULTILINE) and "\x1b" not in ran.out
    assert ran.err == "", "Ray counts its bytes in silence"


def test_results_and_report_lie_in_the_store_and_nothing_but_the_study_where_it_was_submitted(
    followed: tuple[File, studies.Ran],
) -> None:
    folder, ran = followed
    assert len(studies.stored(folder, "shared")) == 3
    made = json.loads((folder / "shared/runs/tiny/report.json").read_text())
    assert {tuple(stage["path"]) for stage in made["stages"]} == KEYS
    assert f"report: {folder}/shared/runs/tiny/report.html" in ran.out
    assert {file.name for file in folder.iterdir() if "mlflow.db" not in file.name} == {
        "tiny.yaml",
        "shared",
        "mlartifacts",
    }


def test_status_and_best_are_answered_here_as_soon_as_store_and_mlflow_are_within_reach(
    followed: tuple[File, studies.Ran],
) -> None:
    folder, _ = followed
    status = tapath(folder, "status", "tiny.yaml", "--store", str(folder / "shared"), "--json")
    assert json.loads(status.out)["counts"] == {"done": 3, "begun": 0, "missing": 0}
    best = tapath(folder, "best", "tiny.yaml", "--tracking", f"sqlite:///{folder}/mlflow.db", "--json")
    made = json.loads((folder / "shared/runs/tiny/report.json").read_text())
    scores = {" > ".join(stage["path"]): stage["score"] for stage in made["stages"] if stage["path"] != ["big"]}
    assert best.code == 0 and json.loads(best.out)["path"] == max(scores, key=scores.__getitem__)


def test_a_refusal_on_the_cluster_is_2_for_who_follows_and_in_the_driver_exit_code_for_others(
    ray_head: Head, tmp_path: File, let_in: None
) -> None:
    digits = "{Digits: {classes: 3, train: 32, val: 16}}"
    write(tmp_path, changed((digits, "{COCO: {root: /there/is/no/such/folder}}"), text=SMALL))
    ran = tapath(tmp_path, "submit", "tiny.yaml", "--address", ray_head.jobs, "--follow", *places(tmp_path))
    assert ran.code == 2 and "/there/is/no/such/folder" in ran.out
    client = asking(ray_head)
    info = client.get_job_info(jobs(ran.out)[0])
    assert (info.status, info.driver_exit_code) == (JobStatus.FAILED, 2)


def test_who_stops_reading_leaves_the_job_alone_and_a_second_one_is_warned_of_it(
    ray_head: Head, tmp_path: File, let_in: None
) -> None:
    write(tmp_path, changed(("epochs: 2,", "epochs: 400,"), text=SMALL))
    words = ("submit", "tiny.yaml", "--address", ray_head.jobs, *places(tmp_path))
    client = asking(ray_head)
    with underway(tmp_path, *words, "--follow") as job:
        job.until(lambda: " started  " in job.text)
        os.killpg(job.popen.pid, signal.SIGINT)
        assert job.end() == 130
        (name, *_) = jobs(job.text)
        assert f"the job goes on; read along: ray job logs --follow --address {ray_head.jobs} {name}" in job.text
    try:
        assert client.get_job_status(name) == JobStatus.RUNNING
        assert submit.running(client, "tiny") == [name]
        ran = tapath(tmp_path, *words)
        assert ran.code == 0 and f"warning: the job {name} trains tiny already" in ran.out
    finally:
        for one in submit.running(client, "tiny"):
            client.stop_job(one)
        while submit.running(client, "tiny"):
            time.sleep(0.2)


def test_status_and_best_are_asked_from_a_laptop_while_nobody_follows(
    ray_head: Head, mlflow: str, tmp_path: File, let_in: None
) -> None:
    write(tmp_path, SMALL)
    shared = ("--store", str(tmp_path / "shared"), "--set", f"resources.tracking={mlflow}")
    ran = tapath(tmp_path, "submit", "tiny.yaml", "--address", ray_head.jobs, *shared)
    (name, *_) = jobs(ran.out)
    assert ran.code == 0 and f"stop it:    ray job stop --address {ray_head.jobs} {name}" in ran.out
    late = time.monotonic() + 240
    while not asking(ray_head).get_job_status(name).is_terminal() and time.monotonic() < late:
        time.sleep(0.5)
    laptop = tmp_path / "laptop"
    write(laptop, SMALL)
    status = tapath(laptop, "status", "tiny.yaml", "--store", str(tmp_path / "shared"), "--json")
    assert json.loads(status.out)["counts"]["done"] == 3, asking(ray_head).get_job_logs(name)
    search = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert urlopen(Request(search, headers={"Host": "mlflow:5000"})).status == 200, "as it is called on a cluster"
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(search, headers={"Host": "elsewhere:5000"}))
    best = tapath(laptop, "best", "tiny.yaml", "--tracking", mlflow, "--json")
    assert best.code == 0 and json.loads(best.out)["student"] == "wee", best.err
    assert [file.name for file in laptop.iterdir()] == ["tiny.yaml"]


def test_a_job_on_two_nodes_is_refused_sqlite_before_it_begins_with_what_to_do(
    ray_head: Head, tmp_path: File, let_in: None
) -> None:
    """A driver that stays where it is may have it, whatever the number of nodes: so do those of test_nodes.py."""
    write(tmp_path, SMALL)
    with node(ray_head):
        until(lambda: alive(ray_head) == 2)
        ran = tapath(tmp_path, "submit", "tiny.yaml", "--address", ray_head.jobs, "--follow", *places(tmp_path))
    assert ran.code == 2, ran.out + ran.err
    (line,) = (line for line in ran.out.splitlines() if "resources.tracking: " in line)
    assert f"SQLite ({tmp_path}/mlflow.db) is a file of the node" in line and "one of 2" in line
    assert "start `mlflow server` where the cluster reaches it" in line
    assert not (tmp_path / "mlflow.db").exists()
    assert not [one for one in (tmp_path / "shared").iterdir() if len(one.name) == 16], "no stage has begun"


def alive(ray_head: Head) -> int:
    """How many nodes the cluster has."""
    asked = Request(f"{ray_head.jobs}/nodes?view=summary", headers={"Authorization": f"Bearer {TOKEN}"})
    summary = json.load(urlopen(asked))["data"]["summary"]
    return sum(one["raylet"].get("state") == "ALIVE" for one in summary)


# As Ray has it, and stopped again and again.

EPOCHS = 24


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> File:
    """A folder with the sources and a study that takes long enough to be stopped."""
    folder = tmp_path_factory.mktemp("checkout") / "here"
    for name in ("orchestrator", "trainers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    write(folder, changed(("epochs: 2,", f"epochs: {EPOCHS},"), text=SMALL))
    return folder


def submitted(ray_head: Head, checkout: File, *words: str, wait: bool = False) -> subprocess.CompletedProcess[str]:
    """The study as a job that Ray itself submits, as docs/cluster.md has it."""
    (line,) = re.findall(r"^    ray (job submit .*) -- ", (ROOT / "docs/cluster.md").read_text(), flags=re.MULTILINE)
    command = [RAY, *shlex.split(line.replace("http://HEAD:8265", ray_head.jobs))]
    if wait:
        command.remove("--no-wait")
    command += ["--", "python", "-m", "orchestrator", "run", "tiny.yaml", *words]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=240)


def submitted_by_ray(ray_head: Head, checkout: File, *words: str) -> str:
    """-> the job's name."""
    client = asking(ray_head)
    before = {job.submission_id for job in client.list_jobs()}
    ran = submitted(ray_head, checkout, *words)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (name,) = {str(job.submission_id) for job in client.list_jobs()} - before
    return name


def states(folder: File) -> set[str]:
    return {f"{file.parent.name}/{file.name}" for file in (folder / "shared").glob("*/state-*.pt")}


def test_a_store_in_the_folder_of_a_job_is_refused(ray_head: Head, checkout: File, let_in: None) -> None:
    lost = submitted(ray_head, checkout, wait=True)
    assert lost.returncode == 1 and "resources.store: store lies in the working folder of this job" in lost.stdout


def test_a_stopped_job_keeps_what_it_has_and_another_goes_on_from_there_whoever_submits_it(
    ray_head: Head, checkout: File, tmp_path: File, let_in: None
) -> None:
    """The first job is submitted by Ray and stopped, the second by us and stopped, the third by Ray once more."""
    client = asking(ray_head)
    first = submitted_by_ray(ray_head, checkout, *places(tmp_path))
    until(lambda: states(tmp_path))
    client.stop_job(first)
    until(lambda: client.get_job_status(first).is_terminal())
    assert "stopping at the next step; finished epochs are kept" in client.get_job_logs(first)
    assert not list((tmp_path / "shared").glob("*/lease-*")), "each stage has ended by itself"
    there = states(tmp_path)
    assert there

    shutil.copy(checkout / "tiny.yaml", tmp_path)
    words = ("submit", "tiny.yaml", "--address", ray_head.jobs, "--follow", *places(tmp_path))
    with underway(tmp_path, *words) as job:
        job.until(lambda: states(tmp_path) - there)
        client.stop_job(jobs(job.text)[0])  # as `ray job stop` does
        assert job.end() == 130, job.text
        assert "stopping at the next step; finished epochs are kept" in job.text
        assert "the job was stopped; submit it again to go on" in job.text
        assert f"report: {tmp_path}/shared/runs/tiny/report.html" in job.text, "it came to its end by itself"
    assert not list((tmp_path / "shared").glob("*/lease-*")) and states(tmp_path)

    third = submitted_by_ray(ray_head, checkout, *places(tmp_path))
    until(lambda: client.get_job_status(third).is_terminal())
    assert client.get_job_status(third) == JobStatus.SUCCEEDED, client.get_job_logs(third)
    assert "stopping" not in client.get_job_logs(third)
    status = tapath(tmp_path, "status", "tiny.yaml", "--store", str(tmp_path / "shared"), "--json")
    assert json.loads(status.out)["counts"]["done"] == 3, status.err
    assert len(studies.stored(tmp_path, "shared")) == 3
    made = json.loads((tmp_path / "shared/runs/tiny/report.json").read_text())
    assert all([epoch["epoch"] for epoch in stage["history"]] == list(range(1, EPOCHS + 1)) for stage in made["stages"])
    assert (tmp_path / "shared/runs/tiny/report.html").exists()
