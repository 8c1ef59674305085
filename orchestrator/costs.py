"""What a stage costs, relative to the others: enough to start the longest chain first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trainers.spec import Model, Stage

# A training step is about three forward passes; a teacher adds one of its own.
STEP = 3


def identity(model: Model) -> str:
    """Equal for equal models, whatever their names."""
    return model.model_dump_json()


def relative(flops: Mapping[str, int]) -> Callable[[Stage], float]:
    """The cost of a stage in forward FLOPs an image times epochs; `flops` of one forward pass, by `identity`."""

    known: dict[str, float] = {}

    def cost(stage: Stage) -> float:
        if stage.key not in known:
            step = STEP * flops[identity(stage.model)]
            if stage.teacher:
                step += flops[identity(stage.teacher.model)]
            known[stage.key] = 0.0 if stage.published else float(step * stage.recipe.epochs)
        return known[stage.key]

    return cost
