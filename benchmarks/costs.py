"""How wrong predicted costs are, on the demo's lattice with shortened trainings: of stages, and the makespan of a run.

All stages are trained with two seeds, one after another in this process, and measured in processor seconds, which
other work on the machine disturbs little. Those of the second seed are predicted as the first's took; those of the
first from the other kinds of stages, and from the teacher alone, by FLOPs. Then `tapath run` trains a third seed, two
at a time, and its report says by how much its forecast, of the seconds of a clock, was wrong.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from table import show

DEMO = Path(__file__).parent.parent / "search_spaces" / "demo.yaml"
EPOCHS = 3


def study(folder: Path, seeds: list[int]) -> Any:
    from orchestrator.study import load

    return load(DEMO, sets(folder, seeds))


def sets(folder: Path, seeds: list[int]) -> list[str]:
    store = f"resources.store={json.dumps(str(folder / 'store'))}"
    return [f"recipe.epochs={EPOCHS}", f"seeds={seeds}", store, "resources.stages_at_once=2", *sys.argv[1:]]


def train(order: Any) -> float:
    """Processor seconds from the first batch to the end of the last epoch."""
    import torch

    from trainers.worker import work

    moments: list[float] = []

    def note(*_: Any) -> bool:
        moments.append(time.process_time())
        return False

    work(order, device=torch.device("cpu"), stop=note, report=note)
    return moments[-1] - moments[0]


def measured(folder: Path) -> tuple[Any, list[Any], list[str]]:
    """The costs of the study, each stage with its seconds, seed by seed, and their names."""
    from orchestrator.costs import Measured
    from orchestrator.prepared import prepare
    from trainers.order import Order

    found, names = [], []
    for seed in (0, 1):
        prepared = prepare(study(folder, [seed]))
        resources = prepared.study.resources
        for node in prepared.frontier(lambda stage: None).wanted():
            order = Order(
                stage=node.stage,
                data=prepared.study.data,
                store=resources.store,
                evaluate_every=resources.evaluate_every,
            )
            found.append(Measured(node.stage, train(order)))
            names.append(str(node.path))
    return prepared.costs, found, names


def rows(costs: Any, found: list[Any], names: list[str]) -> list[dict[str, Any]]:
    """A row for each stage of the first seed; errors in per cent, positive where the prediction was too high."""
    from orchestrator.costs import Costs, kind

    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    teacher = first[:1]
    made = []
    for name, one, again in zip(names, first, second, strict=False):
        others = [other for other in first if kind(other.stage) != kind(one.stage)]
        made.append(
            {
                "stage": name,
                "processor seconds": one.seconds,
                "with seed 1": again.seconds,
                "as measured, % off": off(Costs(costs.flops, first), again),
                "scaled from the nearest, % off": off(Costs(costs.flops, others), one),
                "scaled from the teacher, % off": off(Costs(costs.flops, teacher), one),
            }
        )
    return made


def off(costs: Any, took: Any) -> float:
    return 100 * (costs.predict(took.stage).seconds / took.seconds - 1)


def run(folder: Path) -> dict[str, Any]:
    """-> what the report says of the costs of a third seed."""
    words = [word for one in sets(folder, [2]) for word in ("--set", one)]
    command = [sys.executable, "-m", "orchestrator", "run", str(DEMO), "--quiet", *words]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "runs" / "demo" / "report.json").read_text())["cost"]
    return found


def main() -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = rows(*measured(folder))
        before = os.getloadavg()[0]
        said, took = (run(folder)["run"][side] for side in ("predicted", "took"))
    sizes = [
        f"{head}: {statistics.median(abs(row[head]) for row in made):.0f} at the median, "
        f"{max(abs(row[head]) for row in made):.0f} at most"
        for head in made[0]
        if head.endswith("% off")
    ]
    clock = (
        f"a run of seed 2, two at a time, load {before:.1f} before it: {said['seconds']:.0f} s of training predicted, "
        f"{took['seconds']:.0f} s taken; makespan {said['makespan']:.0f} s predicted (at the least "
        f"{said['lower_bound']:.0f} s), {took['makespan']:.0f} s taken with the start of processes"
    )
    show("costs", made, *sizes, clock, f"{EPOCHS} epochs; a positive error: predicted too high")


if __name__ == "__main__":
    main()
