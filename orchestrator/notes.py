"""What MLflow keeps of a study and its stages so that a report can be made from it alone: texts, in tags.

Tags and no artifacts: a database can be asked where its folder of artifacts cannot be reached, or was left behind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.board import Row
from orchestrator.facts import metric
from orchestrator.lattice import Entry, Lattice, Path
from orchestrator.masking import LONGEST, without_secrets
from orchestrator.sweep import Sweep
from trainers.call import Term, canonical
from trainers.spec import Data, Model, Recipe, Stage

DESCRIPTION, TEXT, UNBEGUN = "description", "study.yaml", "unbegun"  # of a study
SPEC, PATHS, PLACE, FIGURES, VERSION = "spec", "paths", "place", "figures", "study_version"  # of a stage


def pieces(name: str, text: str, there: Mapping[str, str]) -> dict[str, str]:
    """A text of any length as tags `name`, `name.2`, `name.3`, ..., none longer than MLflow takes.

    `there`: the tags so far; those that a longer text left over become empty.
    """
    count = max(1, -(-len(text) // LONGEST))
    found = {_piece(name, i): text[i * LONGEST : (i + 1) * LONGEST] for i in range(count)}
    while _piece(name, len(found)) in there:
        found[_piece(name, len(found))] = ""
    return found


def joined(name: str, tags: Mapping[str, str]) -> str:
    """The text again; empty if it is not there."""
    found: list[str] = []
    while part := tags.get(_piece(name, len(found)), ""):
        found.append(part)
    return "".join(found)


def _piece(name: str, number: int) -> str:
    return f"{name}.{number + 1}" if number else name


def description(
    lattice: Lattice,
    *,
    metric: str,
    search: str,
    parameters: Mapping[str, int],
    sweep: Sweep | None = None,
    controls: tuple[str, ...] = (),
    judging: tuple[int, ...] = (),
    expected: Mapping[str, Any] | None = None,
    source: str = "",
) -> str:
    """A study as JSON, complete: who may teach whom, with which recipe and losses, and what is asked of them.
    `judging`: the seeds by which settings are compared; empty for all."""
    models = {
        name: {
            "model": entry.model.model_dump(mode="json"),
            "recipe": entry.recipe.model_dump(mode="json"),
            "masks": entry.masks,
            "parameters": parameters.get(name),
        }
        for name, entry in lattice.models.items()
    }
    # In the order of the study, by which models are strong or weak and knobs stand side by side: nothing is sorted.
    return json.dumps(
        {
            "metric": metric,
            "search": search,
            "models": models,
            "data": lattice.data.model_dump(mode="json"),
            "distill": [term.model_dump(mode="json") for term in lattice.distill],
            "edges": sorted(lattice.edges),
            "students": list(lattice.students),
            "seeds": list(lattice.seeds),
            "sweep": sweep.model_dump(mode="json") if sweep else None,
            "controls": list(controls),  # which stages a study wants depends on them, and so does its `version`
            "judging": list(judging),
            "expected": {path: dict(figures) for path, figures in (expected or {}).items()},
            "source": without_secrets(source),
        },
        separators=(",", ":"),
    )


def lattice_of(described: Mapping[str, Any]) -> Lattice:
    """The lattice of a description. Raises `ValueError` or `KeyError` if this version cannot read it."""
    entries = {
        name: Entry(
            Model.model_validate_json(json.dumps(one["model"])),
            Recipe.model_validate_json(json.dumps(one["recipe"])),
            masks=one["masks"],
        )
        for name, one in described["models"].items()
    }
    return Lattice(
        entries,
        Data.model_validate_json(json.dumps(described["data"])),
        [Term.model_validate_json(json.dumps(term)) for term in described["distill"]],
        edges=[(teacher, student) for teacher, student in described["edges"]],
        seeds=described["seeds"],
        students=described["students"],
    )


def version(text: str) -> str:
    """16 hex digits, equal for equal descriptions; empty for none."""
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def of_stage(row: Row, study: str, there: Mapping[str, str]) -> dict[str, str]:
    """The tags of a stage that a study of this version wants, beside those by which it is searched."""
    names = sorted({name for entry in row.history for name in entry} | {n for n in row.metrics if metric(n) != n})
    return {
        **pieces(SPEC, spec(row.stage), there),
        **pieces(PATHS, _places(row), there),
        **pieces(FIGURES, json.dumps(names), there),
        PLACE: str(row.place),
        VERSION: study,
    }


def _places(row: Row) -> str:
    return json.dumps([[list(path.models), path.budget, path.settings] for path in row.paths], separators=(",", ":"))


def unbegun(rows: Iterable[Row]) -> str:
    """The stages that wait or are lost: they have no run."""
    return json.dumps(
        [
            [_places(row), row.seed, row.role, row.place, row.state, row.reason]
            for row in rows
            if row.state in ("waiting", "lost")
        ],
        separators=(",", ":"),
    )


def rows_of(text: str, lattice: Lattice) -> list[Row]:
    """Them again, as far as this lattice has their paths."""
    found = []
    for places, seed, role, place, state, reason in json.loads(text or "[]"):
        path, *others = paths_of(places)
        try:
            stage = lattice.stage(path, seed)
        except (KeyError, ValueError):
            continue
        found.append(Row(stage, path, seed, role, state=state, reason=reason, others=others, place=place))
    return found


def spec(stage: Stage) -> str:
    """All that a stage says but its teacher, which is there by its key."""
    return canonical(stage.model_dump(mode="json", exclude={"teacher"}))


def stage_of(text: str, teacher: Stage | None) -> Stage:
    """The stage again. Raises `ValueError` if this version has no such stage."""
    own = json.loads(text) | {"teacher": teacher.model_dump(mode="json") if teacher else None}
    return Stage.model_validate_json(canonical(own))


def paths_of(text: str) -> list[Path]:
    """The paths that want a stage."""
    return [
        Path(tuple(models), budget, tuple(tuple((knob, value) for knob, value in setting) for setting in settings))
        for models, budget, settings in json.loads(text)
    ]
