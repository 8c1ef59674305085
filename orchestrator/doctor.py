"""`tapath doctor`: whether all that a run needs is there and works, and how to mend what is not.

Neither torch nor MLflow nor Ray is imported before it is tried: what is broken is a finding, not the end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as File
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestrator import machine
from orchestrator.document import printable
from orchestrator.examined import Finding, State, tried
from orchestrator.exit_codes import DONE, NOT_WELL
from orchestrator.masking import public
from orchestrator.reach import TOKEN
from orchestrator.resources import Resources
from trainers.address import at, in_bucket
from trainers.call import Invalid

if TYPE_CHECKING:
    from orchestrator.study import Study

RAY_LIMIT = 180.0  # seconds for Ray to start, or to be reached, and to run a task
HERE = ("localhost", "127.0.0.1", "::1")
INSTALL = "install it as tapath wants it: pip install --constraint constraints.txt ."
FIRST = "mend torch first, which every stage needs"
MARKS: dict[State, str] = {"well": "ok", "warning": "warning", "wrong": "WRONG"}


def examine(file: File | None = None, *, tracking: str | None = None, address: str | None = None) -> list[Finding]:
    """Look at everything, what is of a study too if one is named. Raises `Invalid` for a file that is no study."""
    study, unread = _study(file) if file is not None else (None, [])
    resources = study.resources if study else Resources()
    uri = tracking or resources.tracking_uri
    parts = urlsplit(uri)
    own = parts.port if parts.hostname in HERE else None
    where = address or os.environ.get("RAY_ADDRESS")
    with ThreadPoolExecutor() as pool:  # these wait for processes of their own
        torch, local = pool.submit(machine.torch), pool.submit(ray)
        away = pool.submit(cluster, where) if where else None
        tracked = list(mlflow(uri, asked=tracking is not None))
        found, started = torch.result(), [local.result(), *([away.result()] if away else ())]
        if code(found):
            started = [one._replace(mend=FIRST) if one.state == "wrong" else one for one in started]
        return [
            machine.python(),
            *found,
            started[0],
            *tracked,
            *([] if in_bucket(resources.store) else machine.disks(resources.store)),
            machine.shared(),
            *machine.ports(own),
            machine.files(),
            *unread,
            *(of_study(study) if study else ()),
            *started[1:],
        ]


def _study(file: File) -> tuple[Study | None, list[Finding]]:
    """The study of a file, or why this installation cannot read it. Raises `Invalid` for a file that is no study."""
    try:
        from orchestrator.study import load  # it loads torch
    except Exception as error:  # whatever a broken installation raises
        return None, [Finding(f"study {file}", "wrong", f"it cannot be read: {_said(error)}", FIRST)]
    return load(file), []


def ray() -> Finding:
    """Whether Ray starts here as a run starts it, and runs a task."""
    code, out, error = tried(["-m", "orchestrator.probe_ray", "local"], limit=RAY_LIMIT)
    if code == 0:
        return Finding("Ray", "well", out)
    if os.environ.get("RAY_AUTH_MODE") == "token" and "oken" in error:
        mend = f"RAY_AUTH_MODE asks for a token: {TOKEN}"
    else:
        unimported = error.startswith(("ImportError", "ModuleNotFoundError"))
        mend = INSTALL if unimported else "look into /tmp/ray/session_latest/logs"
    return Finding("Ray", "wrong", f"it does not start: {public(error)}", mend)


def cluster(address: str) -> Finding:
    """Whether a cluster is reached, and runs a task."""
    code, out, error = tried(["-m", "orchestrator.probe_ray", address], limit=RAY_LIMIT)
    what = f"cluster {public(address)}"
    if code == 0:
        return Finding(what, "well", out)
    mend = f"see that it runs and this is the address of its GCS, as in HEAD:6379; if it wants a token: {TOKEN}"
    return Finding(what, "wrong", public(error.partition("Invalid: ")[2] or error), mend)


def mlflow(uri: str, *, asked: bool) -> Iterator[Finding]:
    """Whether MLflow can make a database, and use the one that is meant; `asked`: it has to be there already."""
    try:
        from orchestrator import connection  # importing MLflow takes seconds
    except Exception as error:  # whatever a broken installation raises
        yield Finding("MLflow", "wrong", f"it cannot be imported: {_said(error)}", INSTALL)
        return

    def made() -> str:
        with tempfile.TemporaryDirectory() as folder:
            connection.connect(f"sqlite:///{folder}/mlflow.db", create=True).search_experiments(max_results=1)
        return "a database was made and opened"

    yield _done("MLflow", made, mend=INSTALL)
    what = f"tracking {public(uri)}"
    if uri.startswith("sqlite") and not (file := connection.sqlite_file(uri)).exists() and not asked:
        yield Finding(what, "well", f"{file} is not there yet; the first run makes it")
        return

    def used() -> str:
        connection.connect(uri).search_experiments(max_results=1)
        return "it answers"

    mend = "start it (mlflow server), or write its address: --tracking, resources.tracking, MLFLOW_TRACKING_URI"
    yield _done(what, used, mend=mend)


def of_study(study: Study) -> Iterator[Finding]:
    """Its store and its data."""
    from trainers import build  # it loads torch

    place = at(study.resources.store)

    def stored() -> str:
        if in_bucket(study.resources.store):
            place.writable()
        else:
            place.reachable()
        return f"{len(place.find('*/result.json'))} finished stages"

    def opened() -> str:
        found = build.dataset(study.data)
        return f"{len(found.train):,} and {len(found.val):,} images, {len(found.classes)} classes"

    yield _done(f"store {public(study.resources.store)}", stored, mend="see resources.store; for s3:// *On a cluster*")
    yield _done(f"data {study.data.name}", opened, mend="see `data:` of the study; or tapath data check")


def _done(what: str, job: Callable[[], str], *, mend: str) -> Finding:
    """What a job says, or why it failed."""
    try:
        return Finding(what, "well", job())
    except (Invalid, OSError) as error:
        return Finding(what, "wrong", public(error), mend)
    except Exception as error:  # whatever a broken installation raises
        return Finding(what, "wrong", _said(error), mend)


def _said(error: Exception) -> str:
    return public(f"{type(error).__name__}: {error}".partition("\n")[0])


def code(found: Iterable[Finding]) -> int:
    return NOT_WELL if any(one.state == "wrong" for one in found) else DONE


def as_json(found: Sequence[Finding]) -> dict[str, Any]:
    return {"well": code(found) == 0, "checks": [one._asdict() for one in found]}


def text(found: Sequence[Finding]) -> str:
    """For people: a line for each, and below what is not well how to mend it."""
    wide = max(len(one.what) for one in found)
    lines = []
    for one in found:
        lines.append(f"{MARKS[one.state]:<8}{one.what:<{wide}}  {one.said}")
        lines += [f"{'':<8}{'':<{wide}}  -> {one.mend}"] if one.mend else []
    wrong, warned = (sum(one.state == state for one in found) for state in ("wrong", "warning"))
    lines.append(f"{wrong} wrong, {warned} warnings" if wrong or warned else "all well")
    return "\n".join(map(printable, lines))
