"""What studies need of a store, and what MLflow's registered models need."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as File

from orchestrator.prepared import prepare
from orchestrator.study import Study, load
from orchestrator.yamlfile import BYTES, YAML, read
from trainers.call import Invalid
from trainers.staging import named, scratch

WHAT = {"data", "models", "distill"}  # the keys by which a study is told from other files
ALIKE = re.compile(r"(?i)\.ya?ml\W|\.(json|txt)$")  # names under which people put a study aside
WORDS = re.compile(rb"\b(data|models|distill)[\"']?\s*:")


@dataclass
class Needed:
    """By key, by SHA-256 and by name: who needs a stage, published weights, a copy of data."""

    stages: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    scratches: set[File] = field(default_factory=set)  # where copies of data may lie


def studies_in(folder: File, say: Callable[[str], object] = bool) -> list[File]:
    """The study files of a folder and those below it, links followed: YAML, and files without a suffix.

    What only looks like a study is told to `say`. Raises `Invalid` for YAML that cannot be read: it may be one.
    """
    if not folder.is_dir():
        raise Invalid(f"there is no folder {folder}", ("--all-studies-in",))
    found = []
    for file in sorted(_files(folder)):
        if file.suffix.lower() in YAML:
            if _is_study(file):
                found.append(file)
        elif (file.suffix == "" or ALIKE.search(file.name)) and _alike(file):
            try:
                study = _is_study(file)
            except Invalid as error:
                say(f"this looks like a study and is not counted: {error}")
                continue
            if study and file.suffix == "":
                found.append(file)
            elif study:
                say(f"{file} looks like a study and is not counted, as its name does not end in .yaml; name it, too")
    return found


def _files(folder: File) -> Iterator[File]:
    """All files of a folder and those below it, each folder once, however many links lead to it."""

    def refuse(error: OSError) -> None:
        raise Invalid(f"{error.filename} cannot be read: {error.strerror}; there may be studies", ("--all-studies-in",))

    seen = {os.path.realpath(folder)}
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        inside = {os.path.realpath(os.path.join(here, name)): name for name in sorted(folders) if name != ".git"}
        folders[:] = [name for place, name in inside.items() if place not in seen]
        seen |= inside.keys()
        yield from (File(here) / name for name in names)


def _is_study(file: File) -> bool:
    tree = read(file).tree
    return isinstance(tree, dict) and tree.keys() >= WHAT


def _alike(file: File) -> bool:
    """Whether a file that is not called YAML has all words of a study, each before a colon."""
    if not file.is_file() or file.stat().st_size > BYTES:
        return False
    try:
        content = file.read_bytes()
    except OSError:
        return True  # reading it will say why it is not counted
    return {word.decode() for word in WORDS.findall(content)} >= WHAT


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


def by_models(uris: Iterable[str], asked: str | None = None, say: Callable[[str], object] = bool) -> dict[str, str]:
    """The keys of the stages of all registered models at these addresses of MLflow, each with its model's name.

    A database that is not there has none, which `say` is told. Raises `Invalid` if one cannot be asked, or if it is
    not there though somebody `asked` for it.
    """
    from orchestrator.connection import connect, every, sqlite_file, talking  # importing MLflow takes seconds

    found: dict[str, str] = {}
    for uri in dict.fromkeys([*([asked] if asked else ()), *uris]):
        if uri.startswith("sqlite") and not (file := sqlite_file(uri)).exists():
            message = f"there is no MLflow database {file.absolute()}"
            if uri == asked:
                raise Invalid(f"{message}; write its whole path, as in sqlite:////data/mlflow.db", ("--tracking",))
            say(f"{message}, so no registered model keeps its stages; if there is one elsewhere, name it: --tracking")
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
