"""`tapath latency`: what each model of a study takes on this device, measured now."""

from __future__ import annotations

from itertools import islice
from statistics import median, quantiles
from typing import Any

from orchestrator.prepared import Prepared, prepare
from orchestrator.study import Study
from orchestrator.words import plain, rows
from trainers import build, footprint, teacher
from trainers.appraisal import device_of, here
from trainers.call import Invalid
from trainers.outputs import Network
from trainers.store import Damaged


def latency(study: Study, *, batch: int, runs: int) -> dict[str, Any]:
    """Milliseconds an image of each model, over so many passes of a batch; its parameters and FLOPs.

    A model is measured with weights that the store has, if it has some: how many boxes have to be suppressed makes a
    difference. Raises `Invalid`.
    """
    prepared = prepare(study).at_a_glance()
    split = prepared.inputs.dataset.val
    if len(split) < batch:
        raise Invalid(f"there are {len(split)} validation images, fewer than a batch of {batch}", ("--batch",))
    board = prepared.board(prepared.frontier(prepared.stored))
    trained = {row.path.models[-1]: row.key for row in board.rows.values() if row.state == "reused"}
    found = []
    for name, entry in prepared.lattice.models.items():
        network = _network(prepared, name, trained.get(name))
        passes = footprint.passes(network, split, entry.recipe, device=device_of(network), batch=batch)
        times = [1000 * seconds / batch for seconds in islice(passes, runs)]
        low, _, high = quantiles(times, n=4, method="inclusive") if runs > 1 else times * 3
        found.append(
            {
                "model": name,
                "ms": median(times),
                "quartiles_ms": [low, high],
                "parameters": prepared.sizes[name].parameters,
                "flops": prepared.sizes[name].flops,
                "trained": name in trained,
            }
        )
    return {"study": study.name, "device": str(here()), "batch": batch, "runs": runs, "models": found}


def _network(prepared: Prepared, name: str, key: str | None) -> Network:
    """A model as the store has it, or with fresh weights."""
    if key is not None:
        try:
            return teacher.restore(prepared.store, prepared.results[key], device=here())
        except Damaged as error:
            raise Invalid(str(error)) from None
    return build.network(prepared.lattice.models[name].model, len(prepared.contents.classes)).to(here())


def text(made: dict[str, Any]) -> str:
    """As a table."""
    head = ["model", "ms an image", "half of them within", "parameters", "FLOPs", ""]
    table = [head]
    for one in made["models"]:
        low, high = one["quartiles_ms"]
        fresh = "" if one["trained"] else "not trained yet: fresh weights"
        figures = [f"{one['ms']:.3g}", f"{low:.3g} to {high:.3g}", f"{one['parameters']:,}", f"{one['flops']:,}"]
        table.append([plain(one["model"]), *figures, fresh])
    said = f"{made['runs']} passes of {made['batch']} image{'s' * (made['batch'] > 1)} on {made['device']}"
    return "\n".join([f"{made['study']}: {said}, the median", *rows(table)])
