"""What a stage will cost in seconds, by what others have cost; or how it compares with others, where nobody knows.

The rule, for a device and a number of workers:

1. Measured: such a stage was trained before. It has the same model, data, models that teach and kinds of losses, and
   the same recipe but for what makes a step no slower (`LIGHT`). Seeds, weights, temperatures, and by whom the teacher
   was taught do not matter. The median of the seconds of an epoch counts, times the epochs.
2. Scaled: else, the kind that is nearest in FLOPs of training on an image (their ratio nearest to 1; of several the one
   with the same losses) costs as much more or less an epoch as it has FLOPs more or less.
3. Else it is unknown, and only the FLOPs of its images times its epochs are compared with those of others.

FLOPs of training on an image, as large as the recipe makes it: `STEP` forward passes of the student, and one of each
model that teaches. Seconds are a result's own: training and validation, as often as there was validation then; not what
comes before the first epoch, nor reading the result back. Only stages on the same data are looked at, so an epoch has
equally many images for both.
`benchmarks/costs.py` measures how wrong this is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from statistics import median
from typing import Literal, NamedTuple

from trainers.call import canonical
from trainers.spec import Model, Recipe, Stage

# A training step is about three forward passes; a teacher adds one of its own.
STEP = 3

# What a step takes as long with.
LIGHT = {"epochs", "lr", "schedule", "warmup", "warmup_from", "bias_lr", "bias_decay", "flip"}

Basis = Literal["measured", "scaled", "unknown", "none"]

# FLOPs of a model's forward pass on an image as a recipe makes it; None where they are not known.
Forward = Callable[[Model, Recipe], int | None]


class Prediction(NamedTuple):
    """What a stage will cost."""

    seconds: float | None  # None: unknown
    basis: Basis  # none: it is not trained, and was never measured


class Measured(NamedTuple):
    """What a stage did cost, on the device and with the workers that are asked about."""

    stage: Stage
    seconds: float


class Group(NamedTuple):
    """Stages of one kind."""

    flops: float  # of training on an image
    losses: tuple[str, ...]
    seconds: float  # of an epoch, the median


def identity(model: Model) -> str:
    """Equal for equal models, whatever their names."""
    return model.model_dump_json()


def per_image(forward: Forward) -> Callable[[Stage], float | None]:
    """FLOPs of training a stage on an image, by those of one forward pass of a model; None where one is not known.

    Who teaches sees the student's images, however large its own were.
    """

    def flops(stage: Stage) -> float | None:
        own = forward(stage.model, stage.recipe)
        others = [forward(guide.model, stage.recipe) for guide in stage.guides]
        known = [other for other in others if other is not None]
        return None if own is None or len(known) < len(others) else float(STEP * own + sum(known))

    return flops


def kind(stage: Stage) -> str:
    """Equal for stages whose epochs take equally long."""
    return canonical(
        {
            "model": stage.model.model_dump(mode="json"),
            "data": stage.data.model_dump(mode="json"),
            "recipe": stage.recipe.model_dump(mode="json", exclude=LIGHT),
            "losses": _losses(stage),
            "guides": [guide.model.model_dump(mode="json") for guide in stage.guides],
        }
    )


class Costs:
    """Predicts by `measured`; `flops` of training on an image may be unknown for measured stages alone."""

    def __init__(self, flops: Callable[[Stage], float | None], measured: Iterable[Measured] = ()) -> None:
        self.flops = flops
        self.measured = tuple(measured)
        self._known: dict[str, Prediction] = {}

    def predict(self, stage: Stage) -> Prediction:
        """What the whole of a stage will cost."""
        if stage.key not in self._known:
            self._known[stage.key] = self._predict(stage)
        return self._known[stage.key]

    def relative(self, stage: Stage) -> float:
        """To be compared with others': seconds, or FLOPs an image times epochs where no seconds are known."""
        seconds = self.predict(stage).seconds
        return self._flops(stage) * stage.recipe.epochs if seconds is None else seconds

    def _predict(self, stage: Stage) -> Prediction:
        if (same := self._kinds.get(kind(stage))) is not None:
            return Prediction(same.seconds * stage.recipe.epochs, "measured")
        if stage.published:
            return Prediction(0.0, "none")
        if not self._trained:
            return Prediction(None, "unknown")
        flops, losses = self._flops(stage), tuple(_losses(stage))
        nearest = min(self._trained, key=lambda g: (abs(math.log(g.flops / flops)), g.losses != losses))
        return Prediction(nearest.seconds * flops / nearest.flops * stage.recipe.epochs, "scaled")

    def _flops(self, stage: Stage) -> float:
        flops = self.flops(stage)
        assert flops, "every model of the study was sent an image through"
        return flops

    @cached_property
    def _kinds(self) -> Mapping[str, Group]:
        seconds, stages = defaultdict[str, list[float]](list), dict[str, Stage]()
        for one in self.measured:
            name = kind(one.stage)
            stages.setdefault(name, one.stage)
            seconds[name].append(one.seconds / one.stage.recipe.epochs)
        return {
            name: Group(self.flops(stage) or 0.0, tuple(_losses(stage)), median(seconds[name]))
            for name, stage in stages.items()
        }

    @cached_property
    def _trained(self) -> list[Group]:
        """What others may be scaled from: it was trained, and its FLOPs are known."""
        published = {kind(one.stage) for one in self.measured if one.stage.published}
        return [group for name, group in self._kinds.items() if group.flops and name not in published]


def relative(forward: Forward) -> Callable[[Stage], float]:
    """The cost of a stage in FLOPs an image times epochs, the same whatever was measured."""
    return Costs(per_image(forward)).relative


def _losses(stage: Stage) -> list[str]:
    return sorted(term.name for term in stage.distill)
