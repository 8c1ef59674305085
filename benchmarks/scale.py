"""What the driver of a run needs for about 100, 1,000 and 10,000 stages, swept and not: seconds a stage, and memory.

The real run, with its frontier, its searcher's questions, its board and the lines that it prints, but without Ray's
loop and MLflow's writing (`orchestration.py` has these): each stage is started at once, tells of twelve epochs, and a
result of it is stored, which is not timed. Each size has a fresh process with Ray, MLflow and torch loaded, as the real
driver has them. Timed in processor seconds are the start, from the study to the first stage; what a stage takes from
the question that it answers to its end, at the median of each tenth of the run and in all; and the summary from which
reports are made. Memory is what was taken at most, and what of it is the process's own: the rest is pages of libraries,
which are there once for all processes of a machine. Goal: less than 1 GB of its own, and a stage of 10,000 takes no
more than one of 100.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from plan import study as lattice

# Models, of which 2^(models - 1) paths end in any of them; the third makes more than 10,000 stages.
SIZES = {"3 seeds": (6, 10, 13), "grid of 5": (6, 9, 12)}
MORE = {"3 seeds": "seeds: [0, 1, 2]\n", "grid of 5": "sweep: {LD.weight: [0.1, 0.2, 0.3, 0.4, 0.5]}\n"}
EPOCHS = 12


def peak() -> float:
    """MB of this process's memory at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def libraries() -> float:
    """MB of this process's memory that are pages of files: those of libraries, which are there once for all."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssFile:"))
    return int(line.split()[1]) * 1024 / 1e6


def entry(epoch: int, score: float) -> dict[str, float]:
    """What a stage tells after an epoch."""
    losses = {f"train/{name}": 1.0 / epoch for name in ("loss", "cls", "box", "dfl", "LD", "gradient")}
    return {"epoch": epoch, "seconds": 2.0 * epoch, "lr": 0.01, **losses, "val/AP": score, "val/AP50": score}


def measure(models: int, kind: str, folder: Path) -> dict[str, Any]:
    """Drive a run to its end in this process."""
    import torch

    from orchestrator import forecast, session
    from orchestrator.prepared import prepare
    from orchestrator.progress import Progress
    from orchestrator.study import load
    from orchestrator.underway import Run

    importlib.import_module("orchestrator.cluster")  # brings Ray, as a driver has it
    file = folder / "scale.yaml"
    file.write_text(lattice(models) + "controls: [alone]\n" + MORE[kind])
    loaded = peak()
    start = time.process_time()
    study = load(file, [f"resources.store={folder}/store", f"recipe.epochs={EPOCHS}"])
    run = Run(prepare(study))
    with Progress(run.board, out=io.StringIO(), err=io.StringIO(), live=False) as progress:
        run.changed, run.say = progress.changed, progress.say
        run.refresh()
        begun = time.process_time() - start
        taken = []
        while not run.over:
            start = time.process_time()
            (stage,) = run.next()
            run.started(stage.key)
            history = [entry(epoch, int(stage.key, 16) % 1000 / 1000) for epoch in range(1, EPOCHS + 1)]
            for one in history:
                run.epoch(stage.key, one)
            own = time.process_time() - start
            score, seconds = history[-1]["val/AP"], history[-1]["seconds"]
            facts: dict[str, Any] = {"metrics": {"val/AP": score}, "seconds": seconds, "device": "cpu"}
            run.prepared.store.put(stage, {"w": torch.ones(1)}, score=score, history=history, **facts)
            start = time.process_time()
            run.finished(stage.key)
            taken.append(own + time.process_time() - start)
    start = time.process_time()
    summary = session.summary_of(run.prepared, run.board, forecast.compared(run.board))
    size = len(json.dumps(summary)) / 1e6
    ended = time.process_time() - start
    tenth = max(1, len(taken) // 10)
    return {
        "study": kind,
        "stages": len(taken),
        "start s": begun,
        "a stage ms": 1000 * fmean(taken),
        "first tenth ms": 1000 * fmean(taken[:tenth]),
        "last tenth ms": 1000 * fmean(taken[-tenth:]),
        "summary s": ended,
        "summary MB": size,
        "all s": begun + sum(taken) + ended,
        "all ms a stage": 1000 * (begun + sum(taken) + ended) / len(taken),
        "loaded MB": loaded,
        "peak MB": peak(),
        "own MB": peak() - libraries(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=3, help="how many of the three, the smallest first")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(int(said.one[0]), said.one[1], Path(folder))))
        return
    from table import show

    rows = []
    for kind, sizes in SIZES.items():
        for models in sizes[: said.sizes]:
            command = [sys.executable, __file__, "--one", str(models), kind]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(answer.splitlines()[-1]))
    show(
        "scale",
        rows,
        "processor seconds. Goal: its own memory below 1 GB; a stage of 10,000 takes no more than one of 100",
    )


if __name__ == "__main__":
    main()
