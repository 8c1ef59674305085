"""One training step and one inference of each detector, against torchvision's own where it exists. Goal: not slower.

Same backbone, same images, in turns in one process; the memory of each in a process of its own. Needs neither Ray nor
MLflow: on a machine with a GPU it runs at the size of the papers.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the package is not installed

import torch
import torch.multiprocessing as mp
from table import show
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from trainers import backbones, detectors, weights
from trainers.call import Call
from trainers.outputs import Truth

CLASSES = 80
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DEPTH, SIDES, BATCH = (50, (800, 1344), 4) if GPU else (18, (256, 320), 2)
ROUNDS, WARM = (30, 5) if GPU else (5, 1)
RIVALS: dict[str, dict[str, Any]] = {  # what torchvision has, and how ours becomes the same
    "RetinaNet": {"conventions": "torchvision", "extra_from": "output"},
    "FCOS": {"conventions": "torchvision", "score_threshold": 0.2},
    "FasterRCNN": {"conventions": "torchvision"},
    "MaskRCNN": {"conventions": "torchvision"},
}
OURS = ("GFL", "GFLv2", "ATSS", "RetinaNet", "FCOS", "RepPoints", "MimicDet", "FasterRCNN", "MaskRCNN")


def images() -> torch.Tensor:
    return torch.rand(BATCH, 3, *SIDES, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def truth() -> Truth:
    """Eight boxes an image, 16 to 200 pixels wide, whose masks fill them."""
    generator = torch.Generator().manual_seed(1)
    boxes = []
    for _ in range(BATCH):
        side = 16 + 184 * torch.rand(8, 2, generator=generator)
        corner = torch.rand(8, 2, generator=generator) * (torch.tensor(SIDES[::-1]) - side).clamp(min=0)
        boxes.append(torch.cat([corner, corner + side], dim=1))
    labels = [torch.randint(0, CLASSES, (8,), generator=generator) for _ in boxes]
    y, x = torch.arange(SIDES[0])[:, None], torch.arange(SIDES[1])
    masks = [
        torch.stack([(x >= x1) & (x < x2) & (y >= y1) & (y < y2) for x1, y1, x2, y2 in one.tolist()]) for one in boxes
    ]
    sizes = [SIDES] * BATCH
    return Truth(boxes, labels, sizes, list(range(BATCH)), [(1.0, 1.0)] * BATCH, masks).to(DEVICE)


def ours(name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A training step and an inference of our detector, with torchvision's weights where it has one."""
    call = Call(name=name, args=RIVALS.get(name, {})).complete(detectors)
    torch.manual_seed(0)
    resnet = Call(name="ResNet", args={"depth": DEPTH}).complete(backbones)
    model = call.of(detectors, resnet.of(backbones), CLASSES)
    if name in RIVALS:
        model.load_state_dict(weights.fitted(rival(name).state_dict(), model, part="detector"))
    model.to(DEVICE)
    model.backbone.freeze(1)
    model.backbone.fix_norm()
    batch, real = images(), truth()

    def step() -> None:
        outputs = model.train()(batch)
        losses = model.losses(outputs, model.assign(outputs, real))
        torch.stack(list(losses.values())).sum().backward()
        model.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.no_grad():
            model.eval().detect(model(batch), real.sizes)

    return step, infer


def rival(name: str, *, depth: int = DEPTH, sides: tuple[int, int] = SIDES) -> torch.nn.Module:
    """torchvision's model of that name, which resizes nothing here."""
    torch.manual_seed(0)
    sizes = {"min_size": min(sides), "max_size": max(sides)}
    if name in ("FasterRCNN", "MaskRCNN"):
        backbone = resnet_fpn_backbone(backbone_name=f"resnet{depth}", weights=None, trainable_layers=3)
        return getattr(detection, name)(backbone, CLASSES + 1, **sizes)
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}",
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return getattr(detection, name)(backbone, CLASSES, **sizes)


def theirs(name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A training step and an inference of torchvision's."""
    model = rival(name).to(DEVICE)
    batch, real = list(images()), truth()
    first = 1 if name in ("FasterRCNN", "MaskRCNN") else 0
    targets = [
        {"boxes": boxes, "labels": labels + first, "masks": masks.byte()}
        for boxes, labels, masks in zip(real.boxes, real.labels, real.masks or [], strict=True)
    ]

    def step() -> None:
        torch.stack(list(model.train()(batch, targets).values())).sum().backward()
        model.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.no_grad():
            model.eval()(batch)

    return step, infer


def seconds(work: Callable[[], Any]) -> float:
    """On a CPU those of this process alone, so that others that are busy do not count."""
    clock = time.perf_counter if GPU else time.process_time
    start = clock()
    work()
    if GPU:
        torch.cuda.synchronize()
    return clock() - start


def peak(which: str, name: str) -> float:
    """MB that a training step adds at its peak, measured in a process of its own.

    There glibc gives back at once what is freed. Else memory that earlier work left to the process hides a part of the
    peak, and what malloc keeps adds to it.
    """
    os.environ.update(MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (which, name))


def _peak(which: str, name: str) -> float:
    torch.set_num_threads(1)
    step, _ = theirs(name) if which == "torchvision" else ours(name)
    for _ in range(2):  # what is made once, at first use, is not a step's
        step()
    gc.collect()
    if GPU:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """MB of this process in memory: now (VmRSS) or at its peak (VmHWM)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return float(line.split()[1]) / 2**10


def compare(name: str) -> dict[str, Any]:
    """A line of the table."""
    compared = name in RIVALS
    works = [*ours(name), *(theirs(name) if compared else ())]
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS + WARM):
        for times, work in zip(taken, works, strict=True):
            times.append(seconds(work))
    taken = [times[WARM:] for times in taken]
    line: dict[str, Any] = {"detector": name}
    for number, what in enumerate(("step", "inference")):
        line[f"{what} ms"] = 1000 * statistics.median(taken[number])
        ratio = [a / b for a, b in zip(taken[number], taken[number + 2], strict=True)] if compared else []
        line[f"{what} / torchvision's"] = statistics.median(ratio) if compared else "-"
    line["peak MB"] = peak("ours", name)
    line["peak / torchvision's"] = line["peak MB"] / peak("torchvision", name) if compared else "-"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=OURS)
    names = parser.parse_args().names
    torch.set_num_threads(1)
    note = f"ResNet-{DEPTH}, {BATCH} images of {SIDES[0]} x {SIDES[1]}, {CLASSES} classes, median of {ROUNDS}"
    note += "" if GPU else "; times are those of one thread's CPU"
    goal = (
        "Goal: at most 1.0, but for noise. At inference torchvision's Mask R-CNN draws masks too, ours does not; in "
        "training our norms learn their scales, for which the backbone keeps more, and torchvision's do not"
    )
    show("detector_step", [compare(name) for name in names], note, goal)


if __name__ == "__main__":
    main()
