"""What orchestration costs: 260 stages of a trainer that does nothing, through Ray Tune, with MLflow on SQLite.

Timed from the first question of Tune to the last row in MLflow; Ray's own start and the two trial processes' imports
are timed apart. Goal: under 0.15 s a stage.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from plan import study as lattice
from table import show

from orchestrator import cluster
from orchestrator.prepared import prepare
from orchestrator.resources import Placement
from orchestrator.study import load
from orchestrator.study_run import facts
from orchestrator.tracking import Tracking
from orchestrator.trial import Trial
from orchestrator.underway import Run
from trainers.store import Store


class Nothing(Trial):
    """Stores a result without training for it."""

    def _train_here(self, placement: Placement) -> None:
        entry = {"epoch": 1.0, "seconds": 0.0, "train/loss": 1.0, "val/AP": 0.5}
        facts: dict[str, Any] = {"metrics": {"val/AP": 0.5}, "history": [entry], "seconds": 0.0, "device": "cpu"}
        for order in self.orders:
            self.news.put((order.stage.key, entry))
            result = Store(order.store).put(order.stage, {"w": torch.ones(1)}, score=0.5, **facts)
            self._end(order.stage.key, result)


class Timed(Run):
    """Notes when the first stage has a process."""

    first = 0.0

    def started(self, key: str) -> None:
        self.first = self.first or time.perf_counter()
        super().started(key)


def main() -> None:
    vars(cluster)["Trial"] = Nothing  # the one thing that is not the real run
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nothing.yaml"
        file.write_text(lattice(7) + "seeds: [0, 1, 2, 3]\ncontrols: [alone]\n")
        places = [f"resources.store={folder}/store", f"resources.tracking=sqlite:///{folder}/mlflow.db"]
        study = load(file, [*places, "resources.cohort=1"])
        prepared = prepare(study)
        tracking = Tracking(study.resources.tracking_uri, study.name)
        tracking.start(facts(study, prepared), {"study": study.name})
        run = Timed(prepared)
        run.changed = tracking.update
        run.refresh()
        start = time.perf_counter()
        with run.on_ray(None):
            run.train()
            trained = time.perf_counter()
        stopped = time.perf_counter() - trained
        tracking.close("FINISHED")
        end = time.perf_counter() - stopped
    stages = len(run.board.rows)
    assert run.board.count("done") == stages, "every stage is trained"
    total = end - run.first
    row = {
        "stages": stages,
        "Ray start": run.first - start,
        "Tune": trained - run.first,
        "MLflow after it": end - trained,
        "a stage": total / stages,
    }
    show("orchestration", [row], "seconds. Goal: under 0.15 s a stage")


if __name__ == "__main__":
    main()
