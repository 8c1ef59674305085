"""What studies need of a store, and what MLflow's registered models need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as File

from orchestrator.prepared import prepare
from orchestrator.study import Study, load
from orchestrator.yamlfile import read
from trainers.call import Invalid
from trainers.staging import named, scratch

WHAT = {"data", "models", "distill"}  # the keys by which a study is told from other files


@dataclass
class Needed:
    """By key, by SHA-256 and by name: who needs a stage, published weights, a copy of data."""

    stages: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    scratches: set[File] = field(default_factory=set)  # where copies of data may lie


def studies_in(folder: File) -> list[File]:
    """The study files of a folder and those below it. Raises `Invalid` for YAML that cannot be read: it may be one."""
    if not folder.is_dir():
        raise Invalid(f"there is no folder {folder}", ("--all-studies-in",))
    found = []
    for file in sorted(one for one in folder.rglob("*.y*ml") if one.suffix in (".yaml", ".yml")):
        tree = read(file).tree
        if isinstance(tree, dict) and tree.keys() >= WHAT:
            found.append(file)
    return found


def by_studies(studies: Iterable[Study]) -> Needed:
    """All that these studies want by what the store has now, and all that they could come to want of whole trainings.

    Raises `Invalid` for a study of which that cannot be told, as its data are not there.
    """
    needed = Needed()
    for study in studies:
        try:
            prepared = prepare(study).at_a_glance()
            prepared.certain()
            wanted = [node.stage for node in prepared.frontier(prepared.stored).wanted()]
        except Invalid as error:
            raise Invalid(f"what {study.file} needs is not known, so nothing is removed:\n{error}") from error
        lattice = prepared.lattice
        wanted += [lattice.stage(path, seed) for path in lattice.paths() for seed in lattice.seeds]
        for stage in wanted:
            needed.stages.update(dict.fromkeys((one.key for one in stage.lineage), study.name))
        needed.weights.update(dict.fromkeys((one.sha256 for one in prepared.inputs.weights.values()), study.name))
        needed.copies[named(study.data, prepared.inputs.dataset.fingerprint)] = study.name
        if study.resources.stage_data:
            needed.scratches.add(scratch(study.resources.stage_data))
    return needed


def by_models(uris: Iterable[str]) -> dict[str, str]:
    """The keys of the stages of all registered models at these addresses of MLflow, each with its model's name.

    Raises `Invalid` if one cannot be asked; a database that is not there has none.
    """
    from orchestrator.connection import connect, every, sqlite_file, talking  # importing MLflow takes seconds

    found: dict[str, str] = {}
    for uri in dict.fromkeys(uris):
        if uri.startswith("sqlite") and not sqlite_file(uri).exists():
            continue
        client = connect(uri)
        with talking(uri):
            for version in every(partial(client.search_model_versions, "")):
                if key := version.tags.get("key"):
                    found[key] = f"models:/{version.name}/{version.version}"
    return found


def loaded(files: Sequence[File], store: str | None) -> list[Study]:
    """These studies, on one store. Raises `Invalid` where they name several and nobody says which is meant."""
    import json

    sets = (f"resources.store={json.dumps(store)}",) if store else ()
    studies = [load(file, sets) for file in files]
    stores = {study.resources.store for study in studies}
    if len(stores) > 1:
        raise Invalid(f"these studies have several stores, {', '.join(sorted(stores))}; name one", ("--store",))
    return studies
