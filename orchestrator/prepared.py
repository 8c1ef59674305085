"""A study checked against its data and down to the shapes, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from orchestrator import strategies
from orchestrator.board import Board, Row
from orchestrator.costs import identity, relative
from orchestrator.expectations import check_figures
from orchestrator.frontier import Frontier
from orchestrator.inputs import Inputs, read, unread
from orchestrator.knobs import variants
from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.settings import applied, text
from orchestrator.strategies.waves import PAUSING, UNSWEPT, calls
from orchestrator.study import Study
from orchestrator.sweeping import Sweeping
from trainers import build
from trainers.call import Invalid, Term
from trainers.outputs import Network
from trainers.spec import Recipe, Stage
from trainers.store import Result, Store

BATCH = ("recipe", "batch")
TOO_MANY = 100_000  # paths that are listed one by one
ENUMERATING = ("exhaustive", "successive_halving", "probe")


def prepare(study: Study, *, provisional: bool = False) -> Prepared:
    """Check a study against its data, down to the shapes. Raises `Invalid` with file and line.

    provisional: without reading its data, its published weights or the store.
    """
    try:
        store = Store(study.resources.store)
        return Prepared(study, store, unread(study) if provisional else read(study, store))
    except Invalid as mistake:
        raise study.refusal(mistake) from mistake


class Prepared:
    """A study that was checked down to the shapes: its lattice, the sizes of its models, and the store."""

    def __init__(self, study: Study, store: Store, inputs: Inputs) -> None:
        self.study, self.store, self.inputs = study, store, inputs
        self.contents = inputs.contents
        self.metric = build.metric(inputs.dataset)
        self.score_name = inputs.score
        self.sweep = study.swept
        self.lattice: Lattice = study.lattice(self.contents, inputs.weights, inputs.masks)
        self.shapes = self._shapes()
        self._checked: set[tuple[tuple[str, ...], str, str]] = set()
        self.sizes = self._sizes()
        flops = {identity(entry.model): self.sizes[name].flops for name, entry in self.lattice.models.items()}
        self.lattice.cost = relative(flops)
        self._check_pairs()
        self._check_masks()
        self._check_expected()
        self._check_search()
        self.results: dict[str, Result] = {}

    def keep(self) -> None:
        """Put the published weights into the store. Raises `Invalid` if it is full."""
        self.inputs.keep(self.store)

    def _shapes(self) -> dict[str, Network]:
        """Build every model without numbers. Raises `Invalid` at ("models", name)."""
        shapes = {}
        for name, entry in self.lattice.models.items():
            try:
                shapes[name] = build.shape(entry.model, len(self.contents.classes))
            except Invalid as error:
                raise error.under("models", name) from None
            if entry.model.weights is not None:
                try:
                    self.inputs.fit(entry.model.weights, shapes[name])
                except Invalid as error:
                    raise error.under("models", name, "weights") from None
        return shapes

    def _sizes(self) -> dict[str, build.Size]:
        """Send an image through every model, and check its recipe. Raises `Invalid` at ("models", name)."""
        sizes = {}
        for name, entry in self.lattice.models.items():
            try:
                image = build.image_size(self.inputs.dataset, entry.recipe)
                sizes[name] = build.size(self.shapes[name], image)
                self._check_recipe(name, entry.recipe)
            except Invalid as error:
                common = error.where == BATCH and entry.recipe.batch == self.study.recipe.batch
                raise error.under(*(() if common else ("models", name))) from None
        return sizes

    def _check_pairs(self) -> None:
        """Build every loss for every student and each that may guide it. Raises `Invalid` that names the pair."""
        self._check_losses(self.study.distill, ("distill",))
        for one in variants(self.sweep, self.study.distill) if self.sweep else ():
            for name in self.lattice.names[1:]:
                recipe, losses = applied(one, self.lattice.models[name].recipe, self.study.distill)
                try:
                    self._check_recipe(name, recipe)
                    self._check_losses(losses, (), recipe={name: recipe})
                except Invalid as error:
                    raise Invalid(f"with {text(one)}: {error}", ("sweep",)) from None

    def _check_losses(
        self, losses: tuple[Term, ...], where: tuple[str, ...], *, recipe: Mapping[str, Recipe] = MappingProxyType({})
    ) -> None:
        """Check these losses for all models, or for those whose recipes are given."""
        images = len(self.inputs.dataset.train)
        for name in recipe or self.lattice.names[1:]:
            try:
                build.check_terms(losses, recipe.get(name, self.lattice.models[name].recipe), images=images)
            except Invalid as error:
                raise Invalid(f"{name}: {error}", (*where, *error.where)) from None
        for teacher, student in self.lattice.pairs():
            pair = (tuple(term.canonical for term in losses), teacher, student)
            if pair in self._checked or (recipe and student not in recipe):
                continue
            self._checked.add(pair)
            try:
                build.check_pair(losses, self.shapes[student], self.shapes[teacher])
            except Invalid as error:
                message = f"{teacher} cannot teach {student}: {error}"
                raise Invalid(message, (*where, *error.where)) from None

    def _check_recipe(self, name: str, recipe: Recipe) -> None:
        """Raise `Invalid` for a recipe that a model cannot train with here."""
        build.check_recipe(self.shapes[name], recipe)
        batch, shares = recipe.batch, self.study.resources.workers
        if batch % shares:
            raise Invalid(f"a batch of {batch} cannot be shared by {shares} workers", BATCH)

    def _check_masks(self) -> None:
        """Refuse a model that learns masks when the data has none. Raises `Invalid` at ("models", name)."""
        for name, shape in self.shapes.items():
            trained = name != self.lattice.root or not self.lattice.stage(Path((name,)), 0).published
            if trained and getattr(shape, "needs_masks", False) and not self.inputs.dataset.train.has_masks:
                detector = self.study.models[name].detector.name
                message = f"{detector} learns masks, and not every object of {self.study.data.name} has one"
                raise Invalid(f"{message}; take FasterRCNN, or annotate them", ("models", name, "detector"))

    def _check_expected(self) -> None:
        """Refuse a published figure that the metric cannot say of this data; unread, nobody knows which it can.

        Raises `Invalid` at ("expected", path, figure).
        """
        if self.inputs.provisional or not self.study.expected:
            return
        try:
            check_figures(self.study.expected, self.metric.figures(self.inputs.dataset.val))
        except Invalid as error:
            raise error.under("expected") from None

    def frontier(
        self,
        done: Callable[[Stage], float | None],
        *,
        paused: Callable[[Stage, int], float | None] | None = None,
    ) -> Frontier:
        """What the study wants. The student alone comes with it, as the yardstick."""
        call = self.study.search

        def strategy(lattice: Lattice, scores: Scores) -> Iterable[Path]:
            found: Iterable[Path] = call.of(strategies, lattice, scores)
            return found

        return Frontier(
            self.lattice,
            Sweeping(strategy, self.sweep, self.lattice) if self.sweep else strategy,
            seeds=self.study.seeds,
            done=done,
            paused=paused or self.paused,
            controls=lambda lattice, scores: (Path((lattice.student,)),),
            cost=self.lattice.cost,
        )

    def _check_search(self) -> None:
        """Refuse a search for which there are too many paths, hours that nobody knows, or a sweep that it cannot have.

        Raises `Invalid` at ("search",) or ("search", name).
        """
        paths, _ = self.lattice.count()
        for call in calls(self.study.search):
            if paths > TOO_MANY and call.name in ENUMERATING:
                raise Invalid(
                    f"{call.name} would list {paths} paths, more than {TOO_MANY}; leave edges out, or search with "
                    "best_predecessor or greedy",
                    ("search",),
                )
            if call.args.get("gpu_hours") is not None and not self.lattice.in_hours:
                raise Invalid("how many GPU hours a stage takes is not known yet; give a limit in stages", ("search",))
            if self.sweep and call.name in UNSWEPT:
                raise Invalid(f"{call.name} cannot be had with a sweep: {UNSWEPT[call.name]}", ("search",))
        try:
            self.study.search.of(strategies, self.lattice, {})
        except Invalid as mistake:
            raise mistake.under("search") from None

    @property
    def pausing(self) -> bool:
        """Whether trainings may pause and never go on."""
        return bool(self.sweep and self.sweep.stop) or any(call.name in PAUSING for call in calls(self.study.search))

    def stored(self, stage: Stage, *, whole: bool = False) -> float | None:
        """The score of a stage that the store has; `whole`: after reading every byte of its weights."""
        if self.inputs.provisional:
            return None
        if whole and not self.store.check(stage):
            return None
        result = self.store.get(stage)
        if result is None:
            return None
        if whole:
            self.store.drop_state(stage.key)  # left by a process that was killed between the two
        self.results[stage.key] = result
        return self.score(result)

    def paused(self, stage: Stage, epoch: int) -> float | None:
        """What a stage had after an epoch, or when it was measured last before it, or first after it; None if it is
        not trained so far."""
        result = self.results.get(stage.key)
        history = result.history if result else () if self.inputs.provisional else self.store.paused(stage.key)
        if result is None and len(history) < epoch:
            return None
        measured = {int(e["epoch"]): e[name] for e in history if (name := f"val/{self.score_name}") in e}
        before = [one for one in measured if one <= epoch]
        if measured:
            return measured[max(before)] if before else measured[min(measured)]
        return self.score(result) if result else None

    def score(self, result: Result) -> float:
        """What this study ranks a result by; it may have been stored when another figure was the score."""
        return result.figure(self.score_name)

    def board(self, frontier: Frontier) -> Board:
        """A record of all that is wanted, finished stages filled in from the store."""
        board = Board(self.study.name)
        self.extend(board, frontier)
        return board

    def extend(self, board: Board, frontier: Frontier) -> list[Row]:
        """Add the stages that have become wanted; -> their rows."""
        new = []
        for node in frontier.wanted():
            key = node.stage.key
            if key in board.rows:
                continue
            row = Row(node.stage, node.path.training, node.seed, self.lattice.role(node.path))
            if key in self.results:
                self.fill(row, self.results[key], "reused")
            elif self.pausing and (history := self.store.paused(key)):
                row.state, row.history, row.seconds = "paused", list(history), history[-1]["seconds"]
                row.score = self.paused(node.stage, len(history))
            board.rows[key] = row
            new.append(row)
        return new

    def given_up(self, board: Board, frontier: Frontier) -> list[Row]:
        """Mark the stages that paused and are not wanted any further; -> their rows. In the end: until then any of them
        may be wanted again."""
        if not frontier.over:
            return []
        rows = [row for row in board.rows.values() if row.state == "paused" and not frontier.wants(row.key)]
        for row in rows:
            row.state, row.reason = "pruned", f"given up after {row.epoch} of {row.epochs} epochs"
        return rows

    def fill(self, row: Row, result: Result, state: Any) -> None:
        self.results[row.key] = result
        row.state, row.score = state, self.score(result)
        row.history, row.metrics, row.seconds = list(result.history), result.metrics, result.seconds
        row.sha256 = result.sha256
        row.weights = str(self.store.weights_file(result.key).resolve())


def students(study: Study) -> tuple[set[str], str]:
    """The keys of all stages that train the student of a study, alone or at the end of a path; and the figure that
    ranks them."""
    prepared = prepare(study)
    if prepared.sweep:  # which stages there are depends on how others did
        rows = prepared.board(prepared.frontier(prepared.stored)).rows
        return {key for key, row in rows.items() if row.role in ("student", "alone")}, prepared.score_name
    paths = [*prepared.lattice.paths(), Path((prepared.lattice.student,))]
    return {prepared.lattice.stage(path, seed).key for path in paths for seed in study.seeds}, prepared.score_name
