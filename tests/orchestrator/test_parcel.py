"""What is shipped with a job, what is refused before anything is sent, and what `ray job submit` would take."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path as File

import pytest
from ray._private import ray_constants
from ray._private.runtime_env.packaging import create_package

from orchestrator import parcel
from orchestrator.study import load
from tests.orchestrator.commands import DIGITS, folder, run
from tests.orchestrator.studies import changed, write
from trainers.call import Invalid

__all__ = ["folder"]

ROOT = File(__file__).parents[2]
WEE = "wee: {detector"
SHARED = ("--store", "/shared/store")


def shipped(*sets: str, text: str = changed()) -> dict[str, File]:
    return parcel.contents(load(write(File.cwd(), text), ('resources.store="/shared/store"', *sets)))


def submitted(text: str, *words: str) -> str:
    """What `tapath submit` says when it refuses; the cluster is not asked, for there is none."""
    write(File.cwd(), text)
    ended = run("submit", "tiny.yaml", "--address", "http://127.0.0.1:1", *words)
    assert ended.exit_code == 2, ended.output
    assert "Traceback" not in ended.output
    return ended.stderr


def test_only_the_study_and_our_own_sources_are_shipped_whatever_lies_around(folder: File) -> None:
    for name in (".git/objects/1", "store/a/weights.safetensors", "runs/tiny/report.json", ".venv/bin/x", "data/1.jpg"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"0")
    found = shipped()
    assert found["tiny.yaml"] == folder / "tiny.yaml"
    assert {"orchestrator/cli.py", "trainers/loop.py"} < found.keys()
    assert {f"orchestrator/page/{name}" for name in ("report.html", "style.css", "drawing.js")} < found.keys()
    rest = {place for place in found if not place.startswith(("orchestrator/", "trainers/"))}
    assert rest == {"tiny.yaml"} and not any("__pycache__" in place for place in found)
    assert sum(file.stat().st_size for file in found.values()) < 3 * 2**20


def test_what_is_shipped_is_enough_to_plan_the_study(folder: File, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = tmp_path_factory.mktemp("there")
    study = load(write(folder, changed()), ('resources.store="/shared/store"',))
    parcel.pack(parcel.contents(study), there)
    python, *words = parcel.command(study)
    assert python == "python" and words[:4] == ["-m", "orchestrator", "run", "tiny.yaml"]
    assert "resources.runs=/shared/store/runs" in words
    words[2] = "plan"
    environment = {"PATH": "/usr/bin:/bin"}
    made = subprocess.run(
        [sys.executable, *words, "--no-data"], cwd=there, env=environment, capture_output=True, text=True
    )
    assert made.returncode == 0 and "big > mid > low > wee" in made.stdout, made.stderr


def test_relative_weights_travel_with_the_study_and_others_stay_where_they_are(folder: File) -> None:
    (folder / "weights").mkdir()
    (folder / "weights/wee.pth").write_bytes(b"0")
    here, there = (changed((WEE, f"wee: {{weights: {place}, detector")) for place in ("weights/wee.pth", "/w/wee.pth"))
    assert shipped(text=here)["weights/wee.pth"] == File("weights/wee.pth")
    assert not any("wee.pth" in place for place in shipped(text=there))


def test_too_much_is_refused_with_what_is_large_and_what_to_do(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "LIMIT", 5 * 2**20)
    (folder / "wee.pth").write_bytes(bytes(7 * 2**20))
    message = submitted(changed((WEE, "wee: {weights: wee.pth, detector")), *SHARED)
    assert re.search(r"[89] MiB are too much to be shipped with a job, 5 MiB are taken", message)
    assert "7.0 MiB  wee.pth\n" in message and "write their whole path in the study, or a URL" in message
    assert parcel.LIMIT < ray_constants.DASHBOARD_CLIENT_MAX_SIZE


@pytest.mark.parametrize(
    ("change", "words", "parts"),
    [
        ((), (), ("resources.store", "store would be in the job's own working folder", "--store /shared/store")),
        ((), ("--store", "here/store"), ("here/store would be in", "--store")),
        ((), ("--store", "~/store"), ("~/store would be in",)),
        (
            (),
            (*SHARED, "--set", "resources.tracking=sqlite:///mlflow.db"),
            ("sqlite:///mlflow.db would be in", "start `mlflow server`"),
        ),
        (((DIGITS, "{COCO: {root: coco}}"),), SHARED, ("tiny.yaml:2", "coco is not shipped", "data.COCO.root=/shared")),
        (((WEE, "wee: {weights: ../wee.pth, detector"),), SHARED, ("tiny.yaml:7", "../wee.pth is outside of this")),
        (((WEE, "wee: {weights: wee.pth, detector"),), SHARED, ("tiny.yaml:7", "there is no file wee.pth here")),
    ],
)
def test_what_a_job_could_not_find_or_would_lose_is_refused_before_it_is_sent(
    folder: File, change: tuple[tuple[str, str], ...], words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    message = submitted(changed(*change), *words)
    for part in parts:
        assert part in message


def test_a_password_is_never_put_where_all_who_list_jobs_see_it(folder: File) -> None:
    message = submitted(changed(), *SHARED, "--set", "resources.tracking=http://me:hush@mlflow:5000")
    assert "the password or token in it would be seen" in message and "MLFLOW_TRACKING_PASSWORD" in message
    assert "hush" not in message


@pytest.mark.parametrize("address", ["ray://head:10001", "auto", "head", "http://"])
def test_an_address_that_is_not_of_a_job_server_is_refused(folder: File, address: str) -> None:
    write(folder)
    ended = run("submit", "tiny.yaml", *SHARED, "--address", address)
    assert ended.exit_code == 2 and "name the cluster's job server, as in http://HEAD:8265" in ended.stderr


def test_without_an_address_that_of_rays_own_variables_is_taken(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "http://me:hush@127.0.0.1:2")
    ended = run("submit", "tiny.yaml", *SHARED)
    assert ended.exit_code == 2 and "no job server answers at http://127.0.0.1:2." in ended.stderr
    ended = run("submit", "tiny.yaml", *SHARED, "--address", "127.0.0.1:1")
    assert "no job server answers at http://127.0.0.1:1." in ended.stderr, "what is said wins"


def test_ray_job_submit_takes_no_stores_runs_data_or_environments_from_a_checkout(tmp_path: File) -> None:
    here = tmp_path / "here"
    kept = ("orchestrator/cli.py", "trainers/data/coco.py", "search_spaces/demo.yaml", "study.yaml")
    left = (
        ".git/HEAD",
        "store/a.json",
        "runs/a.json",
        ".venv/a.py",
        "venv/a.py",
        "mlflow.db",
        "mlartifacts/a",
        "data/a.jpg",
    )
    left = (
        *left,
        "datasets/a.jpg",
        "tests/test_a.py",
        "benchmarks/a.py",
        "trainers/__pycache__/a.pyc",
        ".mypy_cache/a",
    )
    for name in (*kept, *left):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("")
    for name in (".gitignore", ".rayignore"):
        (here / name).write_text((ROOT / name).read_text())
    package = tmp_path / "package.zip"
    excludes = ray_constants.get_runtime_env_default_excludes()
    create_package(str(here), package, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(package) as made:
        names = {name for name in made.namelist() if not name.endswith("/")}
    assert names == {*kept, ".gitignore", ".rayignore"}


def test_a_study_elsewhere_is_shipped_under_its_own_name(folder: File) -> None:
    study = load(write(folder / "deep/er", changed()), ('resources.store="/shared/store"',))
    assert parcel.contents(study)["tiny.yaml"] == folder / "deep/er/tiny.yaml"
    with pytest.raises(Invalid, match=r"tiny\.yaml:1: resources\.store: store would be"):
        parcel.checked(load(folder / "deep/er/tiny.yaml"))
