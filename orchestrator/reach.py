"""What a run writes must last, and be seen by all nodes on which its stages run.

The driver alone talks to MLflow, so an SQLite file is safe wherever the driver always runs: with `tapath run`, on this
machine, however many nodes train. The driver of a job runs where the cluster puts it, in a folder that goes with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path as File
from typing import TYPE_CHECKING
from uuid import uuid4

from orchestrator.masking import public
from trainers.address import in_bucket
from trainers.alive import mark
from trainers.call import Invalid
from trainers.place import Place

if TYPE_CHECKING:  # it loads torch, and `tapath doctor` says what is wrong with that
    from orchestrator.study import Study

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: Ray's own switch for no address but 127.0.0.1, on any system
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the driver of a job
SHIPPED = ("runtime_resources", "working_dir_files")  # in Ray's session folder: where a job's files are unpacked
INSTEAD = "start `mlflow server` where the cluster reaches it, and write its http:// address here"
NFS = "Write a folder that is the same on all of them, such as one on NFS"
AWS = "Start Ray on all of them with boto3 installed and with the AWS_ variables that this process has"
TOKEN = (
    "export RAY_AUTH_MODE=token and the cluster's token as RAY_AUTH_TOKEN, or put it into ~/.ray/auth_token; whoever "
    "started the cluster prints it with `ray get-auth-token`"
)


def lasting(study: Study) -> Study:
    """The study, its report moved beside its results if it would be lost with the working folder of a job.

    Raises `Invalid` where a job would lose what cannot be made again.
    """
    if not fleeting(File.cwd()):
        return study
    resources = study.resources
    for name, place in (("store", resources.store), ("tracking", sqlite(study))):
        if place is not None and "://" not in place and fleeting(File(place).absolute()):
            instead = INSTEAD if name == "tracking" else "write a folder that all nodes share, as in /shared/store"
            raise Invalid(f"{place} lies in the working folder of this job, which is deleted: {instead}", _at(name))
    if in_bucket(resources.runs) or not fleeting(File(resources.runs).expanduser().absolute()):
        return study
    moved = resources.model_copy(update={"runs": f"{resources.store.rstrip('/')}/runs"})
    return study.model_copy(update={"resources": moved})


def at_home(address: str | None) -> None:
    """Keep a Ray that will be started here to this machine: it would listen on all networks, though with a token. To
    be called before Ray is imported."""
    if address in (None, "local") and not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault(LOOPBACK, "0")


def scattered(study: Study, nodes: int) -> None:
    """Raise `Invalid` for an SQLite file under a job's driver, on a cluster on whose nodes that may run anywhere."""
    if JOB in os.environ and nodes > 1 and (place := sqlite(study)) is not None:
        raise Invalid(
            f"SQLite ({place}) is a file of the node on which this job's driver happens to run, one of {nodes}: the "
            f"next job may not find it, and nobody else can look into it; {INSTEAD}",
            _at("tracking"),
        )


def unseen(store: Place, look: Callable[[str], Mapping[str, str]]) -> None:
    """Raise `Invalid` if a node does not see what is written to the store here.

    look: what nodes say of the existence of a file, by their names: nothing, or what is wrong.
    """
    store.tidy("")
    sign = f".seen.{mark()}-{uuid4().hex}"  # of a process that was killed, it is removed by the next one
    store.create(sign, "")
    try:
        wrong = {node: reason for node, reason in look(f"{store.address}/{sign}").items() if reason}
    finally:
        store.remove(sign)
    if wrong:
        listed = "".join(f"\n  {node}: {reason}" for node, reason in sorted(wrong.items()))
        raise Invalid(
            f"{store.root} is not seen by every node that may train:{listed}\n{AWS if in_bucket(store.root) else NFS}",
            _at("store"),
        )


def sqlite(study: Study) -> str | None:
    """The file in which MLflow would be kept, if it is SQLite's."""
    uri = study.resources.tracking_uri
    return public(uri.partition(":///")[2]) if uri.startswith("sqlite") else None


def fleeting(folder: File) -> bool:
    """Whether a folder is deleted with the job that it was unpacked for."""
    return all(part in folder.parts for part in SHIPPED)


def _at(name: str) -> tuple[str, str]:
    return ("resources", name)
