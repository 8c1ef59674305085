"""A study whose store is a bucket: trained, killed, moved and shared as on a folder, and refused where it cannot be."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path as File
from typing import Any

import pytest

from tests import buckets
from tests.buckets import Server
from tests.orchestrator import studies
from tests.orchestrator.commands import folder, run
from tests.orchestrator.studies import tapath, underway, without, write
from trainers.place import write as put
from trainers.store import Store

__all__ = ["folder"]

TWO = without("mid", "low")


def named(address: str, end: str) -> list[str]:
    return [name for name in buckets.names(address) if name.endswith(end)]


def half_trained(server: Server) -> bool:
    """Whether one stage is stored, and another has begun since."""
    wrote = [path for method, path in list(server.requests) if method == "PUT"]
    results = [i for i, path in enumerate(wrote) if path.endswith("/result.json")]
    return bool(results) and any("/state-" in path for path in wrote[results[0] :])


def states(folder: File) -> Counter[str]:
    return Counter(stage["state"] for stage in studies.report(folder)["stages"])


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_a_store_that_is_moved_has_it_all(server: Server, tmp_path: File) -> None:
    store = buckets.new()
    words = ("run", "tiny.yaml", "--store", store)
    write(tmp_path, TWO)
    with underway(tmp_path, *words) as first:
        first.until(lambda: half_trained(server))
        for pid, _ in first.look():
            if "ray::" in studies.command_line((pid, 0)) or pid == first.popen.pid:
                os.kill(pid, signal.SIGKILL)
        first.popen.wait()
    done = set(named(store, "result.json"))
    again = tapath(tmp_path, *words)
    assert again.code == 0 and "not registered" not in again.err, again.err
    assert len(named(store, "result.json")) == 3 and done < set(named(store, "result.json"))
    assert states(tmp_path) == {"reused": len(done), "done": 3 - len(done)}
    assert not [name for name in buckets.names(store) if "/lease-" in name or "/state-" in name], "nothing is left"
    best = json.loads(tapath(tmp_path, "best", "tiny.yaml", "--json").out)
    (where,) = best["uris"].values()
    assert where.startswith(f"{store}/")
    judged = tapath(tmp_path, "evaluate", where, "--data", "tiny.yaml", "--json")
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["figures"]["AP"] == pytest.approx(best["score"], abs=1e-6)
    moved = buckets.new("elsewhere/store")
    for name in buckets.names(store):
        buckets.put(f"{moved}/{name}", buckets.read(f"{store}/{name}"))
    server.requests.clear()
    third = tapath(tmp_path, "run", "tiny.yaml", "--store", moved)
    assert third.code == 0 and states(tmp_path) == {"reused": 3}
    assert not [path for method, path in server.requests if method == "PUT" and ".probe." not in path]
    file = f"{moved}/{named(moved, 'weights.safetensors')[0]}"
    damaged = buckets.read(file)
    buckets.put(file, damaged[:-9])
    assert "1 missing" in tapath(tmp_path, "status", "tiny.yaml", "--store", moved).out


@pytest.mark.ray
@pytest.mark.slow
def test_two_runs_on_a_bucket_of_a_busy_server_train_each_stage_once(server: Server, tmp_path: File) -> None:
    wrong = {7: "busy", 11: "reset", 13: "lost", 5: 0.2}
    server.disturb = lambda number, environ: next((what for n, what in wrong.items() if number % n == 0), None)
    store = buckets.new("")
    with ExitStack() as stack:
        runs = []
        for name in ("one", "two"):
            write(tmp_path / name, TWO)
            words = ("run", "tiny.yaml", "--store", store, "--set", f"resources.runs={store}/{name}")
            runs.append(stack.enter_context(underway(tmp_path / name, *words)))
        for one in runs:
            assert one.end(600) == 0, one.text
    taken = Counter(path for method, path in server.requests if method == "PUT" and path.endswith("/lease-000001"))
    assert len(named(store, "/result.json")) == 3 and taken
    found = [json.loads(buckets.read(f"{store}/{name}/tiny/report.json"))["stages"] for name in ("one", "two")]
    assert all(stage["state"] in ("done", "reused") for stages in found for stage in stages)
    first, second = ({stage["key"]: (stage["score"], stage["history"]) for stage in stages} for stages in found)
    assert first == second, "whoever trained it, it was one training: with the same seconds"
    assert f"report: {store}/one/tiny/report.html" in runs[0].text


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_when_its_bucket_was_away_for_longer_than_requests_are_tried_again(
    server: Server, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From when the first stage is finished, so that the driver alone asks for something."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    gone: list[float] = []

    def away(number: int, environ: dict[str, Any]) -> str | None:
        if gone:
            return "reset" if time.monotonic() < gone[0] + 6 else None
        if environ["REQUEST_METHOD"] == "DELETE" and "/lease-" in environ["PATH_INFO"]:
            gone.append(time.monotonic())
        return None

    server.disturb = away
    store = buckets.new()
    write(tmp_path, TWO)
    few = ("--set", "resources.stages_at_once=1", "--set", "controls=[]", "--set", "recipe.epochs=1")
    ran = tapath(tmp_path, "run", "tiny.yaml", "--store", store, *few)
    assert ran.code == 0 and "Traceback" not in ran.err, ran.err
    assert ran.err.count(f"the store {store} cannot be read: {server.address} does not answer") == 1
    assert ran.err.count(f"the store {store} answers again") == 1
    assert states(tmp_path) == {"done": 2}


def refused(*words: str) -> str:
    """What is said, in one line, by a command that nothing is done by."""
    buckets.anew()
    ended = run(*words)
    buckets.anew()
    assert ended.exit_code == 2, ended.output
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1 and "secret" not in ended.stderr
    assert not File("mlflow.db").exists() and not File("runs").exists()
    return ended.stderr


@pytest.mark.parametrize("command", ["plan", "run", "status"])
def test_a_bucket_that_cannot_be_used_is_refused_at_the_start(
    folder: File, server: Server, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    write(folder, TWO)
    store = buckets.new()
    assert "there is no such bucket" in refused(command, "tiny.yaml", "--store", "s3://nowhere-at-all/store")
    server.disturb = lambda number, environ: "refused"
    assert "InvalidAccessKeyId" in refused(command, "tiny.yaml", "--store", store)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert "http://127.0.0.1:1 does not answer" in refused(command, "tiny.yaml", "--store", store)


def test_an_address_that_is_no_store_is_refused_when_the_study_is_read(folder: File) -> None:
    write(folder, TWO)
    for address in ("ftp://host/store", "gs://bucket/store", "s3://"):
        said = refused("plan", "tiny.yaml", "--store", address, "--no-data")
        assert "resources.store: " in said and "s3://bucket/prefix" in said
    assert "credentials do not go" in refused("plan", "tiny.yaml", "--store", "s3://key:secret@bucket", "--no-data")


def test_a_plan_asks_few_questions_however_many_stages_there_are(folder: File, server: Server) -> None:
    write(folder)
    store = buckets.new()
    asked = []
    for _ in range(2):
        server.requests.clear()
        ended = run("plan", "tiny.yaml", "--store", store)
        assert ended.exit_code == 0, ended.output
        asked.append(len(server.requests))
        for i in range(30):
            put(Store(store).place, f"{i:016x}/measured.json", "{}")
    assert max(asked) <= 4


def test_a_job_on_kubernetes_mounts_no_store_that_is_a_bucket(folder: File) -> None:
    write(folder, TWO)
    ended = run("submit", "tiny.yaml", "--kuberay", "--store", "s3://bucket/store")
    assert ended.exit_code == 0, ended.output
    assert "persistentVolumeClaim" not in ended.stdout and "mountPath: s3" not in ended.stdout
    assert 'resources.runs="s3://bucket/store/runs"' in ended.stdout and "name: tapath" in ended.stdout
