"""Load a trained stage as a teacher, and make sure that what was loaded is what was trained.

"The teacher was not really loaded" is the most common reason why distillation gives nothing. So weights are read back
and measured on the validation set once, and their score must be the recorded one before they teach anybody.
"""

from __future__ import annotations

from typing import Any

import torch

from trainers import build, visible, workers
from trainers.evaluate import measure
from trainers.outputs import Network
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import Store
from trainers.visible import awaited

# Another device or another number of threads sums in another order; a wrong teacher is off by far more.
TOLERANCE = 0.002


class NotTheTeacher(RuntimeError):
    """Loaded weights have another score than their record says."""


def load(store: Store, stage: Stage, *, device: torch.device) -> Network:
    """The detector of a finished stage, in evaluation mode and without gradients."""
    result = awaited(lambda: store.get(stage))  # whoever has it taught knows that it is finished
    if result is None:
        waited = f"it was finished, and waited for {visible.PATIENCE:g} s"
        raise NotTheTeacher(
            f"the teacher {stage.key} is not in the store {store.root}; run again to train it ({waited})"
        )
    return restore(store, result, device=device)


def restore(store: Store, result: Result, *, device: torch.device) -> Network:
    """The detector of a result that another worker may have written just now."""
    awaited(lambda: store.weights_found(result.key))
    return build.trained(result.stage, store.weights(result), device=device)


def verified(store: Store, stage: Stage, data: Any, *, device: torch.device, loader_workers: int = 0) -> Network:
    """The same, measured first if these weights never were. Raises `NotTheTeacher` with both figures.

    All workers of a stage call it together.
    """
    detector = load(store, stage, device=device)
    result = store.get(stage)
    assert result is not None, "load would have raised"
    # The first decides for all: another stage's worker may note it between two looks.
    if workers.told(not store.measured(result)):
        check(store, result, detector, data, device=device, loader_workers=loader_workers)
    return detector


def check(
    store: Store, result: Result, detector: Network, data: Any, *, device: torch.device, loader_workers: int = 0
) -> None:
    """Measure what was loaded, with all workers, and note that the score is the recorded. Raises `NotTheTeacher`."""
    figures = measure(detector, data, result.stage.recipe, device=device, loader_workers=loader_workers)
    name = build.metric(data).score
    # It may have been stored when another figure was the score; that is one of its metrics, unless it was edited.
    agree(result, figures[name], recorded=result.metrics.get(f"val/{name}", result.score))
    if result.score not in [value for figure, value in result.metrics.items() if figure.startswith("val/")]:
        agree(result, figures[name])
    if workers.rank() == 0:
        store.mark_measured(result)


def agree(result: Result, score: float, *, recorded: float | None = None) -> None:
    """Raise `NotTheTeacher` unless the score is the recorded one."""
    recorded = result.score if recorded is None else recorded
    if not abs(score - recorded) <= TOLERANCE:
        raise NotTheTeacher(
            f"the weights of {result.key} score {score:.4f} but their record says {recorded:.4f}; "
            f"they may not teach. Remove the folder {result.key} from the store to train it anew"
        )
