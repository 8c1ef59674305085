"""What of a study goes to a cluster: its file, our own sources and the small weights that it names, nothing else.

Nothing is looked for in the working folder, so stores, runs, data, `.git` and virtual environments never travel. What
a job would look for in its own working folder, which is gone when it ends, is refused with what to write instead.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path as File

import orchestrator
import trainers
from orchestrator.masking import public
from orchestrator.study import Study
from trainers.call import Invalid

LIMIT = 95 * 2**20  # bytes; Ray's job server takes 100 MiB at once, and tells nobody so until all is there
# Of a job: the seconds that Ray gives it to end when it is stopped, 3 if nobody says so.
ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": "60"}
LISTED = 5  # files that are named when it is too much
SOURCES = (".py", ".html", ".css", ".js")
PACKAGES = (orchestrator, trainers)


def checked(study: Study) -> None:
    """Raise `Invalid` where a job on a cluster could not find, or would lose, what the study names."""
    try:
        _places(study)
        _secrets(study)
    except Invalid as mistake:
        raise study.refusal(mistake) from mistake


def _places(study: Study) -> None:
    resources = study.resources
    if relative(resources.store):
        raise Invalid(
            f"{resources.store} would be in the job's own working folder, and lost with it; write a folder that all "
            "nodes of the cluster share, as in --store /shared/store, or a bucket, as in --store s3://bucket/prefix",
            ("resources", "store"),
        )
    uri = resources.tracking or ""
    if uri.startswith("sqlite:") and not uri.startswith("sqlite:////"):
        raise Invalid(
            f"{public(uri)} would be in the job's own working folder, and lost with it; start `mlflow server` where "
            "the cluster reaches it and write its address, as in --set resources.tracking=http://mlflow:5000",
            ("resources", "tracking"),
        )
    root = study.data.args.get("root")
    if isinstance(root, str) and relative(root):
        raise Invalid(
            f"{root} is not shipped with a job: put the data where all nodes of the cluster see them and write the "
            f"whole path, as in --set data.{study.data.name}.root=/shared/data",
            ("data", study.data.name, "root"),
        )
    for name, model in study.models.items():
        source = model.weights
        if source is not None and not source.remote and relative(source.file) and not _inside(source.file):
            raise Invalid(
                f"{source.file} is outside of this folder; copy it into the folder, or to where all nodes of the "
                "cluster see it and write the whole path",
                ("models", name, "weights", "file"),
            )


def _secrets(study: Study) -> None:
    for assignment in study.sets:
        if public(assignment) != assignment:
            raise Invalid(
                f"{public(assignment)}: the password or token in it would be seen by all who may list the cluster's "
                "jobs; leave it out here, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN, for the nodes of the cluster"
            )


def relative(place: str) -> bool:
    """Whether a path depends on where a process runs; an address of a service does not, and `~` does on whose."""
    return "://" not in place and not File(place).is_absolute()


def _inside(place: str) -> bool:
    return File.cwd() in (File.cwd() / place).resolve().parents and not place.startswith("~")


def contents(study: Study) -> dict[str, File]:
    """What is shipped: by its place in the job's working folder, the file here.

    Raises `Invalid` if a file is not there, or if all together are too much.
    """
    found = {
        str(file.relative_to(package.parent)): file
        for package in (File(str(module.__file__)).parent for module in PACKAGES)
        for file in sorted(package.rglob("*"))
        if file.suffix in SOURCES and "__pycache__" not in file.parts
    }
    found[File(study.file).name] = File(study.file)
    for name, model in study.models.items():
        source = model.weights
        if source is not None and not source.remote and relative(source.file):
            if not File(source.file).is_file():
                where = ("models", name, "weights", "file")
                raise study.refusal(Invalid(f"there is no file {source.file} here to be shipped with the job", where))
            found[source.file] = File(source.file)
    _small(found)
    return found


def _small(found: Mapping[str, File]) -> None:
    sizes = {place: file.stat().st_size for place, file in found.items()}
    if sum(sizes.values()) <= LIMIT:
        return
    largest = sorted(sizes, key=lambda place: -sizes[place])[:LISTED]
    listed = "\n".join(f"  {sizes[place] / 2**20:8.1f} MiB  {place}" for place in largest)
    raise Invalid(
        f"{sum(sizes.values()) / 2**20:.0f} MiB are too much to be shipped with a job, {LIMIT / 2**20:.0f} MiB are "
        f"taken. The largest files:\n{listed}\nPut them where all nodes of the cluster see them and write their whole "
        "path in the study, or a URL"
    )


def pack(found: Mapping[str, File], folder: File) -> None:
    """Lay what is shipped out in an empty folder."""
    for place, file in found.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def command(study: Study, *words: str, folder: str = "") -> list[str]:
    """What the job runs, word for word; the study lies in this folder of the node, or in the working folder.

    A report that would be lost with the working folder is put beside the results.
    """
    sets = list(study.sets)
    if relative(study.resources.runs):
        place = f"{study.resources.store.rstrip('/')}/runs"
        sets.append(f"resources.runs={place if re.fullmatch('[/A-Za-z0-9_.-]+', place) else json.dumps(place)}")
    file = f"{folder}/{File(study.file).name}" if folder else File(study.file).name
    return ["python", "-m", "orchestrator", "run", file, *words, *(w for one in sets for w in ("--set", one))]
