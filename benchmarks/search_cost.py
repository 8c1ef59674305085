"""What a whole path search costs, with 4, 5 and 6 models of which any may teach any weaker one, on two slots.

Four ways to the best path from the largest to the smallest, on the demo's digits:

- a shell script: one training after another, each a process of its own; every path trains its assistants and its
  student anew, and only the root teacher is trained once;
- Ray Tune as one would write it first: a trial a path, which fits a TorchTrainer for each training, two at a time;
- `tapath run` with exhaustive search, and with best_predecessor, with cohorts and with each stage trained alone.

Every training has one thread and does the same work in the same code. Counted are the seconds of training and
measuring that each noted, processor seconds of all processes, Ray, MLflow and the import of torch with them, and the
time from the start of the first process to the end of the last. Goals at 6 models, against the script: exhaustive half
the seconds and a quarter of the time, best_predecessor a fifth of the seconds.

    python benchmarks/search_cost.py --models 4 --epochs 1 --images 64
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from processor import Processor

ROOT = Path(__file__).parents[1]
SLOTS = 2
OURS: dict[str, list[str]] = {  # what is set in the study
    "ours, exhaustive, each stage alone": ["search=exhaustive", "resources.cohort=1"],
    "ours, exhaustive": ["search=exhaustive"],
    "ours, best_predecessor, each stage alone": ["search=best_predecessor", "resources.cohort=1"],
    "ours, best_predecessor": ["search=best_predecessor"],
}
WAYS = ("shell script", "Ray Tune", *OURS)


def text(models: int, epochs: int, images: int) -> str:
    """A study of so many models, each about half as costly as the one before."""
    lines = [f"data: {{Digits: {{train: {images}, val: 32}}}}", "models:"]
    for i in range(models):
        place = i / (models - 1)
        width, channels = round(40 * (4 / 40) ** place), 8 * round(6 - 5 * place)
        backbone = f"{{TinyResNet: {{width: {width}, blocks: {2 if place < 0.5 else 1}}}}}"
        detector = f"{{GFL: {{channels: {channels}, convs: {2 if place < 0.5 else 1}, extra: 0, reg_max: 8}}}}"
        lines.append(f"  m{i}: {{detector: {detector}, backbone: {backbone}}}")
    recipe = f"{{epochs: {epochs}, batch: 16, optimizer: AdamW, lr: 0.008, schedule: OneCycle, warmup: 0, flip: 0}}"
    losses = "[{LD: {weight: 0.03, vlr_weight: 0, normaliser: per_image}}, {KD: {weight: 0.5}}]"
    resources = f"{{cpus: 1, evaluate_every: {epochs}, stages_at_once: {SLOTS}}}"
    rest = [f"recipe: {recipe}", f"distill: {losses}", "controls: []", f"resources: {resources}", ""]
    return "\n".join([*lines, *rest])


class Took(NamedTuple):
    """What a way took, and what it found."""

    trainings: int
    seconds: float  # of training and measuring, as each noted
    cpu: float
    makespan: float
    scores: Mapping[str, float]  # by path


def timed(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command; -> processor seconds of all its processes, and seconds."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        with Processor(process.pid) as used:
            code = process.wait()
    if code:
        raise RuntimeError(f"{shlex.join(command)} ended with {code}:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return used.seconds, time.perf_counter() - start


# One path after another, each on its own


def trainings(prepared: Any, folder: Path) -> dict[str, list[Path]]:
    """The orders of each path's trainings below the root teacher, as files; all of a path share a store, which nobody
    else has. And that of the teacher itself, by the name `teacher`."""
    from trainers.order import Order

    lattice, orders = prepared.lattice, dict[str, list[Path]]()
    teacher = next(lattice.stage(lattice.paths()[0], 0).lineage)
    below = {str(path): list(lattice.stage(path, 0).lineage)[1:] for path in lattice.paths()}
    for number, (name, stages) in enumerate({"teacher": [teacher], **below}.items()):
        store = folder / f"path{number}"
        orders[name] = []
        for stage in stages:
            order = Order(
                stage=stage,
                data=prepared.study.data,
                store=str(store),
                evaluate_every=prepared.study.resources.evaluate_every,
            )
            orders[name].append(folder / f"path{number}-{len(orders[name])}.json")
            orders[name][-1].write_text(order.model_dump_json())
    return orders


def script(orders: Mapping[str, Sequence[Path]], file: Path) -> list[str]:
    """Write the shell script; -> how it is run."""
    lines = ["set -e"]
    for name, own in orders.items():
        store = own[0].with_name(own[0].name.partition("-")[0])
        lines += [] if name == "teacher" else [f"cp -r {own[0].with_name('path0')} {store}"]
        lines += [shlex.join([sys.executable, __file__, "--order", str(order)]) for order in own]
    file.write_text("\n".join([*lines, ""]))
    return ["sh", str(file)]


def train(file: str) -> None:
    """What a line of the script does, and what a worker of Ray Train does."""
    import torch

    from trainers.order import Order
    from trainers.worker import work

    torch.set_num_threads(1)
    work(Order.model_validate_json(Path(file).read_text()), device=torch.device("cpu"))


def tune_paths(listed: str) -> None:
    """Ray Tune as one would write it first. A trial asks for next to no CPU, or its own workers would have none."""
    from ray import init, tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    orders: dict[str, list[str]] = json.loads(Path(listed).read_text())
    folder = str(Path(listed).parent / "ray")

    def loop(config: dict[str, Any]) -> None:
        train(config["order"])

    def fit(order: str) -> None:
        scaling, run = ScalingConfig(num_workers=1), RunConfig(storage_path=folder)
        TorchTrainer(loop, train_loop_config={"order": order}, scaling_config=scaling, run_config=run).fit()

    def path(config: dict[str, Any]) -> None:
        for order in orders[config["path"]]:
            fit(order)
        tune.report({"done": True})

    init(address="local", num_cpus=SLOTS)
    fit(orders.pop("teacher")[0])
    for own in orders.values():
        store = own[0].partition("-")[0]
        shutil.copytree(Path(store).with_name("path0"), store)
    tuner = tune.Tuner(
        tune.with_resources(path, tune.PlacementGroupFactory([{"CPU": 0.01}])),
        param_space={"path": tune.grid_search(list(orders))},
        tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS),
        run_config=tune.RunConfig(storage_path=folder),
    )
    assert not tuner.fit().errors


def apart(way: str, study: Path, folder: Path) -> Took:
    """The script, or Ray Tune."""
    from orchestrator.prepared import prepare
    from orchestrator.study import load
    from trainers.order import Order
    from trainers.store import Store

    orders = trainings(prepare(load(study, [f"resources.store={folder}/none"])), folder)
    if way == "shell script":
        command = script(orders, folder / "search.sh")
    else:
        (folder / "orders.json").write_text(json.dumps({name: [str(o) for o in own] for name, own in orders.items()}))
        command = [sys.executable, __file__, "--tune", str(folder / "orders.json")]
    cpu, makespan = timed(command, folder)
    scores, seconds = dict[str, float](), 0.0
    for name, own in orders.items():
        for file in own:
            order = Order.model_validate_json(file.read_text())
            result = Store(order.store).get(order.stage)
            assert result is not None, "it was trained"
            scores[name], seconds = result.score, seconds + result.seconds
    del scores["teacher"]
    return Took(sum(map(len, orders.values())), seconds, cpu, makespan, scores)


# With us


def ours(sets: Sequence[str], study: Path, folder: Path) -> Took:
    places = [f"resources.store={folder}/store", f"resources.runs={folder}/runs"]
    places.append(f"resources.tracking=sqlite:///{folder}/mlflow.db")
    words = [word for one in (*sets, *places) for word in ("--set", one)]
    cpu, makespan = timed([sys.executable, "-m", "orchestrator", "run", str(study), *words], folder)
    (file,) = (folder / "runs").rglob("report.json")
    report = json.loads(file.read_text())
    stages = report["cost"]["stages"]
    seconds = sum(stage["seconds"] for stage in stages)
    scores = {" > ".join(one["path"]): one["score"] for one in report["answers"][0]["ranking"]}
    return Took(len(stages), seconds, cpu, makespan, scores)


def measure(models: int, ways: Sequence[str], epochs: int, images: int) -> list[dict[str, Any]]:
    """A row for each way, and what it is in parts of the first."""
    rows: list[dict[str, Any]] = []
    took: dict[str, Took] = {}
    for way in ways:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            study = folder / "search.yaml"
            study.write_text(text(models, epochs, images))
            own = took[way] = ours(OURS[way], study, folder) if way in OURS else apart(way, study, folder)
        first = took[ways[0]]
        best = max(own.scores, key=own.scores.__getitem__)
        known = max((one.scores for one in took.values()), key=len)  # who has trained all paths
        rows.append(
            {
                "models": models,
                "way": way,
                "trainings": own.trainings,
                "seconds": own.seconds,
                "cpu seconds": own.cpu,
                "makespan": own.makespan,
                "times less seconds": first.seconds / own.seconds,
                "times less cpu": first.cpu / own.cpu,
                "times shorter": first.makespan / own.makespan,
                "best path": best,
                "regret": max(known.values()) - known[best],
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def planned(models: int, epochs: int, images: int) -> str:
    """How many trainings each way needs, and how many times less FLOPs of them than a path at a time."""
    from orchestrator.plan import pretend
    from orchestrator.prepared import prepare
    from orchestrator.study import load

    said = []
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "search.yaml"
        study.write_text(text(models, epochs, images))
        for way, sets in OURS.items():
            if "resources.cohort=1" in sets:
                continue  # the same trainings
            prepared = prepare(load(study, [f"resources.store={folder}/none", *sets]))
            lattice, cost = prepared.lattice, prepared.costs.relative
            lineages = [list(lattice.stage(path, 0).lineage) for path in lattice.paths()]
            apart = [lineages[0][0], *(stage for lineage in lineages for stage in lineage[1:])]
            own = {node.stage.key: node.stage for node in pretend(prepared).wanted()}
            less = sum(map(cost, apart)) / sum(map(cost, own.values()))
            said.append(f"{way} {len(own)} ({less:.2f} times less FLOPs)")
    return f"{models} models, planned trainings: each path on its own {len(apart)}, {', '.join(said)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[4, 5, 6])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--order", help=argparse.SUPPRESS)
    parser.add_argument("--tune", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.order:
        train(said.order)
    elif said.tune:
        tune_paths(said.tune)
    else:
        from table import show

        rows = [row for number in said.models for row in measure(number, said.ways, said.epochs, said.images)]
        notes = [
            f"{said.epochs} epochs of {said.images} images. Seconds of training and measuring; of the processor, with",
            "the start of processes; compared with the first way. Regret: what the path found lacks to the best.",
            *(planned(number, said.epochs, said.images) for number in said.models),
            "Goals at 6 models: exhaustive 2 times less and 4 times shorter, best_predecessor 5 times less",
        ]
        show("search_cost", rows, *notes)


if __name__ == "__main__":
    main()
