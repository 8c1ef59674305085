"""What a study is refused for before anything starts, once its data and the shapes of its models are known."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestrator.expectations import check_figures
from orchestrator.facts import entity
from orchestrator.knobs import variants
from orchestrator.lattice import Path
from orchestrator.settings import applied, text
from orchestrator.strategies.waves import calls
from trainers import build
from trainers.call import Invalid, Term
from trainers.spec import Recipe

BATCH = ("recipe", "batch")
TOO_MANY = 100_000  # paths that are listed one by one
ENUMERATING = ("exhaustive", "successive_halving", "probe")

if TYPE_CHECKING:
    from orchestrator.prepared import Prepared


def check(prepared: Prepared) -> None:
    """Raise `Invalid` at the key for what cannot be trained as a study has it. See `search` for what else it does."""
    pairs(prepared)
    workers(prepared)
    speed(prepared)
    masks(prepared)
    expected(prepared)
    search(prepared)
    students(prepared)


def pairs(prepared: Prepared) -> None:
    """Build every loss for every student and each that may guide it. Raises `Invalid` that names the pair."""
    taught(prepared, prepared.study.distill, ("distill",))
    batch = prepared.sweep.knobs.get(".".join(BATCH)) if prepared.sweep else None
    shares = max(one.resources.workers for one in prepared.study.models.values())
    if batch and batch.kind != "choice" and shares > 1:
        message = f"not every batch of a range can be shared by {shares} workers; list some that can"
        raise Invalid(message, ("sweep", ".".join(BATCH)))
    for one in variants(prepared.sweep, prepared.study.distill) if prepared.sweep else ():
        for name in prepared.lattice.names[1:]:
            recipe, losses = applied(one, prepared.lattice.models[name].recipe, prepared.study.distill)
            try:
                fits(prepared, name, recipe)
                taught(prepared, losses, (), recipe={name: recipe})
            except Invalid as error:
                raise Invalid(f"with {text(one)}: {error}", ("sweep",)) from None


def taught(
    prepared: Prepared,
    losses: tuple[Term, ...],
    where: tuple[str, ...],
    *,
    recipe: Mapping[str, Recipe] = MappingProxyType({}),
) -> None:
    """Check these losses for all models, or for those whose recipes are given."""
    images = len(prepared.inputs.dataset.train)
    for name in recipe or prepared.lattice.names[1:]:
        try:
            build.check_terms(losses, recipe.get(name, prepared.lattice.models[name].recipe), images=images)
        except Invalid as error:
            raise Invalid(f"{name}: {error}", (*where, *error.where)) from None
    for teacher, student in prepared.lattice.pairs():
        pair = (tuple(term.canonical for term in losses), teacher, student)
        if pair in prepared.checked or (recipe and student not in recipe):
            continue
        prepared.checked.add(pair)
        try:
            build.check_pair(losses, prepared.shapes[student], prepared.shapes[teacher])
        except Invalid as error:
            message = f"{teacher} cannot teach {student}: {error}"
            raise Invalid(message, (*where, *error.where)) from None


def fits(prepared: Prepared, name: str, recipe: Recipe) -> None:
    """Raise `Invalid` for a recipe that a model cannot train with here."""
    build.check_recipe(prepared.shapes[name], recipe)
    batch, placed = recipe.batch, prepared.study.models[name].resources
    for shares in (placed.workers, placed.fewest):
        if batch % shares:
            raise Invalid(f"a batch of {batch} cannot be shared by {shares} workers", BATCH)


def workers(prepared: Prepared) -> None:
    """Refuse fewest workers that are more than all. Raises `Invalid` at (..., "resources", "min_workers")."""
    common = prepared.study.resources
    for name, model in prepared.study.models.items():
        most, fewest = model.resources.workers, model.resources.min_workers
        if fewest is not None and fewest > most:
            own = () if (most, fewest) == (common.workers, common.min_workers) else ("models", name)
            message = f"a stage of {name} has {most} worker(s), and cannot have at least {fewest}"
            raise Invalid(f"{message}; write 1 to {most}, or more workers", (*own, "resources", "min_workers"))


def speed(prepared: Prepared) -> None:
    """Refuse what the machine that a model trains on cannot do. Raises `Invalid` at (..., "resources", name)."""
    common = prepared.study.resources
    for name, model in prepared.study.models.items():
        placed = model.resources
        wrong = {}
        if placed.channels_last and not placed.gpus:
            wrong["channels_last"] = "this is for GPUs, and a stage has none; leave it out, or write false"
        if placed.compile and placed.sync_batch_norm:
            wrong["compile"] = "norms that ask other workers cannot be compiled; leave out sync_batch_norm, or this"
        for key, message in wrong.items():
            own = () if getattr(common, key) == getattr(placed, key) else ("models", name)
            raise Invalid(message, (*own, "resources", key))


def doubts(prepared: Prepared, name: str) -> list[str]:
    """Why a model learns something else with another number of workers, and what helps, for people."""
    found, shape = [], prepared.shapes[name]
    shared = prepared.study.models[name].resources.sync_batch_norm
    if not shared and build.learns_statistics(shape, prepared.lattice.models[name].recipe):
        found.append(
            "its batch norms learn from what a worker has, so it is another training with another number of them: "
            "write fixed_norm: true into its recipe, or sync_batch_norm: true into its resources"
        )
    if build.draws(shape):
        found.append(
            "what it leaves out at random each worker draws for itself, so another number of them is as another seed: "
            "write drop_path: 0 into its backbone"
        )
    guides = [prepared.shapes[guide] for guide, student in prepared.lattice.pairs() if student == name]
    recipe, losses = prepared.lattice.models[name].recipe, prepared.study.distill
    swept = variants(prepared.sweep, losses) if prepared.sweep else ()
    every = [losses, *(applied(one, recipe, losses)[1] for one in swept)]
    found += [
        f"{what} are of each worker's own images, so another number of them is another training"
        for what in dict.fromkeys(what for terms in every for what in build.apart(terms, shape, guides))
    ]
    return found


def masks(prepared: Prepared) -> None:
    """Refuse a model that learns masks when the data has none. Raises `Invalid` at ("models", name)."""
    for name, shape in prepared.shapes.items():
        trained = name != prepared.lattice.root or not prepared.lattice.stage(Path((name,)), 0).published
        if trained and getattr(shape, "needs_masks", False) and not prepared.inputs.dataset.train.has_masks:
            detector = prepared.study.models[name].detector.name
            message = f"{detector} learns masks, and not every object of {prepared.study.data.name} has one"
            raise Invalid(f"{message}; take FasterRCNN, or annotate them", ("models", name, "detector"))


def students(prepared: Prepared) -> None:
    """Refuse students that would have one name in MLflow's registry. Raises `Invalid` at ("students", i)."""
    taken: dict[str, str] = {}
    for i, name in enumerate(prepared.study.students):
        registered = entity(name)
        if registered in taken:
            message = f"{taken[registered]} and {name} would both be {registered} in MLflow's registry; rename one"
            raise Invalid(message, ("students", i))
        taken[registered] = name


def expected(prepared: Prepared) -> None:
    """Refuse a published figure that the metric cannot say of this data; unread, nobody knows which it can.

    Raises `Invalid` at ("expected", path, figure).
    """
    if prepared.inputs.provisional or not prepared.study.expected:
        return
    try:
        check_figures(prepared.study.expected, prepared.metric.figures(prepared.inputs.dataset.val))
    except Invalid as error:
        raise error.under("expected") from None


def search(prepared: Prepared) -> None:
    """Refuse a search for which there are too many paths, hours that nobody knows, or a limit that cannot be kept.

    Not only a look: whoever is limited in hours can be asked only by a lattice that counts in them, and from here on it
    does. Raises `Invalid` at ("search",) or ("search", name).
    """
    paths, _ = prepared.lattice.count()
    for call in calls(prepared.study.search):
        if paths > TOO_MANY and call.name in ENUMERATING:
            raise Invalid(
                f"{call.name} would list {paths} paths, more than {TOO_MANY}; leave edges out, or search with "
                "best_predecessor or greedy",
                ("search",),
            )
        if call.args.get("gpu_hours") is not None:
            if prepared.inputs.provisional:
                message = "how many GPU hours a stage takes is known only with the data: plan without --no-data"
                raise Invalid(f"{message}, or give a limit in stages", ("search",))
            prepared.know_hours()
        if prepared.sweep and call.name == "budget" and call is not prepared.study.search:
            message = "with a sweep a budget counts settings, which a search that it is part of does not know"
            raise Invalid(f"{message}; let budget come first", ("search",))
    try:
        prepared.searched({})
    except Invalid as mistake:
        raise mistake.under("search") from None
