"""How wrong predicted costs are, on the demo's lattice with shortened trainings: of stages, in all, and the makespan.

Three runs on one store: seed 0, of which nothing is known before; seed 1, one stage at a time; seed 2, two at a time.
Each stage of seed 0 is then predicted from other kinds of stages alone, and from the teacher alone, by FLOPs.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from table import show

DEMO = Path(__file__).parent.parent / "search_spaces" / "demo.yaml"
EPOCHS = 3
RUNS = ((0, 1), (1, 1), (2, 2))  # seed, stages at once


def sets(folder: Path, seed: int, at_once: int) -> list[str]:
    return [
        f"recipe.epochs={EPOCHS}",
        f"seeds=[{seed}]",
        f"resources.store={json.dumps(str(folder / 'store'))}",
        f"resources.stages_at_once={at_once}",
        *sys.argv[1:],
    ]


def run(folder: Path, seed: int, at_once: int) -> dict[str, Any]:
    """-> what the report says of costs."""
    words = [word for one in sets(folder, seed, at_once) for word in ("--set", one)]
    command = [sys.executable, "-m", "orchestrator", "run", str(DEMO), "--quiet", *words]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "runs" / "demo" / "report.json").read_text())["cost"]
    return found


def off(predicted: float | None, took: float) -> float:
    """Per cent, by which it was predicted too high."""
    return math.nan if predicted is None else 100 * (predicted / took - 1)


def rows(folder: Path, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from orchestrator.costs import Costs, kind
    from orchestrator.prepared import prepare
    from orchestrator.study import load

    costs = prepare(load(DEMO, sets(folder, *RUNS[0]))).costs
    first = {one.stage.key: one for one in costs.measured if one.stage.seed == 0}
    root = [one for one in first.values() if one.stage.teacher is None and len(one.stage.distill) == 0]
    largest = max(root, key=lambda one: costs.flops(one.stage) or 0.0)
    made = []
    for stage, same in zip(runs[0]["stages"], runs[1]["stages"], strict=True):
        own = first[stage["key"]]
        others = [one for one in first.values() if kind(one.stage) != kind(own.stage)]
        scaled = Costs(costs.flops, others).predict(own.stage).seconds
        alone = Costs(costs.flops, [largest]).predict(own.stage).seconds
        made.append(
            {
                "stage": " > ".join(stage["path"]),
                "seconds": stage["seconds"],
                "with seed 1": same["seconds"],
                "as measured, % off": off(same["predicted"], same["seconds"]),
                "scaled from the nearest, % off": off(scaled, stage["seconds"]),
                "scaled from the teacher, % off": off(alone, stage["seconds"]),
            }
        )
    return made


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [run(folder, *one) for one in RUNS]
        made = rows(folder, runs)
    kinds = [head for head in made[0] if head.endswith("% off")]
    errors = {head: [abs(row[head]) for row in made] for head in kinds}
    last = {"stage": "median of the errors' sizes", "seconds": math.nan, "with seed 1": math.nan}
    made.append({**last, **{head: statistics.median(errors[head]) for head in kinds}})
    notes = []
    for (seed, at_once), one in zip(RUNS[1:], runs[1:], strict=True):
        said, took = one["run"]["predicted"], one["run"]["took"]
        notes.append(
            f"seed {seed}, {at_once} at once: {said['seconds']:.1f} s of training predicted, "
            f"{took['seconds']:.1f} s taken; makespan predicted {said['makespan']:.1f} s, "
            f"at the least {said['lower_bound']:.1f} s, "
            f"took {took['makespan']:.1f} s with the start of processes"
        )
    finite = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in made]
    show("costs", finite, *notes, f"{EPOCHS} epochs; a positive error: predicted too high")


if __name__ == "__main__":
    main()
