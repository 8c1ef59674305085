"""A study file -> `Study`: frozen, complete and checked; or one `Invalid` with file, line, key and remedy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from orchestrator import strategies
from orchestrator.controls import Control, chosen
from orchestrator.document import Document, Where
from orchestrator.expectations import check_paths
from orchestrator.knobs import checked
from orchestrator.lattice import Entry, Lattice
from orchestrator.mistakes import found, unknown
from orchestrator.names import model_name, study_name
from orchestrator.overrides import applied
from orchestrator.resources import Placement, Resources
from orchestrator.sweep import Sweep, sweep
from orchestrator.yamlfile import parse, read, written
from trainers import backbones, detectors, distill, optim, schedules
from trainers import data as datasets
from trainers.augment import Crop, OneOf, Resize, misfit
from trainers.call import Call, Index, Invalid, Percent, Spec, Term
from trainers.published import Source
from trainers.spec import Best, Data, Guides, Model, Recipe, Weights


def _edges(edges: Any) -> Any:
    if edges == "any":
        return edges
    if not isinstance(edges, list | tuple):
        raise ValueError("write any, or a list of [teacher, student]")
    for edge in edges:
        if not isinstance(edge, list | tuple) or len(edge) != 2 or not all(isinstance(name, str) for name in edge):
            raise ValueError(f"{json.dumps(edge):.80} is not [teacher, student], two names of models")
    return tuple(map(tuple, edges))


def _losses(terms: tuple[Term, ...]) -> tuple[Term, ...]:
    if not terms:
        raise ValueError("name at least one distillation loss, as in [LD]")
    return terms


def _seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError("write at least one seed, each once, as in [0, 1, 2]")
    return seeds


class Listed(Spec):
    """A model as a study lists it. In a `Study` recipe and resources are whole, in YAML they hold what differs."""

    detector: Call
    backbone: Call
    weights: Source | None = None
    recipe: Recipe = Recipe()
    resources: Placement = Placement()

    @property
    def model(self) -> Model:
        """With fresh weights."""
        return Model(detector=self.detector, backbone=self.backbone)


class Study(Spec):
    """What to train, with what, and in which order. `file`, `text` and `sets` say where it comes from."""

    name: Annotated[str, AfterValidator(study_name)]
    data: Call
    models: dict[Annotated[str, AfterValidator(model_name)], Listed]  # strongest first
    edges: Annotated[Literal["any"] | tuple[tuple[str, str], ...], BeforeValidator(_edges)] = "any"
    students: tuple[str, ...] = ()  # whom paths lead to; empty: the last model
    recipe: Recipe = Recipe()
    distill: Annotated[tuple[Term, ...], AfterValidator(_losses)]
    search: Call = Call(name="exhaustive")
    sweep: dict[str, Any] | None = None  # as written, complete; `swept` is the value
    controls: tuple[Control, ...] | None = None  # what is trained beside it; None: what `chosen` says
    seeds: Annotated[tuple[Index, ...], AfterValidator(_seeds)] = (0,)
    resources: Resources = Resources()
    # What was published, by path, in per cent: {"r101 > r18": {AP: 36.5}}. It changes no stage.
    expected: dict[str, dict[str, Percent]] = Field(default_factory=dict)
    source: str = ""  # of what was published
    file: str = ""
    text: str = ""  # of the file
    sets: tuple[str, ...] = ()  # applied to it, in this order

    def lattice(
        self,
        data: Data,
        weights: Mapping[str, Weights] = MappingProxyType({}),
        masks: Mapping[str, str] = MappingProxyType({}),
        *,
        score: str = "",
    ) -> Lattice:
        """Who may teach whom, on this data. By name: `weights` of the models that have published ones, and the digest
        of the data's `masks` for those that learn from them. `score`: the figure by which epochs are selected.

        Raises `Invalid` at ("models",), ("edges",), ("edges", i), ("students",) or ("students", i).
        """
        entries = {
            name: Entry(
                one.model.model_copy(update={"weights": weights.get(name)}),
                one.recipe.selecting(score),
                masks=masks.get(name, ""),
            )
            for name, one in self.models.items()
        }
        edges = None if self.edges == "any" else self.edges
        return Lattice(entries, data, self.distill, edges=edges, seeds=self.seeds, students=self.students, score=score)

    @property
    def swept(self) -> Sweep | None:
        """What is swept, and how."""
        return None if self.sweep is None else sweep(self.sweep)

    def resolved(self) -> dict[str, Any]:
        """The study with every default written out: another study file, as JSON or YAML."""
        return self.model_dump(mode="json", exclude=ORIGIN)

    @property
    def yaml(self) -> str:
        """Its file with all `sets` in it; the text as it is where there are none."""
        if not self.sets:
            return self.text
        return written(applied(parse(self.text, self.file), self.sets).tree)

    def refusal(self, mistake: Invalid) -> Invalid:
        """A mistake that was found later, with file and line of its key."""
        return applied(parse(self.text, self.file), self.sets).refusal([mistake])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from orchestrator.shown import of_study  # it plans

        return of_study(self)


Kind = TypeVar("Kind", bound=Call)

ORIGIN = {"file", "text", "sets"}  # the fields that are not written in a study


def load(file: Path | str, sets: Sequence[str] = (), *, text: str | None = None) -> Study:
    """The study in a file, or of a text that is called so, after each of `sets` (`recipe.epochs=2`), calls complete.

    Raises `Invalid`: up to ten lines `demo.yaml:12: recipe.epochs: ...what is wrong, and what would do...`.
    """
    document = applied(read(Path(file)) if text is None else parse(text, str(file)), sets)
    tree = {"name": Path(file).stem, **document.tree}
    written = {key: value for key, value in tree.items() if key not in ORIGIN}
    mistakes = [unknown((key,), _known(())) for key in tree if key in ORIGIN]
    try:
        # As JSON: there pydantic is strict about numbers, words and booleans, and yet takes lists for tuples.
        study = Study.model_validate_json(json.dumps(written), strict=True)
    except ValidationError as errors:
        mistakes += found(errors, tree, _known)
    if mistakes:
        raise document.refusal(mistakes)
    study = study.model_copy(update={"file": str(file), "text": document.text, "sets": tuple(sets)})
    return _complete(study, document)


def _known(where: Where) -> Iterable[str]:
    """The keys that a study may have there."""
    match where:
        case ():
            return Study.model_fields.keys() - ORIGIN
        case ("resources",):
            return Resources.model_fields
        case ("models", _):
            return Listed.model_fields
        case ("models", _, "weights"):
            return Source.model_fields
        case ("models", _, "resources"):
            return Placement.model_fields
        case (*_, "guides"):
            return Guides.model_fields
        case (*_, "resize"):
            return Resize.model_fields
        case (*_, "crop"):
            return Crop.model_fields
        case (*_, "short"):
            return OneOf.model_fields
        case _:
            return Recipe.model_fields


def _complete(study: Study, document: Document) -> Study:
    """Every call with all its arguments, every model with its whole recipe, edges and search checked."""
    mistakes: list[Invalid] = []

    def call(written: Kind, package: ModuleType, *where: str | int) -> Kind:
        try:
            return written.complete(package)
        except Invalid as mistake:
            mistakes.append(mistake.under(*where))
            return written

    def recipe(written: Recipe, *where: str | int) -> Recipe:
        optimizer = call(written.optimizer, optim, *where, "optimizer")
        schedule = call(written.schedule, schedules, *where, "schedule")
        return written.model_copy(update={"optimizer": optimizer, "schedule": schedule})

    def listed(name: str, written: Listed) -> Listed:
        own = recipe(written.recipe, "models", name, "recipe")
        differs = {key: getattr(own, key) for key in written.recipe.model_fields_set}
        places = {key: getattr(written.resources, key) for key in written.resources.model_fields_set}
        return Listed(
            detector=call(written.detector, detectors, "models", name, "detector"),
            backbone=call(written.backbone, backbones, "models", name, "backbone"),
            weights=written.weights,
            recipe=base.model_copy(update=differs),
            resources=Placement(**{**placed, **places}),
        )

    base = recipe(study.recipe, "recipe")
    placed = {key: getattr(study.resources, key) for key in Placement.model_fields}
    complete = {
        "data": call(study.data, datasets, "data"),
        "models": {name: listed(name, written) for name, written in study.models.items()},
        "recipe": base,
        "distill": tuple(call(loss, distill, "distill", i) for i, loss in enumerate(study.distill)),
        "search": call(study.search, strategies, "search"),
    }
    written, study = study, study.model_copy(update=complete)
    if not mistakes:
        mistakes = _cuts(written, study)
    if not mistakes and study.sweep is not None:
        try:
            taught = {name: one.recipe for name, one in list(study.models.items())[1:]}
            whole = checked(sweep(study.sweep), taught, study.distill).model_dump()
            study = study.model_copy(update={"sweep": whole})
        except Invalid as mistake:
            mistakes = [mistake.under("sweep")]
    if mistakes := mistakes or _misfits(study):
        raise document.refusal(mistakes)
    lattice = _bare(study)
    return study.model_copy(update={"controls": chosen(study.controls, lattice), "students": lattice.students})


def _bare(study: Study) -> Lattice:
    """Who may teach whom: edges do not depend on the data."""
    return study.lattice(Data(fingerprint="", classes=()))


def _cuts(written: Study, study: Study) -> list[Invalid]:
    """Where a model's whole recipe cuts images that it does not resize, or names the figure by which its epochs are
    selected, each at the key that says so."""
    mistakes: dict[Where, Invalid] = {}
    for name, one in study.models.items():
        if isinstance(one.recipe.select, Best):
            models = ("models", name) if "select" in written.models[name].recipe.model_fields_set else ()
            where = (*models, "recipe", "select")
            mistakes[where] = Invalid("write last or best; the best is that by the data's metric and its score", where)
        if wrong := misfit(one.recipe.resize, one.recipe.crop):
            own = sorted(written.models[name].recipe.model_fields_set & {"crop", "resize"})
            where = ("models", name, "recipe", own[0]) if own else ("recipe", "crop")
            mistakes[where] = Invalid(wrong, where)
    return list(mistakes.values())


def _misfits(study: Study) -> list[Invalid]:
    """What is wrong between parts that are each right: edges and models, arguments of the search, expected paths."""
    try:
        lattice = _bare(study)
    except Invalid as mistake:
        return [mistake]
    try:
        study.search.of(strategies, lattice, {})
    except Invalid as mistake:
        return [mistake.under("search")]
    try:
        chosen(study.controls, lattice)
    except Invalid as mistake:
        return [mistake.under("controls")]
    try:
        check_paths(study.expected, lattice, study.swept.listed(study.distill) if study.swept else ())
    except Invalid as mistake:
        return [mistake.under("expected")]
    return []
