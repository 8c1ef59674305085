"""Reading a job's log along, and what the end of it means, without a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from orchestrator import submit
from orchestrator.exit_codes import LOST
from orchestrator.signals import handling


class Broken:
    """A job server that breaks off in the middle of a line, and begins anew with the whole log."""

    def __init__(self, *texts: list[str]) -> None:
        self.texts = list(texts)

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for text in self.texts.pop(0):
            yield text


def test_every_line_is_printed_once_however_often_reading_begins_anew() -> None:
    said: list[str] = []
    log, server = submit.Log(said.append), Broken(["one\ntw"], ["on", "e\ntwo\nth", "ree\nfour"])
    asyncio.run(log.read(server, "job"))
    assert said == ["one"]
    asyncio.run(log.read(server, "job"))
    assert said == ["one", "two", "three"]
    log.end()
    assert said == ["one", "two", "three", "four"]


def test_ctrl_c_is_heard_though_whoever_waits_takes_it_for_the_end_of_a_connection() -> None:
    async def waits() -> None:
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), handling(submit._interrupt, (signal.SIGINT,)):
        asyncio.run(waits())
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 3, 3),
        (JobStatus.FAILED, 143, 143),
        (JobStatus.FAILED, -9, 137),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 130),
    ],
)
def test_the_exit_code_is_that_of_the_run(status: JobStatus, driver: int | None, code: int) -> None:
    info = SimpleNamespace(status=status, driver_exit_code=driver, message="see http://me:hush@head")
    said: list[str] = []
    assert submit.code(info, said.append) == code
    assert "hush" not in "".join(said)


class Gone:
    """A job server that is not there any more, or another one that knows nothing of the job."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def get_job_info(self, job: str) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "away", "said"),
    [
        (ConnectionError("refused"), 0.0, "the cluster has not answered any more about job-1"),
        (RuntimeError("Request failed with status code 404: Job job-1 does not exist."), 300.0, "has another head now"),
    ],
)
def test_a_job_that_is_gone_with_its_head_has_failed_and_can_be_submitted_again(
    error: Exception, away: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "AWAY", away)
    told: list[str] = []
    assert submit.followed(Gone(error), "job-1", told.append) == LOST == 1
    assert said in told[-1] and "submit it again to go on" in told[-1] and len(told) == 1
