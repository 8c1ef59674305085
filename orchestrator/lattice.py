"""Who may teach whom, the paths that follow from it, and the stage that trains the last model of a path."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from math import isfinite
from typing import Literal

from orchestrator.edges import checked, every_edge, goals
from orchestrator.settings import Setting, applied
from trainers.call import Invalid, Term
from trainers.spec import Data, Guides, Model, Recipe, Stage

Role = Literal["teacher", "assistant", "student", "alone"]


@dataclass(frozen=True, order=True)
class Path:
    """Model names, each teaching the next, and what is particular about how they do.

    `budget`: the part of its epochs that each trains. `settings`: of each edge, or none if nothing is swept. `seeds`:
    those of the study's that are meant; None: all. `until`: the epoch after which the last model's training pauses,
    with the score that it has there; None: never.
    """

    models: tuple[str, ...]
    budget: float = 1.0
    settings: tuple[Setting, ...] = ()
    seeds: tuple[int, ...] | None = None
    until: int | None = None

    def __hash__(self) -> int:
        # Kept: a sweep looks thousands of long paths up after every result.
        kept: int | None = self.__dict__.get("_hash")
        if kept is None:
            kept = self.__dict__["_hash"] = hash((self.models, self.budget, self.settings, self.seeds, self.until))
        return kept

    def __getstate__(self) -> dict[str, object]:
        return {one.name: self.__dict__[one.name] for one in fields(self)}  # another process has other hashes

    def __add__(self, name: str) -> Path:
        return Path((*self.models, name), self.budget)

    def __str__(self) -> str:
        names = " > ".join(self.models)
        return names if self.budget == 1 else f"{names} @{self.budget:g}"

    @cached_property
    def teacher(self) -> Path | None:
        """The path to the model that teaches the last one. A root teacher always trains in full."""
        above = self.models[:-1]
        if not above:
            return None
        return Path(above, self.budget if len(above) > 1 else 1.0, self.settings[:-1])

    @property
    def training(self) -> Path:
        """The same training, whatever the seeds and where it pauses."""
        return self if self.seeds is None and self.until is None else Path(self.models, self.budget, self.settings)

    @property
    def plain(self) -> Path:
        """The same models and budget, whatever the settings, in full."""
        if not self.settings and self.seeds is None and self.until is None:
            return self
        return Path(self.models, self.budget)

    def by(self, *seeds: int) -> Path:
        """The same with these seeds alone. `replace` would look all fields up: races do this by the thousand."""
        return Path(self.models, self.budget, self.settings, seeds, self.until)

    @property
    def setting(self) -> Setting:
        """Of the last edge; empty if nothing is swept."""
        return self.settings[-1] if self.settings else ()


@dataclass(frozen=True)
class Entry:
    """What a name of the lattice stands for."""

    model: Model
    recipe: Recipe
    masks: str = ""  # of the data, if it learns from them


class Lattice:
    """Models by name, strongest first (the first is the root teacher), the edges, and the students to which paths lead.

    `edges` are (teacher, student) pairs of names; None lets every model teach all that come after it. `students`: the
    last model if there are none; one of several may teach those after it, as an assistant does.
    Two names may stand for equal models: self-distillation. `cost` of a whole training is relative, unless it is known
    in GPU hours: then `in_hours` is set with it. `divisor`: what a model's batches are padded to a multiple of.
    `score`: the figure by which a setting selects epochs, if it does.
    Raises `Invalid` at ("models",), ("edges",), ("edges", i), ("students",) or ("students", i).
    """

    def __init__(
        self,
        models: Mapping[str, Entry],
        data: Data,
        distill: Iterable[Term] = (),
        *,
        edges: Iterable[tuple[str, str]] | None = None,
        seeds: Iterable[int] = (0,),
        students: Iterable[str] = (),
        score: str = "",
    ) -> None:
        self.models, self.score = dict(models), score
        self.seeds = tuple(seeds)
        self.cost: Callable[[Stage], float] = lambda stage: 1.0
        self.in_hours = False
        self.divisor: Callable[[Model], int] = lambda model: 1
        self.data = data
        self.distill = tuple(distill)
        self.names = tuple(self.models)
        if len(self.names) < 2:
            raise Invalid("a study needs at least two models, a teacher and a student", ("models",))
        self.root = self.names[0]
        self.rank = {name: i for i, name in enumerate(self.names)}  # 0: the strongest
        self.students = goals(tuple(students), self.names)
        self.edges = every_edge(self.names) if edges is None else checked(edges, self.rank)
        self._useful = self._between()
        for student in self.students:
            if student not in self._useful:
                raise Invalid(
                    f"no path leads from {self.root} to {student}; add edges until one does, "
                    f"for example [{self.root}, {student}]",
                    ("edges",),
                )
        self._teachers = {name: self._ends(name, teachers=True) for name in self.names}
        self._students = {name: self._ends(name, teachers=False) for name in self.names}
        self._paths: dict[tuple[tuple[str, ...], float], tuple[Path, ...]] = {}
        self._stages: dict[tuple[Path, int], Stage] = {}
        self._lessons: dict[tuple[str, Setting, float, bool], tuple[Recipe, tuple[Term, ...]]] = {}

    def teachers(self, name: str) -> tuple[str, ...]:
        """The models that may teach this one, strongest first. Isolated ones neither teach nor are taught."""
        return self._teachers[name]

    def has(self, models: tuple[str, ...]) -> bool:
        """Whether some search may train or measure the last of these models this way."""
        steps = pairwise(models)
        taught = models[0] == self.root and all(teacher in self.teachers(name) for teacher, name in steps)
        return taught or (len(models) == 1 and models[0] in self.students)

    def pairs(self) -> list[tuple[str, str]]:
        """All (guide, student) in any path: the ends of each edge, and where all guides teach those of any way."""
        found, above = set(self.edges), dict[str, set[str]]()
        for name in self.names:
            teachers = self.teachers(name)
            above[name] = set(teachers).union(*(above[teacher] for teacher in teachers))
            if self.models[name].recipe.guides.who == "all":
                found |= {(guide, name) for guide in above[name]}
        return sorted(found)

    def isolated(self) -> tuple[str, ...]:
        """The assistants that lie on no path from the root teacher to a student: they are never trained."""
        return tuple(name for name in self.names if name not in self._useful)

    def paths(self, *students: str, budget: float = 1.0) -> tuple[Path, ...]:
        """Every path to these students, or to all; short ones first, and at every call the same objects."""
        ends = students or self.students
        if (ends, budget) not in self._paths:
            self._paths[ends, budget] = tuple(Path(models, budget) for models in self._walk(ends))
        return self._paths[ends, budget]

    def count(self) -> tuple[int, int]:
        """How many paths there are, and how many models are on all of them together; without listing them."""
        paths, models = {self.root: 1}, {self.root: 1}
        for name in self.names[1:]:
            above = [teacher for teacher in self._teachers[name] if teacher in paths]
            paths[name] = sum(paths[teacher] for teacher in above)
            models[name] = sum(models[teacher] for teacher in above) + paths[name]
        return sum(paths[name] for name in self.students), sum(models[name] for name in self.students)

    def shortest(self, student: str) -> Path:
        """The first path to a student, without looking for the others."""
        return Path(next(self._walk((student,))))

    def role(self, path: Path) -> Role:
        """What the last model of a path is there; `alone`: without a teacher, the yardstick of the others."""
        if len(path.models) == 1:
            return "teacher" if path.models[0] == self.root else "alone"
        return "student" if path.models[-1] in self.students else "assistant"

    def stage(self, path: Path, seed: int) -> Stage:
        """The training of a path's last model; its whole lineage has the same seed."""
        path = path.training
        if (path, seed) not in self._stages:
            self._stages[path, seed] = self._stage(path, seed)
        return self._stages[path, seed]

    def epochs(self, path: Path) -> int:
        """Of the training of a path's last model."""
        return self.stage(path, self.seeds[0]).recipe.epochs

    def _stage(self, path: Path, seed: int) -> Stage:
        entry, teacher = self.models[path.models[-1]], path.teacher
        budget = path.budget if self.role(path) != "teacher" else 1.0
        recipe, distill = self._lesson(path.models[-1], path.setting, budget, one_guide=len(path.models) < 3)
        stage = Stage(
            model=entry.model,
            data=self.data.model_copy(update={"masks": entry.masks}) if entry.masks else self.data,
            recipe=recipe,
            distill=distill if teacher else (),
            seed=seed,
            teacher=self.stage(teacher, seed) if teacher else None,
        )
        # What is only measured depends on no seed and on nothing that trains.
        if stage.published:
            return stage.model_copy(update={"recipe": recipe.measuring(), "seed": 0, "data": self.data})
        return stage

    def _lesson(
        self, name: str, setting: Setting, budget: float, *, one_guide: bool
    ) -> tuple[Recipe, tuple[Term, ...]]:
        """The recipe and the losses of a model with a setting, in a part of its epochs, and where there is only one who
        could guide it. Kept: thousands of stages share them, and what they are in the stages' keys."""
        which = (name, setting, budget, one_guide)
        if which not in self._lessons:
            recipe, distill = applied(setting, self.models[name].recipe, self.distill)
            recipe = recipe.selecting(self.score)
            epochs = max(1, round(recipe.epochs * budget))
            changed = dict[str, object]()
            if one_guide and recipe.guides != Guides():
                changed["guides"] = Guides()
            if epochs != recipe.epochs:
                changed["epochs"] = epochs
            if changed:  # else it is one recipe for all, which is written out once
                recipe = recipe.model_copy(update=changed)
            self._lessons[which] = recipe, tuple(term.shortened(budget, epochs=epochs) for term in distill)
        return self._lessons[which]

    def _ends(self, name: str, *, teachers: bool) -> tuple[str, ...]:
        """The other ends of the edges at a name, in the order of the names."""
        pairs = self.edges if teachers else {(student, teacher) for teacher, student in self.edges}
        ends = {other for other, this in pairs if this == name and self._useful >= {this, other}}
        return tuple(sorted(ends, key=self.rank.__getitem__))

    def _between(self) -> set[str]:
        """The names that the root reaches and that reach a student."""
        below, above = {self.root}, set(self.students)
        for name in self.names:
            if any((teacher, name) in self.edges for teacher in below):
                below.add(name)
        for name in reversed(self.names):
            if any((name, student) in self.edges for student in above):
                above.add(name)
        return below & above

    def _walk(self, students: Collection[str]) -> Iterator[tuple[str, ...]]:
        """Breadth first, so that short paths come first and equally long ones in the order of the names."""
        layer: list[tuple[str, ...]] = [(self.root,)]
        while layer:
            layer = [(*models, name) for models in layer for name in self._students[models[-1]]]
            yield from (models for models in layer if models[-1] in students)


Scores = Mapping[Path, float]  # higher is better; -inf: could not be trained
Strategy = Callable[[Lattice, Scores], Iterable[Path]]  # the paths that are wanted now, known ones included


def best(scores: Scores, lattice: Lattice, student: str) -> Path | None:
    """The best path on which a student is taught, trained in full; of equals the shorter, then the first in order."""
    taught = [
        path
        for path, score in scores.items()
        if path == path.training
        and path.budget == 1
        and path.models[-1] == student != path.models[0]
        and isfinite(score)
    ]

    def order(path: Path) -> tuple[float, int, list[int]]:
        return -scores[path], len(path.models), [lattice.rank[name] for name in path.models]

    return min(taught, key=order, default=None)
