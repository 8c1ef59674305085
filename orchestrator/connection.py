"""The way to MLflow: a database or server by its URI, an experiment by its name, all pages of a search."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# Read when MLflow is imported. Requests are tried again by us: MLflow would go on for minutes by itself.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Metric, Param, Run, RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.rest_utils import http_request
from sqlalchemy import create_engine

from orchestrator.masking import public
from trainers.call import Invalid, alternatives

__all__ = [
    "LoggedModel",
    "Metric",
    "MlflowClient",
    "ModelVersion",
    "Param",
    "Run",
    "RunTag",
    "answering",
    "connect",
    "every",
    "experiments",
    "histories",
    "open_experiment",
    "patient",
    "possible",
    "reason",
    "talking",
]

log = logging.getLogger(__name__)

WHERE = ("resources", "tracking")
SERVERS = ("http", "https", "databricks")
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # with the ports that they have by default
AT_ONCE = 8  # requests to a server
SEVERAL = 100  # runs of which values are asked for at once; a server takes no more
ALL = 10**9  # values, where a query must say how many it wants
BULK, MOST = "/ajax-api/2.0/mlflow/metrics/get-history-bulk", 25_000  # values that a server tells at once
LOCKED = "database is locked"  # SQLite's words for it
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
INSTEAD = "write sqlite:///runs/mlflow.db, or the http:// address of an MLflow server"


def connect(uri: str, *, create: bool = False) -> MlflowClient:
    """A client of the database or server. `create`: make an SQLite database that is not there yet.

    Raises `Invalid` at once when it cannot be used.
    """
    parts, scheme = urlsplit(uri), possible(uri)
    if scheme == "sqlite":
        return _sqlite(uri, create)
    if scheme in DATABASES and parts.hostname:  # MLflow would try for two minutes
        with (
            talking(uri),
            socket.create_connection((parts.hostname, parts.port or DATABASES[scheme]), timeout=5),
        ):
            pass
        with talking(uri):  # nor would it be quicker to say that a password is wrong
            engine = create_engine(uri)
            engine.connect().close()
            engine.dispose()
    with talking(uri):
        return MlflowClient(uri)


def possible(uri: str) -> str:
    """The scheme of an address at which MLflow can track. Raises `Invalid` for any other."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme == "sqlite":
        if sqlite_file(uri).name in ("", ":memory:"):
            raise Invalid(f"{uri} would be forgotten at the end; {INSTEAD}", WHERE)
    elif scheme not in (*SERVERS, *DATABASES) and uri != "databricks":
        raise Invalid(f"MLflow does not track in {public(uri)}: it has given up folders; {INSTEAD}", WHERE)
    return scheme


def answering(uri: str) -> None:
    """Raise `Invalid` if a server cannot be used, before anything is written there."""
    if possible(uri) != "sqlite":
        client = connect(uri)
        with talking(uri):
            client.search_experiments(max_results=1)


def _sqlite(uri: str, create: bool) -> MlflowClient:
    file = sqlite_file(uri)
    if not create and not file.is_file():
        here = "" if file.is_absolute() else ", in the folder in which that is typed"
        raise Invalid(f"there is no MLflow database {file.absolute()} yet; it is made by `tapath run`{here}", WHERE)
    # MLflow keeps what it has opened by its address, which must go on to mean this file in whichever folder we are.
    uri = uri if file.is_absolute() else uri.replace(":///", f":///{Path.cwd()}/", 1)
    with talking(uri):
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            if not file.exists():
                _make(uri, file)
            return MlflowClient(uri)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Alone with an SQLite database: two that make its tables at once would break each other. Who may only read needs
    no lock: the file is there by a rename, and so whole."""
    with ExitStack() as held:
        try:
            lock = held.enter_context(open(file.with_name(f".{file.name}.lock"), "w"))
        except OSError as error:
            if error.errno not in FORBIDDEN or not file.exists():
                raise
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(uri: str, file: Path) -> None:
    """An SQLite database with all its tables or none: of a run that is killed between, no other could use the half."""
    new = file.with_name(f"{file.name}.new")
    for left in (new, new.with_name(f"{new.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(f"{uri.partition('?')[0]}.new")
    new.rename(file)


def sqlite_file(uri: str) -> Path:
    """The database file of sqlite:///relative/file or sqlite:////absolute/file."""
    return Path(unquote(urlsplit(uri).path[1:]))


@contextmanager
def talking(uri: str) -> Iterator[None]:
    """Turn what goes wrong between MLflow and us into `Invalid`, with the URI but without its password."""
    try:
        yield
    except Invalid:
        raise
    except Exception as error:  # MlflowException, or whatever its drivers raise
        raise Invalid(f"MLflow at {public(uri)} cannot be used: {reason(error)}", WHERE) from error


def reason(error: object) -> str:
    """What went wrong, in one line without passwords: what the network said, if it is at the bottom of it."""
    if isinstance(error, Invalid) and error.__cause__ is not None:
        return reason(error.__cause__)
    lacking = next((one.name for one in _causes(error) if isinstance(one, ModuleNotFoundError)), None)
    if lacking is not None:  # SQLAlchemy has another driver by default than most have
        return f"{lacking} is not installed here; name a driver that is, as in postgresql+psycopg2://"
    said = next((one.strerror for one in _causes(error) if isinstance(one, OSError) and one.errno and one.strerror), "")
    return public(said or str(error).strip().partition("\n")[0] or type(error).__name__)


def _causes(error: object) -> Iterator[object]:
    """An error and those that it was raised from, handled after, or wrapped around."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def patient(uri: str, job: Callable[[], None], patience: float) -> None:
    """Do what MLflow is asked for; while its SQLite file is locked by somebody else again and again, for so many
    seconds. The job must be harmless when done again. Raises `Invalid`."""
    until, said = time.monotonic() + patience, False
    while True:
        try:
            with talking(uri):
                return job()
        except Invalid as error:
            if LOCKED not in str(error) or time.monotonic() > until:
                raise
        if not said:
            log.warning("MLflow at %s is locked by another process; waiting for it", public(uri))
            said = True
        time.sleep(0.5)


def open_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment, made if there is none by this name, and brought back if it was deleted."""
    found = client.get_experiment_by_name(name)
    if found is None:
        created: str = client.create_experiment(name, artifact_location=_artifacts(uri))
        return created
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        log.warning("the MLflow experiment %s was deleted; it is back, with all its runs", name)
    identifier: str = found.experiment_id
    return identifier


def experiments(client: MlflowClient, names: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """These experiments with their ids, or all, each once. Raises `Invalid` for one that is not there."""
    known = {one.name: one.experiment_id for one in every(client.search_experiments)}
    for name in sorted(known) if names is None else dict.fromkeys(names):
        if name not in known and (deleted := client.get_experiment_by_name(name)) is not None:
            known[name] = deleted.experiment_id
        if name not in known:
            raise Invalid(f"the MLflow experiment {alternatives(name, known)}", WHERE)
        yield name, known[name]


def _artifacts(uri: str) -> str | None:
    """Where models that are registered go; None: where the server says.

    Without a server MLflow would put them into ./mlruns of wherever this runs, and heed no variable.
    """
    if possible(uri) == "sqlite":
        return (sqlite_file(uri).resolve().parent / "mlartifacts").as_uri()
    if possible(uri) in DATABASES:
        return os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or (Path.cwd() / "mlartifacts").as_uri()
    return None


def every(search: Callable[..., Any]) -> Iterator[Any]:
    """All results of a search, page by page."""
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def histories(client: MlflowClient, runs: Sequence[str], name: str) -> dict[str, list[Metric]]:
    """All values of a metric by run, in the order in which they were logged.

    Of many runs at once, as MLflow's own pages ask for them: of thousands one by one it would take minutes. That is no
    part of the client's public face, so whoever does not offer it is asked for each run.
    """
    store: Any = getattr(getattr(client, "_tracking_client", None), "store", None)
    found: dict[str, list[Metric]] = defaultdict(list)
    for i in range(0, len(runs), SEVERAL):
        some = runs[i : i + SEVERAL]
        if hasattr(store, "get_metric_history_bulk"):
            for one in store.get_metric_history_bulk(some, name, ALL):
                found[one.run_id].append(one)
        elif (there := _served(store, some, name)) is not None:
            for one in there:
                found[one["run_id"]].append(Metric(one["key"], one["value"], one["timestamp"], one["step"]))
        else:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                each = pool.map(lambda run: client.get_metric_history(run, name), some)
                found.update(zip(some, each, strict=True))
    return found


def _served(store: Any, runs: Sequence[str], name: str) -> list[dict[str, Any]] | None:
    """The values of a metric as a server tells its own pages; None if it does not, or not all of them."""
    asked = [("metric_key", name), *(("run_id", run) for run in runs)]
    try:
        answer = http_request(store.get_host_creds(), BULK, "GET", params=asked)
        values: list[dict[str, Any]] = answer.json()["metrics"] if answer.status_code == 200 else []
    except Exception:  # whatever it is, asking run by run will tell
        return None
    return values if 0 < len(values) < MOST else None
