"""What is to be trained again: a registered model, or a stage of a study, with all that is known of its training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path as File
from typing import NamedTuple

from orchestrator.board import Row
from orchestrator.differences import differences, plain
from orchestrator.lattice import Path
from orchestrator.prepared import prepare
from orchestrator.study import Study, load
from orchestrator.why import lines, named
from trainers.call import Invalid
from trainers.spec import Stage

STUDY = "remembered.yaml"


class Original(NamedTuple):
    """A training that has ended."""

    name: str
    study: Study
    path: Path
    seed: int
    stage: Stage
    score: float
    sha256: str  # of its weights
    device: str
    versions: dict[str, str]  # of packages, as far as they are known
    scores: dict[int, float]  # of the same path, by seed


def of_model(name: str, *, tracking: str, sets: Sequence[str] = ()) -> Original:
    """A registered model, from what MLflow remembers of its study. Raises `Invalid`."""
    from orchestrator import registry, remembered
    from orchestrator.connection import connect, talking

    if not registry.ADDRESS.fullmatch(name):
        raise Invalid(f"{name} is no model: write models:/NAME@best or models:/NAME/VERSION, or a study and a stage")
    client = connect(tracking)
    with talking(tracking):
        version = registry.version_at(client, tracking, name)
        run = client.get_run(version.run_id)
        experiment = client.get_experiment(run.info.experiment_id).name
    kept = remembered.read(tracking, [experiment])[0]
    row = next((row for row in kept.rows if row.sha256 == version.tags.get("sha256")), None)
    if row is None:
        raise Invalid(f"the study of {experiment} as it was run last does not want the stage of {name} any more")
    with tempfile.TemporaryDirectory() as folder:
        file = File(folder) / STUDY
        file.write_text(kept.text)
        study = load(file, sets)
    versions = registry.versions(version)
    return _original(name, study, row, kept.rows)._replace(versions=versions)


def of_study(study: Study, name: str, seed: int | None) -> Original:
    """A stage by its path or the beginning of its key, from what the study's store has. Raises `Invalid`."""
    prepared = prepare(study).at_a_glance()
    frontier = prepared.frontier(prepared.stored)
    rows = list(prepared.board(frontier).rows.values())
    chosen = [row for row in named(name, rows, frontier) if row.state == "reused" and seed in (None, row.seed)]
    if not chosen:
        raise Invalid(f"the store {prepared.store.root} has no finished stage {name} to compare with")
    return _original(str(chosen[0].path), study, chosen[0], rows)


def _original(name: str, study: Study, row: Row, rows: Sequence[Row]) -> Original:
    path = row.path.training
    like = [one for one in rows if one.path.training == path and one.score is not None and one.weights]
    scores = {one.seed: one.score for one in like if one.score is not None}
    assert row.score is not None, "it is finished"
    return Original(name, study, path, row.seed, row.stage, row.score, row.sha256, row.device, {}, scores)


def same(original: Original, stage: Stage) -> None:
    """Raise `Invalid` with what differs if what would be trained is another stage."""
    if stage.key != original.stage.key:
        found = lines(differences(plain(stage), plain(original.stage)))
        listed = "".join(f"\n  {line}" for line in found) or "\n  another version of the program trained it"
        raise Invalid(
            f"{original.name} is the stage {original.stage.key}, and what is here is {stage.key}:{listed}\n"
            "Bring the data back, or say by --set what was changed of the study"
        )
