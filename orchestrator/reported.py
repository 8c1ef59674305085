"""Where the report of a study lies: in a folder, or in a bucket where a job's own folder would be gone."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path as File
from typing import Any

from orchestrator.study import Study
from trainers.address import at, in_bucket
from trainers.call import Invalid
from trainers.place import Place
from trainers.scratch import scratch

LOG = "run.log"

log = logging.getLogger(__name__)


def page_of(study: Study) -> str:
    """What people open, or fetch."""
    return f"{study.resources.runs.rstrip('/')}/{study.name}/report.html"


def figures_of(study: Study) -> dict[str, Any]:
    """report.json, as it was written last. Raises `OSError` where there is none."""
    made: dict[str, Any] = json.loads(at(study.resources.runs).read(f"{study.name}/report.json"))
    return made


def log_of(study: Study) -> File:
    """Where a run logs what libraries print: beside its report or, if that goes to a bucket, in a folder here."""
    if in_bucket(study.resources.runs):
        return File(tempfile.mkdtemp(prefix=f"tapath-{study.name}-")) / LOG
    return File(study.resources.runs).expanduser() / study.name / LOG


@contextmanager
def folder_of(study: Study) -> Iterator[File]:
    """A folder with the last report's figures and pictures; what is in it when the block ends is the study's report."""
    runs = study.resources.runs
    if not in_bucket(runs):
        yield File(runs).expanduser() / study.name
        return
    place = at(runs)
    with scratch() as made:
        folder = File(made)
        for name in ("report.json", "pictures.json"):
            with suppress(OSError, Invalid):
                (folder / name).write_bytes(place.read(f"{study.name}/{name}"))
        yield folder
        try:
            for file in sorted(folder.iterdir()):
                _put(place, f"{study.name}/{file.name}", file)
        except (OSError, Invalid) as error:  # all is trained and stored: no error should sound as if it were lost
            said = getattr(error, "strerror", None) or error
            log.warning("the report is not in %s: %s; `tapath report` makes it again", runs, said)


def _put(place: Place, name: str, file: File) -> None:
    with place.draft(name) as draft:
        shutil.copyfile(file, draft)
        place.settle(draft, name)
