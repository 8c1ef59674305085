"""What earlier studies found on edges like one of ours: finished trainings of MLflow, read as settings of a sweep.

Edges are alike if their students have the same detector and backbone, and so do their teachers: the calls, whatever
their weights, their recipes, and who taught the teachers.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any

from orchestrator.facts import metric as figure_name
from orchestrator.facts import parameters
from orchestrator.settings import LOSSES, RECIPE, Setting, applied, setting, values
from orchestrator.spaces import Space
from trainers.call import Call, Spec, Term
from trainers.spec import Data, Model, Recipe, Stage

if TYPE_CHECKING:  # importing MLflow takes seconds, and most studies do not ask it
    from orchestrator.ranking import Experiment

SHORTENED = re.compile(r" @[\d.e+-]+$")  # a path of another budget, as MLflow has it
OURS = {"key", "setting", "teacher_key", "path"}  # tags of our checkpoints
NOBODY = Model(detector=Call(name="nothing"), backbone=Call(name="nothing"))
NO_DATA = Data(fingerprint="", classes=())


class Earlier(Spec):
    """A setting that an earlier study found, where, and what came of it: a mean over the seeds."""

    values: dict[str, Any]  # by knob
    experiment: str
    metric: str  # the figure that the score is; empty if that study never said
    score: float
    other_data: bool

    @property
    def origin(self) -> str:
        """For people: `experiment coco_ld, AP 0.36`."""
        other = " on other data" if self.other_data else ""
        return f"experiment {self.experiment}{other}, {self.metric or 'score'} {self.score:.4g}"


@dataclass(frozen=True)
class Training:
    """A finished training that a teacher had a part in, as MLflow has it."""

    says: Mapping[str, str]  # its parameters
    teacher: Mapping[str, str]  # those of its teacher
    setting: str  # the same for those that differ in nothing but their seeds
    experiment: str
    metric: str  # the figure that the score is
    score: float

    @cached_property
    def edge(self) -> tuple[dict[str, str], dict[str, str]]:
        """The calls of the teacher and of the student."""
        return _network(self.teacher), _network(self.says)


def trainings(experiments: Iterable[Experiment], metric: str) -> list[Training]:
    """The taught ones among the checkpoints that are whole, and whose teachers are there too; each once.

    Where a checkpoint has our figure, `metric`, that is its score, whatever its own study ranked it by. Left out is
    what was trained for a part of its epochs: its score says little of a whole training.
    """
    from orchestrator.ranking import figure

    listed = [
        (one, model)
        for one in experiments
        for model in one.models
        if model.status == "READY" and model.tags.keys() >= OURS  # others may use the same server
    ]
    ready = {model.tags["key"]: model for _, model in reversed(listed)}  # of equal ones that of the first experiment
    found = []
    for one, model in listed:
        teacher = ready.get(model.tags["teacher_key"])
        if teacher is None or ready[model.tags["key"]] is not model or SHORTENED.search(model.tags["path"]):
            continue
        own = figure(model, figure_name(f"val/{metric}"))
        named, score = (metric, own) if isfinite(own) else (one.metric, figure(model, "score"))
        says, above = model.params or {}, teacher.params or {}
        found.append(Training(says, above, model.tags["setting"], one.name, named, score))
    return found


def alike(found: Iterable[Training], *, teachers: Iterable[Model], student: Model) -> list[Training]:
    """Those on an edge from a model like one of the teachers to one like the student."""
    above, below = [_network(_said(model)) for model in teachers], _network(_said(student))
    return [one for one in found if one.edge[1] == below and one.edge[0] in above]


def earlier(
    found: Iterable[Training],
    knobs: Mapping[str, Space],
    recipe: Recipe,
    losses: tuple[Term, ...],
    *,
    fingerprint: str,
    metric: str,
) -> list[Earlier]:
    """The settings that these trainings had, each once, the most promising first.

    Scores are compared only where data and figure are the same. First comes what was found on the same data, and of
    that what was found by the same figure; the best first. Of several other data sets each has its turn.
    recipe: of the student. Left out: a setting that the sweep could not have, or one with a score that is not finite.
    """
    reader = Reader(knobs, recipe, losses)
    groups: dict[tuple[bool, bool, str, str], dict[str, list[Training]]] = defaultdict(lambda: defaultdict(list))
    for one in found:
        data = one.says.get("data.fingerprint", "")
        groups[data != fingerprint, one.metric != metric, data, one.metric][one.setting].append(one)
    turns: list[tuple[tuple[bool, bool, int, str, str], Setting, Earlier]] = []
    for (other_data, other_metric, data, name), by_setting in groups.items():
        for place, (own, (score, experiment)) in enumerate(_best_first(by_setting.values(), reader)):
            said = Earlier(values=values(own), experiment=experiment, metric=name, score=score, other_data=other_data)
            turns.append(((other_data, other_metric, place, data, name), own, said))
    once: dict[Setting, Earlier] = {}
    for _, own, said in sorted(turns, key=lambda turn: turn[0]):
        once.setdefault(own, said)
    return list(once.values())


def _best_first(groups: Iterable[list[Training]], reader: Reader) -> list[tuple[Setting, tuple[float, str]]]:
    """The settings of trainings that can be compared, those over all seeds together; with score and experiment."""
    best: dict[Setting, tuple[float, str]] = {}
    for seeds in groups:
        score, experiment = fmean(one.score for one in seeds), min(one.experiment for one in seeds)
        own = reader.setting(seeds[0].says)
        if own is not None and isfinite(score) and (own not in best or (-score, experiment) < _order(best[own])):
            best[own] = (score, experiment)
    return sorted(best.items(), key=lambda item: (-item[1][0], item[0]))


def _order(found: tuple[float, str]) -> tuple[float, str]:
    return -found[0], found[1]


class Reader:
    """Reads from what MLflow was told of trainings which settings of a sweep they had.

    recipe: of the student. losses: of the study, where the sweep does not choose them.
    """

    def __init__(self, knobs: Mapping[str, Space], recipe: Recipe, losses: tuple[Term, ...]) -> None:
        self.knobs, self.recipe, self.losses = knobs, recipe, losses
        self._options: dict[str, list[dict[str, str]]] = {}  # what MLflow is told of each value of a choice, by knob

    def setting(self, says: Mapping[str, str]) -> Setting | None:
        """That of a training with these parameters; None if it lacks a value, or one is not in its space."""
        for chosen in self.knobs[LOSSES].options if LOSSES in self.knobs else (None,):
            given = {} if chosen is None else {LOSSES: chosen}
            whole = setting({**dict.fromkeys(self.knobs), **given}, self.losses)
            terms = self.losses if chosen is None else tuple(map(Term.model_validate, chosen))
            if chosen is not None and sorted(term.name for term in terms) != _names(says):
                continue
            try:
                given |= {name: self._value(says, name, terms) for name, _ in whole if name != LOSSES}
            except (LookupError, ValueError):  # a word is no number
                continue
            if chosen is None or _losses(says) == _losses(_said(NOBODY, given, self.recipe, self.losses)):
                return setting(given, self.losses)
        return None

    def _value(self, says: Mapping[str, str], name: str, terms: tuple[Term, ...]) -> Any:
        """The value that a training had of a knob. Raises `LookupError` if it had none that is in the space."""
        place, space = name, self.knobs[name]
        default: Any = None
        if not name.startswith(RECIPE):
            loss, _, knob = name.partition(".")
            names = _names(says)
            if loss not in names or len(set(names)) < len(names):
                raise LookupError(f"{loss} is not there, or nobody knows which is meant")
            place = f"{LOSSES}.{name}"
            default = Term.beside()[knob].default if knob in Term.beside() else None  # is not written where it holds
        own = _under(place, says)
        if space.kind == "choice":
            if name not in self._options:
                told = (_said(NOBODY, {name: option}, self.recipe, terms) for option in space.options)
                self._options[name] = [_under(place, one) for one in told]
            return space.options[self._options[name].index(own)]
        number: Any = json.loads(own[place]) if place in own else default
        if not space.holds(number):
            raise LookupError(f"{name} was not within its space")
        return space.rounded(number) if space.whole or space.step else float(number)


def _said(
    model: Model,
    given: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    losses: tuple[Term, ...] = (),
) -> dict[str, str]:
    """What MLflow is told of a training with these values."""
    whole, terms = applied(setting(given or {}, losses), recipe or Recipe(), losses)
    teacher = Stage(model=NOBODY, data=NO_DATA, recipe=Recipe())
    return parameters(Stage(model=model, data=NO_DATA, recipe=whole, distill=terms, teacher=teacher))


def _network(says: Mapping[str, str]) -> dict[str, str]:
    """The calls of a detector and its backbone."""
    return {**_under("model.detector", says), **_under("model.backbone", says)}


def _losses(says: Mapping[str, str]) -> dict[str, Any]:
    """All losses with their arguments; in which order they are added makes no difference."""
    return {**_under(LOSSES, says), LOSSES: _names(says)}


def _names(says: Mapping[str, str]) -> list[str]:
    return sorted(says.get(LOSSES, "").split(" + "))


def _under(place: str, says: Mapping[str, str]) -> dict[str, str]:
    """What is said of a value and its parts."""
    return {key: value for key, value in says.items() if key == place or key.startswith(f"{place}.")}
