"""The head of a cluster dies under a job, with all that ran on it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path as File

import pytest
import torch

from tests.faults.clusters import kill
from tests.orchestrator import studies
from tests.orchestrator.heads import TOKEN, Head, head
from tests.orchestrator.studies import changed, descendants, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 5
CHANGES = ("epochs: 2,", f"epochs: {EPOCHS},"), ("train: 32", "train: 160"), ("[alone]", "[]")
TEXT = changed(*CHANGES, text=without("mid", "low"))


def epochs(store: File) -> list[float]:
    """How long each epoch took that the stage under way has stored: an epoch anew would take another time."""
    files = [file for file in store.glob("*/state-*.pt") if not (file.parent / "result.json").exists()]
    last = max(files, key=lambda file: file.name, default=None)
    return [one["seconds"] for one in torch.load(last, weights_only=True)["history"]] if last else []


def begun(store: File) -> bool:
    return any(not (file.parent / "result.json").exists() for file in store.glob("*/state-*.pt"))


def test_a_job_whose_head_dies_is_waited_for_and_one_on_another_head_goes_on_where_it_was(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first stage starts, within an epoch of it, and within one of the stage that it teaches."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    write(tmp_path, TEXT)
    store = tmp_path / "shared"

    def words(there: Head) -> tuple[str, ...]:
        places = ("--store", str(store), "--set", f"resources.tracking=sqlite:///{tmp_path}/mlflow.db")
        return ("submit", "tiny.yaml", "--address", there.jobs, "--follow", *places)

    def starts() -> bool:
        return bool(list(store.glob("*/lease-*")))

    def has_an_epoch() -> bool:
        return begun(store)

    def has_one_of_the_other() -> bool:
        return len(studies.stored(tmp_path, "shared")) == 1 and begun(store)

    left = []
    for moment in (starts, has_an_epoch, has_one_of_the_other):
        before = studies.written(tmp_path, "shared")
        with head() as one, underway(tmp_path, *words(one)) as job:
            job.until(moment)
            time.sleep(0 if moment is starts else 0.2)  # an epoch takes longer
            for process, _ in descendants(one.pid):
                with suppress(ProcessLookupError):  # it is no more without those above it
                    kill(process)
            job.until(lambda: "the cluster does not answer" in job.text)  # it may come back, for some minutes
            job.interrupt()
            assert job.end() == 130 and "Traceback" not in job.text, job.text
        left.append(epochs(store))
        after = studies.written(tmp_path, "shared")
        assert {key: after[key] for key in before} == before
    before = studies.written(tmp_path, "shared")
    assert [min(len(one), 1) for one in left] == [0, 1, 1] and len(left[-1]) < EPOCHS and len(before) == 1
    alone = tapath(write(tmp_path / "alone", TEXT).parent, "run", "tiny.yaml")
    assert alone.code == 0, alone.err
    with head() as last:
        again = tapath(tmp_path, *words(last))
    assert again.code == 0, again.out + again.err
    after = studies.written(tmp_path, "shared")
    assert {key: after[key] for key in before} == before
    assert studies.stored(tmp_path, "shared") == studies.stored(tmp_path / "alone"), "every bit, as if undisturbed"
    for key, known in zip(sorted(after, key=lambda one: one not in before), left[1:], strict=True):
        history = json.loads((store / key / "result.json").read_text())["history"]
        assert [one["seconds"] for one in history][: len(known)] == known, "no epoch that was stored was trained again"
