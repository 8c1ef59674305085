"""The head of a cluster dies under a job, with all that ran on it."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from tests.faults.clusters import kill
from tests.orchestrator import studies
from tests.orchestrator.heads import TOKEN, Head, head
from tests.orchestrator.studies import changed, descendants, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TEXT = changed(("epochs: 2,", "epochs: 16,"), ("[alone]", "[]"), text=without("mid", "low"))


def test_a_job_whose_head_dies_is_waited_for_and_one_on_another_head_goes_on_where_it_was(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    write(tmp_path, TEXT)

    def words(there: Head) -> tuple[str, ...]:
        places = ("--store", str(tmp_path / "shared"), "--set", f"resources.tracking=sqlite:///{tmp_path}/mlflow.db")
        return ("submit", "tiny.yaml", "--address", there.jobs, "--follow", *places)

    with head() as first, underway(tmp_path, *words(first)) as job:
        job.until(lambda: list((tmp_path / "shared").glob("*/state-*.pt")))
        kill(*(pid for pid, _ in descendants(first.pid)))
        job.until(lambda: "the cluster does not answer" in job.text)  # it may come back, for some minutes
        job.interrupt()
        assert job.end() == 130 and "Traceback" not in job.text, job.text
    alone = tapath(write(tmp_path / "alone", TEXT).parent, "run", "tiny.yaml")
    assert alone.code == 0, alone.err
    before = studies.written(tmp_path, "shared")
    begun = max(int(file.name.split("-")[1]) for file in (tmp_path / "shared").glob("*/state-*.pt"))
    with head() as second:
        again = tapath(tmp_path, *words(second))
    assert again.code == 0, again.out + again.err
    after = studies.written(tmp_path, "shared")
    assert {key: after[key] for key in before} == before
    assert studies.stored(tmp_path, "shared") == studies.stored(tmp_path / "alone"), "every bit, as if undisturbed"
    assert f"epoch    big  {begun + 1}/16" in again.out or "done     big " in again.out
    assert "epoch    big  1/16" not in again.out, "its first epoch was not trained again"
