"""What teacher, student alone and distilled student find in a few validation images: what the report shows of it.

It is looked up when everything is trained, in this process, which has read the data already; it takes seconds and never
fails anything. What was found is kept beside report.json, and not looked up again for the same weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any

from orchestrator import report
from orchestrator.board import Board
from orchestrator.prepared import Prepared
from orchestrator.reported import folder_of
from orchestrator.words import arrow, plain
from trainers.call import canonical
from trainers.spec import Stage

log = logging.getLogger(__name__)

KEPT = "pictures.json"  # written by `report.write`
FORMAT = 1  # of it
SECONDS = 60.0  # after which no further image is looked at


def illustrate(prepared: Prepared, board: Board, summary: Mapping[str, Any]) -> None:
    """Write the report once more, with pictures, if there is anything to show. It was written without, and stays if
    that fails."""
    if prepared.study.resources.pictures and panels(board, summary):
        with _warning(), folder_of(prepared.study) as folder:
            if made := pictures(prepared, board, summary, folder):
                report.write(summary, folder, made)


def pictures(prepared: Prepared, board: Board, summary: Mapping[str, Any], folder: File) -> dict[str, Any] | None:
    """What `trainers.seen.look` says of the detectors of `panels`, kept in the folder of the report. None if the study
    wants no pictures or has nothing to compare, and, with a warning, if images or weights cannot be read."""
    number = prepared.study.resources.pictures
    wanted = panels(board, summary) if number else []
    if not wanted:
        return None
    made = None
    with _warning():
        made = _made(prepared, wanted, number, folder)
    return made


@contextmanager
def _warning() -> Iterator[None]:
    """Whatever goes wrong is one line: all is trained and stored, and nothing may sound as if it were lost."""
    try:
        yield
        return
    except KeyboardInterrupt:
        reason = "interrupted"
    except Exception as error:
        reason = str(error) or type(error).__name__
    log.warning("the report has no pictures: %s", plain(f"{reason:.300}"))


def panels(board: Board, summary: Mapping[str, Any]) -> list[tuple[dict[str, str], Stage]]:
    """Whose detections stand side by side: the root teacher, and for each student that was distilled itself alone,
    taught by the teacher directly, and at the end of the best path; each as its title, its role and its student, with
    its stage of the study's first seed."""
    found: list[tuple[dict[str, str], Stage]] = []
    for answer in summary["answers"]:
        best, student = answer["best"], answer["student"]
        if best is None:
            continue
        taught = board.rows[best["keys"][0]].stage
        if not found:
            found.append(({"title": best["path"][0], "role": "teacher", "student": ""}, next(taught.lineage)))
        for role, outcome in (("alone", answer["baseline"]), ("direct", answer["direct"]), ("distilled", best)):
            if outcome is None or (role == "direct" and outcome["path"] == best["path"]):
                continue
            title = f"{student} alone" if role == "alone" else arrow(outcome["path"])
            stage = board.rows[outcome["keys"][0]].stage
            found.append(({"title": title, "role": role, "student": student}, stage))
    return found


def _made(
    prepared: Prepared, wanted: list[tuple[dict[str, str], Stage]], number: int, folder: File
) -> dict[str, Any] | None:
    results = [prepared.store.get(stage) for _, stage in wanted]
    found = [
        (panel | {"score": prepared.score(result)}, result)
        for (panel, _), result in zip(wanted, results, strict=True)
        if result is not None
    ]
    shown = [panel for panel, _ in found]
    pairs = _pairs(shown)
    if results[0] is None or not pairs:
        return None
    weights = [result.sha256 for _, result in found]
    mark = hashlib.sha256(canonical([FORMAT, number, shown, weights]).encode()).hexdigest()
    if kept := _kept(folder / KEPT, mark):
        return kept
    from trainers.seen import look  # torchvision takes a second to load, and what is kept needs none

    looked = look(
        prepared.store,
        prepared.inputs.dataset,
        [result for _, result in found],
        pairs,
        number=number,
        seconds=SECONDS,
    )
    return {"mark": mark, "panels": shown, **looked}


def _pairs(panels: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Of each student the distilled one, and itself alone; where that is not there, taught directly, or the teacher."""
    place = {(panel["student"], panel["role"]): number for number, panel in enumerate(panels)}
    made = []
    for (student, role), number in place.items():
        if role == "distilled":
            other = place.get((student, "alone"), place.get((student, "direct"), 0))
            made.append((number, other))
    return made


def _kept(file: File, mark: str) -> dict[str, Any] | None:
    """What was found before, if it was of these very weights."""
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return made if isinstance(made, dict) and made.get("mark") == mark else None
