"""What the store has measured of like trainings, for a study's costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from orchestrator.costs import Costs, Forward, Measured, per_image
from orchestrator.inputs import Inputs
from orchestrator.resources import Placement
from trainers.finished import results, results_of
from trainers.spec import Model
from trainers.store import Result, Store

NEWEST = 1000  # results that are looked at

CPU = "cpu"


def costs(store: Store, placed: Callable[[Model], Placement], inputs: Inputs, forward: Forward) -> Costs:
    """The costs of stages whose models are `placed` so. `forward`: of models of other studies, too."""
    found = [] if inputs.provisional else list(results(store.place, most=NEWEST))
    gpu = next((result.device for result in found if result.device != CPU), "")
    mine = [
        result
        for result in found
        if result.stage.data.fingerprint == inputs.contents.fingerprint
        and like(result, placed(result.stage.model), gpu)
    ]
    return Costs(per_image(forward), _measured(mine, placed))


def of(keys: Iterable[str], store: Store, placed: Callable[[Model], Placement]) -> Iterator[Measured]:
    """What these stages have taken, whatever else was measured since, on whichever devices."""
    return _measured(results_of(store.place, keys), placed)


def _measured(found: Iterable[Result], placed: Callable[[Model], Placement]) -> Iterator[Measured]:
    return (Measured(result.stage, _with_all(result, placed(result.stage.model))) for result in found)


def figures(result: Result) -> dict[str, float]:
    """What a result notes of its costs beside the seconds, under the names that MLflow and the report have for it."""
    named: dict[str, float | None] = {}
    if result.usage is not None:
        named = {
            "images_per_second": result.usage.images_per_second,
            "peak_memory_bytes": result.usage.memory,
            "measuring_seconds": result.usage.measuring,
            "workers": result.usage.workers,
        }
    if result.footprint is not None:
        named |= result.footprint.model_dump()
    return {name: float(value) for name, value in named.items() if value is not None}


def like(result: Result, placement: Placement, gpu: str) -> bool:
    """Whether a result is of such a device, and of so many workers and threads as far as that was noted. `gpu`: what a
    stage with one will run on, which is what the newest result is from; empty if there is none."""
    device = gpu if placement.gpus else CPU
    if result.device != device:
        return False
    if result.usage is None:
        return True
    fewest, most = (1, 1) if result.stage.published else (placement.fewest, placement.workers)
    as_many = fewest <= result.usage.workers <= most
    return as_many and (device != CPU or result.usage.threads == max(1, int(placement.cpus)))


def _with_all(result: Result, placement: Placement) -> float:
    """The seconds of a result, had it had all workers that the placement allows: half as many take twice as long."""
    if result.usage is None or result.stage.published or placement.fewest == placement.workers:
        return result.seconds
    return result.seconds * result.usage.workers / placement.workers
