"""A study checked against its data and down to the shapes, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any

from orchestrator import experience, searching
from orchestrator.board import TRAINED, Board, Row
from orchestrator.checks import BATCH, check, fits
from orchestrator.costs import Costs, identity, relative
from orchestrator.frontier import Frontier, Node
from orchestrator.inputs import Inputs, read, unread
from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.prices import Prices
from orchestrator.resources import Placement
from orchestrator.strategies.waves import PAUSING, calls
from orchestrator.study import Study
from orchestrator.warm import warm
from trainers import build, sources
from trainers.call import Invalid
from trainers.lease import Lease, held
from trainers.outputs import Network
from trainers.spec import Model, Recipe, Stage
from trainers.store import Result, Store


def prepare(study: Study, *, provisional: bool = False) -> Prepared:
    """Check a study against its data, down to the shapes. Raises `Invalid` with file and line.

    provisional: without reading its data, its published weights or the store.
    """
    try:
        store = Store(study.resources.store)
        if not provisional:
            store.place.reachable()
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
        self.lattice: Lattice = study.lattice(self.contents, inputs.weights, inputs.masks, score=inputs.score)
        self.shapes = self._shapes()
        self.checked: set[tuple[tuple[str, ...], str, str]] = set()
        self.sizes = self._sizes()
        self.lattice.cost, self.lattice.divisor = relative(self.forward), self._divisor()
        self.prices: Prices | None = None  # of a budget in GPU hours
        self.warm = warm(
            self.sweep,
            self.lattice,
            store,
            uri=study.resources.tracking_uri,
            metric=self.score_name,
            provisional=inputs.provisional,
        )
        check(self)
        self.results: dict[str, Result] = {}
        self.underway: set[str] = set()  # the keys of what was begun, as far as it was asked what is left of it
        self.damaged: list[str] = []  # what is to be said of results that are not whole

    def at_a_glance(self) -> Prepared:
        """The same by what the store has at this moment, for whoever trains nothing and looks at many stages."""
        self.store.place = self.store.place.glimpse()
        return self

    def certain(self) -> None:
        """Raise `Invalid` if it is not known what the sweeps start from."""
        try:
            self.warm.certain()
        except Invalid as mistake:
            raise self.study.refusal(mistake) from mistake

    def keep(self) -> None:
        """Put into the store the published weights, and what sweeps start from and budgets reckon by. Raises `Invalid`
        if it is full."""
        self.inputs.keep(self.store)
        self.warm.keep()
        if self.prices is not None:
            self.prices.keep()

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
                sizes[name] = build.size_of(entry.model, len(self.contents.classes), image, self.shapes[name])
                fits(self, name, entry.recipe)
            except Invalid as error:
                common = error.where == BATCH and entry.recipe.batch == self.study.recipe.batch
                raise error.under(*(() if common else ("models", name))) from None
        return sizes

    def frontier(
        self,
        done: Callable[[Stage], float | None],
        *,
        paused: Callable[[Stage, int], float | None] | None = None,
    ) -> Frontier:
        """What the study wants, its controls too."""
        with self.store.glimpse():  # at first it asks for many stages
            return searching.frontier(
                self.study.search,
                self.lattice,
                self.sweep,
                first=self.warm.settings,
                names=self.study.controls or (),
                compute=relative(self.forward),
                cost=self.costs.relative,
                done=done,
                paused=paused or self.paused,
            )

    def searched(self, scores: Scores) -> Iterable[Path]:
        """The paths, or trials of a sweep, that the study's search wants at these scores, without its controls."""
        search = searching.searching(self.study.search, self.lattice, self.sweep, first=self.warm.settings)
        return search(self.lattice, scores)

    def forward(self, model: Model, recipe: Recipe) -> int | None:
        """FLOPs of one forward pass on an image as a recipe makes it; None for a model of another study that cannot be
        built any more."""
        try:
            image = build.image_size(self.inputs.dataset, recipe)
            return build.size_of(model, len(self.contents.classes), image).flops
        except (Invalid, KeyError, TypeError):  # also of a class, or a knob, that there is no more
            return None

    @cached_property
    def costs(self) -> Costs:
        """By what the store has when they are first asked for."""
        return experience.costs(self.store, self.placed, self.inputs, self.forward)

    def placed(self, model: Model) -> Placement:
        """What a model runs on; one that is not of the study as the study says for all."""
        return self._placements.get(identity(model), self.study.resources)

    def _divisor(self) -> Callable[[Model], int]:
        """What height and width of a model's batches are padded to a multiple of; 0 where it is not of the study."""
        backbones = {name: entry.model.backbone.canonical for name, entry in self.lattice.models.items()}
        found = {backbones[name]: build.divisor(shape) for name, shape in self.shapes.items()}
        return lambda model: found.get(model.backbone.canonical, 0)

    @cached_property
    def _placements(self) -> dict[str, Placement]:
        models = self.lattice.models
        return {identity(models[name].model): one.resources for name, one in self.study.models.items()}

    def left(self, stage: Stage) -> float:
        """What is left of a stage's relative cost, if it was begun."""
        epoch = 0 if self.inputs.provisional else self.store.begun(stage.key)
        if epoch:
            self.underway.add(stage.key)
        return (1 - epoch / stage.recipe.epochs) * self.costs.relative(stage)

    def know_hours(self) -> None:
        """Have the lattice say what stages cost in GPU hours, the same at every start. Raises `Invalid` if nothing like
        them was measured."""
        kept = partial(experience.of, store=self.store, placed=self.placed)
        self.prices = Prices(self.store, self.study.search, self.lattice, self.costs.measured, of=kept)
        costs = Costs(self.costs.flops, self.prices.measured)
        taught = self.lattice.shortest(self.lattice.students[-1])  # alone it may be published
        if costs.predict(self.lattice.stage(taught, 0)).seconds is None:
            message = "how many GPU hours a stage takes is not known yet: no like stage was trained on this data"
            raise Invalid(f"{message}; give a limit in stages, or train one stage first", ("search",))

        def hours(stage: Stage) -> float:
            return costs.relative(stage) * self.placed(stage.model).workers / 3600

        self.lattice.cost, self.lattice.in_hours = hours, True

    @property
    def pausing(self) -> bool:
        """Whether trainings may pause and never go on."""
        return bool(self.sweep and self.sweep.stop) or any(call.name in PAUSING for call in calls(self.study.search))

    def stored(self, stage: Stage, *, whole: bool = False) -> float | None:
        """The score of a stage that the store has; `whole`: after reading every byte of its weights."""
        if self.inputs.provisional:
            return None
        result = None if whole and not self.store.check(stage) else self.store.get(stage)
        if result is None:
            if whole and (name := self.store.spoilt(stage.key)):
                file = self.store.place.file(name)
                self.damaged.append(f"the result {stage.key} is not whole, see {file}: the stage is trained anew")
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

    def reached(self, stage: Stage, epoch: int | None) -> bool | None:
        """Whether it can be seen what a stage had that paused after an epoch; None: not yet, it may come."""
        # Its states are looked for first: unlike the rest they raise an `OSError` where the store is away.
        seen = epoch is None or (self.store.begun(stage.key) and self.paused(stage, epoch) is not None)
        return True if seen else None

    def score(self, result: Result) -> float:
        """What this study ranks a result by; it may have been stored when another figure was the score."""
        return result.figure(self.score_name)

    def board(self, frontier: Frontier) -> Board:
        """A record of all that is wanted, finished stages filled in from the store."""
        board = Board(self.study.name)
        self.extend(board, frontier.wanted())
        self.given_up(board, frontier)
        return board

    def extend(self, board: Board, wanted: Iterable[Node]) -> list[Row]:
        """Add the stages of these that are not there yet; -> their rows."""
        new = []
        for node in wanted:
            key, path = node.stage.key, node.path.training
            if key in board.rows:
                row = board.rows[key]
                if path not in row.paths:
                    row.others.append(path)
                continue
            role, origin = self.lattice.role(node.path), self.warm.origin(path)
            row = Row(node.stage, path, node.seed, role, place=len(board.rows), warm=origin)
            if key in self.results:
                self.fill(row, self.results[key], "reused")
            elif self.pausing and (history := self.store.paused(key)):
                row.state, row.history, row.seconds = "paused", list(history), history[-1]["seconds"]
                row.score = self.paused(node.stage, len(history))
            board.rows[key] = row
            new.append(row)
        return new

    def given_up(self, board: Board, frontier: Frontier) -> list[Row]:
        """Mark the stages that were begun and are not wanted any further; -> their rows. In the end: until then any of
        them may be wanted again."""
        if not frontier.over:
            return []
        rows = [row for row in board.rows.values() if row.state in ("paused", "waiting") and (row.started or row.epoch)]
        for row in rows:
            row.state, row.reason = "pruned", f"given up after {row.epoch} of {row.epochs} epochs"
        return rows

    def lost(self, board: Board, frontier: Frontier) -> list[Row]:
        """Mark the stages that lost their teacher since this was asked last; -> their rows."""
        rows = [board.rows[key] for key in frontier.lost if board.rows[key].state != "lost"]
        for row in rows:
            row.state, row.reason = "lost", frontier.lost[row.key]
        return rows

    def busy(self, board: Board) -> set[str]:
        """The keys of the stages that are not done and that somebody trains now."""
        place = self.store.place
        leased = {name.split("/")[0] for name in place.find("*/lease-[0-9]*")}
        open_ = {row.key for row in board.rows.values() if row.state not in TRAINED}
        return held({key: Lease(place.file(key)) for key in leased & open_})

    def fill(self, row: Row, result: Result, state: Any) -> None:
        self.results[row.key] = result
        row.state, row.score = state, self.score(result)
        row.history, row.metrics, row.seconds = list(result.history), result.metrics, result.seconds
        row.sha256, row.selected, row.device = result.sha256, result.selected, result.device
        row.usage, row.other_code = experience.figures(result), sources.changed(result.sources)
        row.weights = self.store.weights_address(result.key)
