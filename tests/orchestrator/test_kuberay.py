"""`tapath submit --kuberay` prints what KubeRay takes: every field in its place, and nothing of this machine."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from pathlib import Path as File
from typing import Any

import pytest
import yaml

from orchestrator import kuberay
from orchestrator.study import load
from tests.orchestrator.commands import folder, run
from tests.orchestrator.kubernetes import misfits
from tests.orchestrator.studies import changed, write

__all__ = ["folder"]

PLACED = changed(
    ("big: {detector", "big: {resources: {workers: 2, cpus: 4, gpus: 1, memory: 20 GiB, stages_at_once: 2}, detector"),
    ("low: {detector", "low: {resources: {custom: {camera: 1}, labels: {disk: ssd}}, detector"),
)


def printed(text: str, *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    write(File.cwd(), text)
    ended = run("submit", "tiny.yaml", "--kuberay", "--store", "/shared/store", *words)
    assert ended.exit_code == 0, ended.output
    assert "&id" not in ended.stdout, "people read it"
    config, job = yaml.safe_load_all(ended.stdout)
    return config, job


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return found


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    every = [job["spec"]["rayClusterSpec"]["headGroupSpec"], *groups(job)]
    return [group["template"]["spec"]["containers"][0] for group in every]


@pytest.mark.parametrize("text", [changed(), PLACED])
def test_every_field_is_one_that_kuberay_has_and_none_is_missing(folder: File, text: str) -> None:
    config, job = printed(text)
    assert misfits(config) == misfits(job) == []


@pytest.mark.parametrize("word", ["--quiet", "--json-lines"])
def test_how_a_run_is_to_speak_is_handed_on(folder: File, word: str) -> None:
    _, job = printed(changed(), word)
    assert shlex.split(job["spec"]["entrypoint"])[5:7] == ["/home/ray/study/tiny.yaml", word]


def test_the_job_runs_the_very_study_from_a_config_map(folder: File) -> None:
    config, job = printed(changed(), "--set", "recipe.epochs=3", "--yes", "--tracking-later")
    assert config["data"] == {"study.yaml": changed()}
    shell, *words = shlex.split(job["spec"]["entrypoint"])
    assert shell == "exec" and words[:4] == ["python", "-m", "orchestrator", "run"]
    assert words[4:7] == ["/home/ray/study/tiny.yaml", "--yes", "--tracking-later"]
    assert words[7:] == [
        *("--set", "recipe.epochs=3", "--set", 'resources.store="/shared/store"'),
        *("--set", "resources.runs=/shared/store/runs"),
    ]
    for one in containers(job):
        mounts = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
        assert mounts == {"study": "/home/ray/study", "store": "/shared/store"}


def test_image_claim_and_rays_own_version_are_named_and_the_cluster_wants_a_token(folder: File) -> None:
    _, job = printed(changed(), "--image", "registry/tapath:7", "--claim", "nfs")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray") and cluster["authOptions"] == {"mode": "token"}
    assert {one["image"] for one in containers(job)} == {"registry/tapath:7"}
    volumes = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volumes[1] == {"name": "store", "persistentVolumeClaim": {"claimName": "nfs"}}


def test_there_are_pods_for_what_each_model_asks_for_and_none_trains_on_the_head(folder: File) -> None:
    _, job = printed(PLACED)
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    big, rest, low = groups(job)
    assert [group["replicas"] for group in (big, rest, low)] == [4, 1, 1]
    assert big["template"]["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": 4,
        "memory": f"{30 * 1024}Mi",
        "nvidia.com/gpu": 1,
    }
    assert low["labels"] == {"disk": "ssd"} and low["resources"] == {"CPU": "1", "camera": "1"}
    assert "labels" not in rest and "resources" not in rest


def test_nothing_of_this_machines_environment_is_in_it(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@mlflow:5000")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hush")
    write(folder)
    assert "hush" not in run("submit", "tiny.yaml", "--kuberay", "--store", "/shared/store").stdout


@pytest.mark.parametrize("name", ["tiny", "My_Study.v2", "x" * 100, "-", "a-study-of-a-length-that-is-too-long-by-far"])
def test_a_name_is_one_that_kubernetes_takes_and_another_study_has_another(name: str) -> None:
    made = kuberay.named(name)
    assert len(made) <= 40 and made.strip("-") == made and set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert made != kuberay.named(name + "_")


def test_what_a_pod_would_lose_or_could_not_find_is_refused(folder: File) -> None:
    write(folder)
    ended = run("submit", "tiny.yaml", "--kuberay")
    assert ended.exit_code == 2 and "resources.store: store would be in the job's own working folder" in ended.stderr
    (folder / "wee.pth").write_bytes(b"0")
    write(folder, changed(("wee: {detector", "wee: {weights: wee.pth, detector")))
    ended = run("submit", "tiny.yaml", "--kuberay", "--store", "/shared/store")
    assert ended.exit_code == 2 and "wee.pth does not fit into a ConfigMap" in ended.stderr


def test_the_limits_of_a_pod_follow_the_worker(folder: File) -> None:
    study = load(write(folder, PLACED))
    low = kuberay.limits(study.models["low"].resources)
    assert low == {"cpu": 1, "memory": "8192Mi"}


def test_a_password_in_the_studys_text_is_refused_with_its_line(folder: File) -> None:
    text = f'{changed()}resources: {{tracking: "http://me:hush@mlflow:5000"}}\n'
    write(folder, text)
    ended = run("submit", "tiny.yaml", "--kuberay", "--store", "/shared/store")
    assert ended.exit_code == 2 and ended.stdout == "" and "hush" not in ended.output
    assert f"tiny.yaml:{len(text.splitlines())}: " in ended.stderr and "MLFLOW_TRACKING_PASSWORD" in ended.stderr
    assert "into the secret `tapath`" in ended.stderr


def test_a_file_may_be_called_anything(folder: File) -> None:
    """The key of a ConfigMap may not; in the pod the file is called as here, which names a study that has no name."""
    (folder / "my study.yaml").write_text(changed())
    ended = run("submit", "my study.yaml", "--kuberay", "--store", "/shared/store")
    assert ended.exit_code == 0, ended.output
    config, job = yaml.safe_load_all(ended.stdout)
    assert list(config["data"]) == ["study.yaml"] and misfits(job) == []
    assert shlex.split(job["spec"]["entrypoint"])[5] == "/home/ray/study/my study.yaml"
    for group in [job["spec"]["rayClusterSpec"]["headGroupSpec"], *groups(job)]:
        told = group["template"]["spec"]["volumes"][0]["configMap"]
        assert told["items"] == [{"key": "study.yaml", "path": "my study.yaml"}]
