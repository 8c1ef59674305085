"""`tapath doctor`: what is broken is named with how to mend it, and what is well is not."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path as File

import pytest

from orchestrator import doctor, machine
from orchestrator.examined import GIB, Finding, tried
from orchestrator.exit_codes import NOT_WELL
from orchestrator.study import load
from orchestrator.writable import existing
from tests.orchestrator.ready import ROOT
from tests.orchestrator.studies import MODULE, changed, environment, write

WELL, WARNING, WRONG = (
    Finding("disk", "well", "9 GiB"),
    Finding("port 8265", "warning", "somebody listens", "look"),
    Finding("Ray", "wrong", "it does not start", "mend it"),
)


def test_only_what_is_wrong_makes_the_exit_code() -> None:
    assert [doctor.code(found) for found in ([WELL], [WELL, WARNING], [WARNING, WRONG])] == [0, 0, 3]
    assert doctor.text([WELL]).splitlines() == ["ok      disk  9 GiB", "all well"]
    said = doctor.text([WELL, WARNING, WRONG])
    assert "WRONG   Ray        it does not start\n" in said and "-> mend it" in said
    assert said.endswith("1 wrong, 1 warnings")


def test_for_machines_each_check_has_its_state_and_what_to_do() -> None:
    made = json.loads(json.dumps(doctor.as_json([WELL, WRONG])))
    assert made["well"] is False
    assert made["checks"][1] == {"what": "Ray", "state": "wrong", "said": "it does not start", "mend": "mend it"}


def test_a_python_that_is_too_old_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    here = platform.python_version()
    assert machine.python().state == "well" and here in machine.python().said
    monkeypatch.setattr(machine, "OLDEST", (9, 10))
    found = machine.python()
    assert found == Finding("Python", "wrong", f"{here} is too old", "install Python 9.10 or newer")
    assert doctor.code([found]) == 3
    first, mend, *_ = doctor.text([found]).splitlines()
    assert first == f"WRONG   Python  {here} is too old" and mend.strip() == "-> install Python 9.10 or newer"


def test_a_pair_that_fits_runs_its_operator() -> None:
    pair, cuda = machine.torch()
    assert pair.state == "well" and "nms runs" in pair.said
    assert cuda.what == "CUDA"


def test_a_torchvision_that_does_not_fit_is_wrong(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (pair,) = machine.torch()
    assert pair.state == "wrong" and "operator torchvision::nms does not exist" in pair.said
    assert "pip install" in pair.mend


def test_an_operator_that_answers_wrongly_is_wrong(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = "import torch\n__version__ = '0'\nclass ops:\n    nms = lambda boxes, scores, iou: torch.tensor([0, 1, 2])\n"
    (tmp_path / "torchvision.py").write_text(fake)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (pair,) = machine.torch()
    assert pair.state == "wrong" and "[0, 1, 2]" in pair.said


@pytest.mark.parametrize(
    ("gpus", "version", "there", "state", "part"),
    [
        (0, None, 0, "well", "no GPU"),
        (2, "13.0", 2, "well", "2 of 2 GPUs"),
        (0, None, 2, "wrong", "built without CUDA"),
        (0, "13.0", 2, "wrong", "sees none"),
    ],
)
def test_gpus_that_torch_does_not_see_are_wrong(
    monkeypatch: pytest.MonkeyPatch, gpus: int, version: str | None, there: int, state: str, part: str
) -> None:
    monkeypatch.setattr(File, "glob", lambda self, pattern: iter([self] * there))
    found = machine._cuda(gpus, version, ["A GPU"] * gpus)
    assert found.state == state and part in found.said and bool(found.mend) == (state == "wrong")


@pytest.mark.parametrize(("free", "state"), [(50, "well"), (5, "warning"), (0.5, "wrong")])
def test_a_disk_without_room_is_wrong(tmp_path: File, monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: (100 * GIB, (100 - free) * GIB, free * GIB))
    found = machine.disk("disk", tmp_path / "not/there/yet", mend="make room")
    assert found.state == state and str(tmp_path) in found.said and (found.mend == "make room") == (state != "well")


def test_a_disk_that_is_nearly_full_is_warned_of_where_ray_would_stop(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: (1000 * GIB, 960 * GIB, 40 * GIB))
    assert machine.disk("disk", tmp_path, mend="m").state == "well"
    assert machine.disk("disk", tmp_path, mend="m", most=machine.FULL).state == "warning"


def test_a_folder_is_looked_at_where_there_is_one(tmp_path: File) -> None:
    assert existing(tmp_path / "a/b/c") == tmp_path


def test_little_shared_memory_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: (64 << 20, 0, 64 << 20))
    found = machine.shared()
    assert found.state == "warning" and "--shm-size" in found.mend


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """One on which somebody listens, in the place of Ray's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        monkeypatch.setattr(machine, "PORTS", {number: "a Ray head"})
        yield number


def test_a_port_that_is_taken_is_warned_of_unless_a_server_is_meant_to_be_there(port: int) -> None:
    found = {one.what: one for one in machine.ports()}
    assert found[f"port {port}"].state == "warning" and "a Ray head cannot start" in found[f"port {port}"].said
    assert f"port {port}" not in {one.what for one in machine.ports(port)}


def test_few_files_at_once_are_wrong() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        found = machine.files()
        assert found.state == "wrong" and "ulimit -n" in found.mend and found.said.startswith("512")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
        assert machine.files().state == "warning"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_hangs_is_ended_with_all_that_it_started(tmp_path: File) -> None:
    code = "import subprocess, sys, time; child = subprocess.Popen(['sleep', '600'])\n"
    code += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(600)"
    assert tried(["-c", code], limit=3)[::2] == (124, "it did not end within 3 seconds")
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        state = File(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX":
            return
        time.sleep(0.1)
    os.kill(pid, 9)
    raise AssertionError("it lives on")


def test_a_process_tells_its_last_line() -> None:
    assert tried(["-c", "print('well')"], limit=60) == (0, "well", "")
    assert tried(["-c", "raise ValueError('so it is')"], limit=60)[::2] == (1, "ValueError: so it is")


def test_mlflow_makes_a_database_and_a_server_that_is_away_is_wrong() -> None:
    made, away = doctor.mlflow("http://127.0.0.1:9", asked=True)
    assert made.state == "well"
    assert away.state == "wrong" and "127.0.0.1:9" in away.what and "mlflow server" in away.mend


def test_a_database_that_is_not_there_yet_is_well_unless_it_was_asked_for(tmp_path: File, uri: str) -> None:
    none = f"sqlite:///{tmp_path / 'none.db'}"
    assert [list(doctor.mlflow(none, asked=asked))[1].state for asked in (False, True)] == ["well", "wrong"]
    assert not (tmp_path / "none.db").exists()
    assert list(doctor.mlflow(uri, asked=True))[1].said == "it answers"


@pytest.mark.usefixtures("in_a_folder")
def test_of_a_study_its_store_and_its_data_are_looked_at() -> None:
    store, data = doctor.of_study(load(write(File())))
    assert store.said == "0 finished stages" and "32 and 16 images" in data.said
    gone = changed(("{Digits: {classes: 3, train: 32, val: 16}}", "{COCO: {root: gone}}"))
    _, data = doctor.of_study(load(write(File(), gone)))
    assert data.state == "wrong" and "there is no folder gone" in data.said


@pytest.mark.parametrize("broken", [("mlflow", "ray"), ("torch",)], ids=" and ".join)
def test_a_broken_installation_is_reported_with_what_mends_it(broken: tuple[str, ...], tmp_path: File) -> None:
    """Ray, too, is broken beside MLflow: else it would be started."""
    for name in broken:
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text(f"raise ImportError('{name} is half there')")
    write(tmp_path)
    ended = subprocess.run(
        [*MODULE, "doctor", "tiny.yaml", "--json"],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": f"{tmp_path / 'broken'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == NOT_WELL, ended.stderr
    found = {one["what"]: one for one in json.loads(ended.stdout)["checks"]}
    wrong = {what: one for what, one in found.items() if one["state"] == "wrong"}
    if "torch" in broken:
        assert set(wrong) == {"torch", "Ray", "study tiny.yaml"} and found["MLflow"]["state"] == "well"
        assert "install a pair that fits" in wrong["torch"]["mend"]
        assert {wrong["Ray"]["mend"], wrong["study tiny.yaml"]["mend"]} == {doctor.FIRST}
    else:
        assert set(wrong) == {"MLflow", "Ray"} and found["torch"]["state"] == "well"
        assert all("pip install" in one["mend"] for one in wrong.values())
        assert found["data Digits"]["state"] == "well"
    assert all("is half there" in one["said"] for one in wrong.values())


@pytest.mark.ray
def test_a_cluster_that_is_away_is_wrong() -> None:
    found = doctor.cluster("127.0.0.1:9")
    assert found.state == "wrong" and "does not answer" in found.said and "6379" in found.mend


def test_a_token_that_is_lacking_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(doctor, "tried", lambda words, limit: (1, "", "AuthenticationError: Token authentication"))
    found = doctor.ray()
    assert found.state == "wrong" and "RAY_AUTH_TOKEN" in found.mend
