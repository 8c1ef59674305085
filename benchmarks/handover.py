"""The hand-over: from a teacher's result stored to its child's first optimizer step, along a chain of eight models.

Ours: TorchTrainer's local mode inside a reused trial process. Naive: the same stages by the same scheduler, but a
function trainable a stage, each fitting a TorchTrainer with one worker. Goal for ours: a median under 0.25 s.
"""

from __future__ import annotations

import functools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from plan import study as lattice
from ray import tune
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune import PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from table import show

from orchestrator import cluster
from orchestrator.prepared import prepare
from orchestrator.resources import Placement
from orchestrator.searcher import StageSearcher
from orchestrator.study import load
from orchestrator.trial import Trial
from orchestrator.underway import Run
from trainers.loop import Training
from trainers.order import Order
from trainers.store import Store
from trainers.worker import work


def note(marks: str, event: str, key: str) -> None:
    with open(marks, "a") as file:
        file.write(json.dumps({"event": event, "key": key, "time": time.time()}) + "\n")


def watch(marks: str, order: Order) -> None:
    """Note when a result is stored, and when a stage has made its first step."""
    put, step = unwrapped(Store.put), unwrapped(Training._step)

    @functools.wraps(put)
    def noted_put(self: Store, *args: Any, **facts: Any) -> Any:
        result = put(self, *args, **facts)
        note(marks, "stored", result.key)
        return result

    @functools.wraps(step)
    def noted_step(self: Training, *args: Any) -> Any:
        losses = step(self, *args)
        if "stepped" not in vars(self):
            vars(self)["stepped"] = True
            note(marks, "step", order.stage.key)
        return losses

    for where, method, noted in ((Store, "put", noted_put), (Training, "_step", noted_step)):
        setattr(where, method, noted)


def unwrapped(method: Any) -> Any:
    return getattr(method, "__wrapped__", method)


class Watched(Trial):
    """The real trial, with a watch."""

    def _train_here(self, placement: Placement) -> None:
        (order,) = self.orders
        watch(str(Path(order.store).parent / "marks"), order)
        super()._train_here(placement)


def naive(config: dict[str, Any]) -> None:
    """A stage as one would write it first: a trial that fits a trainer with one worker."""

    def loop(inner: dict[str, Any]) -> None:
        import torch

        order = Order.model_validate_json(inner["order"])
        torch.set_num_threads(1)
        watch(str(Path(order.store).parent / "marks"), order)
        work(order, device=torch.device("cpu"))

    order = Order.model_validate_json(config["orders"][0])
    TorchTrainer(
        loop, train_loop_config={"order": config["orders"][0]}, scaling_config=ScalingConfig(num_workers=1)
    ).fit()
    result = Store(order.store).get(order.stage)
    assert result is not None, "it was just trained"
    end = {"left": False, "failed": "", "paused": False, "again": ""}
    tune.report({"key": order.stage.key, "ended": True, "score": result.score, "done": True, **end})


def train_naively(run: Run, configure: Any, *, folder: str, **_: Any) -> None:
    """`cluster.tune_all` with the naive trainable; its trials ask for little, so that their workers find room."""
    searcher = StageSearcher(run, lambda stages: {"orders": configure(stages)["orders"]})
    Tuner(
        tune.with_resources(naive, PlacementGroupFactory([{"CPU": 0.01}])),
        tune_config=TuneConfig(search_alg=searcher, num_samples=-1),
        run_config=RunConfig(name="naive", storage_path=folder, verbose=0),
    ).fit()


def measured(way: str, models: int) -> list[float]:
    """The hand-overs of a chain, in seconds."""
    chain = ", ".join(f"[m{i}, m{i + 1}]" for i in range(models - 1))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chain.yaml"
        file.write_text(f"{lattice(models)}edges: [{chain}]\n")
        study = load(
            file,
            [f"resources.store={folder}/store", "resources.stages_at_once=1", "resources.cohort=1", "recipe.epochs=1"],
        )
        run = Run(prepare(study))
        run.refresh()
        if way == "naive":
            cluster.tune_all = train_naively
        else:
            vars(cluster)["Trial"] = Watched
        with run.on_ray(None):
            run.train()
        assert run.board.count("done") == models + 1, "every stage is trained"
        marks = [json.loads(line) for line in (Path(folder) / "marks").read_text().splitlines()]
        times = {(mark["event"], mark["key"]): mark["time"] for mark in marks}
        children = [row.stage for row in run.board.rows.values() if row.stage.teacher]
    return [times["step", s.key] - times["stored", s.teacher.key] for s in children if s.teacher]


def main() -> None:
    ways = {"in process": ("ours", 8), "nested, one worker": ("naive", 4)}
    rows: list[dict[str, Any]] = []
    for name, (way, models) in ways.items():
        seconds = measured(way, models)
        rows.append(
            {"way": name, "hand-overs": len(seconds), "median s": statistics.median(seconds), "worst s": max(seconds)}
        )
    ratio = rows[1]["median s"] / rows[0]["median s"]
    show("handover", rows, f"The nested way takes {ratio:.0f} times as long. Goal in process: a median under 0.25 s")


if __name__ == "__main__":
    main()
