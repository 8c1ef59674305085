"""How well each detector learns the demo's digits in minutes on one core. Goal: about as well as the demo's teacher.

One recipe for all (that of the demo), but for the learning rate, which is each detector's own; the sizes are the
demo's teacher's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from table import RESULTS, show

from orchestrator.study import load
from trainers import build, detectors
from trainers.call import Call
from trainers.evaluate import measure
from trainers.feeding import batches
from trainers.loop import Training
from trainers.order import Order
from trainers.spec import Model, Stage
from trainers.task import Task
from trainers.teaching import no_lesson

DEMO = Path(__file__).parent.parent / "search_spaces" / "demo.yaml"
SMALL = {"channels": 32, "convs": 2, "extra": 0, "hidden": 128, "sampled": 64}
OWN: dict[str, tuple[dict[str, Any], float]] = {  # arguments, and the learning rate
    "GFL": ({"reg_max": 8}, 0.008),
    "GFLv2": ({"reg_max": 8}, 0.008),
    "ATSS": ({}, 0.008),
    "ATSS with distributions": ({"reg_max": 8}, 0.008),
    "RetinaNet": ({"tower_norm": "group"}, 0.004),
    "RetinaNet with distributions": ({"tower_norm": "group", "reg_max": 8}, 0.004),
    "FCOS": ({}, 0.008),
    "FCOS with distributions": ({"reg_max": 8}, 0.008),
    "RepPoints": ({}, 0.008),
    "FasterRCNN": ({"extra": 1}, 0.002),
    "MaskRCNN": ({"extra": 1}, 0.002),
    "MimicDet": ({"mined": 16, "sampled": 16, "mimicked": 8}, 0.004),
}


def learn(name: str) -> dict[str, Any]:
    """Train one, measure it."""
    study = load(DEMO)
    data = build.dataset(study.data)
    own, lr = OWN[name]
    call = Call(name=name.split()[0])
    knobs = call.knobs(detectors)
    args = {**{key: value for key, value in SMALL.items() if key in knobs}, **own}
    model = Model(detector=Call(name=call.name, args=args).complete(detectors), backbone=study.models["large"].backbone)
    recipe = study.recipe.model_copy(update={"lr": lr})
    stage = Stage(model=model, data=build.contents(study.data), recipe=recipe)
    order = Order(stage=stage, data=study.data, store="unused")
    torch.manual_seed(0)
    student = build.detector(stage)
    cpu = torch.device("cpu")
    training = Training(Task(student, {}), recipe, batches(order, data, student), device=cpu)
    start = time.perf_counter()
    for _ in training.epochs(no_lesson):
        pass
    seconds = time.perf_counter() - start
    found = measure(student, data, recipe, device=cpu)
    parameters = sum(p.numel() for p in student.parameters())
    return {
        "detector": name,
        "AP": found["AP"],
        "AP50": found["AP50"],
        "parameters": parameters,
        "lr": lr,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(OWN))
    names = parser.parse_args().names
    torch.set_num_threads(1)
    file = RESULTS / "learn.json"
    before = {row["detector"]: row for row in json.loads(file.read_text())["rows"]} if file.exists() else {}
    for name in names:
        before[name] = learn(name)
        print(before[name], flush=True)
    rows = [before[name] for name in OWN if name in before]
    show(
        "learn", rows, "One seed; ten epochs of the demo's 1200 images. What was not named is as it was measured before"
    )


if __name__ == "__main__":
    main()
