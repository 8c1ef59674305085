"""A study as a job of a Ray cluster: ship it, start it, and read along until it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from orchestrator import parcel
from orchestrator.exit_codes import DONE, INTERRUPTED, LOST
from orchestrator.masking import public
from orchestrator.reach import TOKEN
from orchestrator.signals import handling
from orchestrator.study import Study
from trainers.call import Invalid

PATIENCE = 60  # seconds between two signs of life of a job that has not begun
AWAY = 300.0  # seconds for which the cluster may be away while its log is read
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
NOISY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")

for name in NOISY:  # they count bytes and websockets
    logging.getLogger(name).setLevel(logging.WARNING)

Say = Callable[[str], None]


def submit(study: Study, *, address: str | None, follow: bool, words: tuple[str, ...], say: Say) -> int:
    """Start `tapath run` on the cluster; -> its exit code if `follow`, else 0 once the cluster has it."""
    parcel.checked(study)
    found = parcel.contents(study)
    address = job_server(address)
    with talking(address):
        client = connected(address)
        for other in running(client, study.name):
            say(f"warning: the job {other} trains {study.name} already; stop it with: ray job stop {other}")
        job = start(client, study, found, words)
    size = sum(file.stat().st_size for file in found.values())
    say(f"{job} has started at {public(address)}, with {len(found)} files of {size / 2**20:.1f} MiB")
    if study.resources.tracking is None:
        say("MLflow is where MLFLOW_TRACKING_URI says on the cluster; this machine's is not handed on")
    hint = f"--address {public(address)} {job}"
    if not follow:
        say(f"read along: ray job logs --follow {hint}\nstop it:    ray job stop {hint}")
        return DONE
    try:
        with talking(address):
            return followed(client, job, say)
    except KeyboardInterrupt:
        say(f"the job goes on; read along: ray job logs --follow {hint}\nstop it: ray job stop {hint}")
        return INTERRUPTED


def job_server(address: str | None) -> str:
    """The address of the job server: what the user says, else what Ray's own variables say. Raises `Invalid`."""
    address = address or next((os.environ[name] for name in ADDRESSES if os.environ.get(name)), None)
    scheme, found, rest = (address or "").rpartition("://")
    if not rest or (scheme not in ("http", "https") if found else ":" not in rest):
        raise Invalid(
            f"{public(address) if address else 'no address'}: name the cluster's job server, as in http://HEAD:8265; "
            "that is the port of its dashboard, neither 6379 nor ray://HEAD:10001",
            ("--address",),
        )
    return f"{scheme or 'http'}://{rest}"


def connected(address: str) -> JobSubmissionClient:
    """A client of the job server at an address, whatever Ray's variables say: they would win over it."""
    before = {name: os.environ.pop(name) for name in ADDRESSES if name in os.environ}
    try:
        return JobSubmissionClient(address)
    finally:
        os.environ.update(before)


@contextmanager
def talking(address: str) -> Iterator[None]:
    """Turn what goes wrong between the job server and us into one `Invalid` with what to do."""
    where, place = ("--address",), public(address)
    try:
        yield
    except AuthenticationError as error:
        refused = "wants a token" if "401" in str(error) or "Missing" in str(error) else "does not take this token"
        raise Invalid(f"the cluster at {place} {refused}: {TOKEN}", where) from error
    except ConnectionError as error:
        raise Invalid(
            f"no job server answers at {place}. Is this the dashboard's port (8265 unless somebody chose another), and "
            "reachable from here? The head has a job server only with `pip install 'ray[default]'` and without "
            "--include-dashboard=false",
            where,
        ) from error
    except (RuntimeError, OSError, ClientError) as error:
        reason = public(str(error).strip().partition("\n")[0] or type(error).__name__)
        raise Invalid(f"the job server at {place} says: {reason}", where) from error


def running(client: JobSubmissionClient, name: str) -> list[str]:
    """The jobs that train a study of this name now."""
    return [
        job.submission_id
        for job in client.list_jobs()
        if job.submission_id and not job.status.is_terminal() and (job.metadata or {}).get("study") == name
    ]


def start(client: JobSubmissionClient, study: Study, found: dict[str, File], words: tuple[str, ...]) -> str:
    """Ship the files and start the job; -> its name."""
    with tempfile.TemporaryDirectory(prefix="tapath-") as folder:
        parcel.pack(found, File(folder))
        job: str = client.submit_job(
            # The shell makes way, so that a signal and an exit code are those of the run.
            entrypoint=f"exec {shlex.join(parcel.command(study, *words))}",
            submission_id=f"tapath-{study.name}-{uuid.uuid4().hex[:8]}",
            runtime_env={"working_dir": folder, "env_vars": parcel.ENVIRONMENT},
            metadata={"study": study.name},
        )
    return job


def followed(client: JobSubmissionClient, job: str, say: Say) -> int:
    """Print the job's log until it ends; -> the exit code of the run, which Ray's own tools flatten to 1.

    A cluster that does not answer may come back, for some minutes; then the job is given up for lost with its head.
    """
    log = Log(say)
    late, beat = time.monotonic() + AWAY, time.monotonic()
    while True:
        try:
            info = client.get_job_info(job)
            if info.status != JobStatus.PENDING:
                with handling(_interrupt, (signal.SIGINT,)):
                    asyncio.run(log.read(client, job))
                info = client.get_job_info(job)
            late = time.monotonic() + AWAY
            if info.status.is_terminal():
                log.end()
                return code(info, say)
            if info.status == JobStatus.PENDING and time.monotonic() - beat > PATIENCE:
                beat = time.monotonic()
                say(f"{job} waits to be started: {info.message or 'the cluster has not said why'}")
        except AuthenticationError:
            raise
        except (RuntimeError, OSError, ClientError) as error:
            if (unknown := f"{job} does not exist" in str(error)) or time.monotonic() > late:
                why = "has another head now, which does not know" if unknown else "has not answered any more about"
                say(f"the cluster {why} {job}: what it trained is stored; submit it again to go on")
                return LOST
            say(f"the cluster does not answer ({type(error).__name__}); trying again, the job goes on without us")
            time.sleep(4)
        time.sleep(1)


def _interrupt(number: int, frame: object) -> None:
    """Ctrl-C ends what asyncio runs. Its own way is to cancel the task, and then nobody hears of it where whoever waits
    for the network takes that for the end of a connection."""
    raise KeyboardInterrupt


class Log:
    """The log of a job, each line printed once, however often reading begins anew."""

    def __init__(self, say: Say) -> None:
        self.say, self.shown, self.rest = say, 0, ""

    async def read(self, client: JobSubmissionClient, job: str) -> None:
        """Print what is new until the connection ends, which it does after the job."""
        seen = 0
        async for text in client.tail_job_logs(job):
            new = text[max(0, self.shown - seen) :]
            seen += len(text)
            self.shown = max(self.shown, seen)
            *lines, self.rest = (self.rest + new).split("\n")
            for line in lines:
                self.say(line)

    def end(self) -> None:
        """Print what never became a whole line."""
        if self.rest:
            self.say(self.rest)
            self.rest = ""


def code(info: Any, say: Say) -> int:
    """The exit code of a job that has ended."""
    if info.status == JobStatus.STOPPED:
        say("the job was stopped; submit it again to go on")
        return INTERRUPTED
    if info.status == JobStatus.SUCCEEDED:
        return DONE
    if info.driver_exit_code is None:  # it never came to run
        say(f"the job failed: {public(info.message or 'the cluster does not say why')}")
        return LOST
    exit_code: int = info.driver_exit_code
    return exit_code if exit_code > 0 else 128 - exit_code
