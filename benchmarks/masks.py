"""What the masks of a whole COCO cost a study that learns from them, against reading its annotations without them.

A file of the size of train2017: 118,287 images and 860,001 annotations, each with one polygon of about 25 corners, or,
if it is a crowd, run lengths. `tapath plan` and `tapath run` read its annotations always, and then, for a model that
learns masks, its masks, of which they make a digest after checking each. Needs neither images nor Ray nor MLflow.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the package is not installed

import numpy as np
import torch
from table import lay_out, show

from trainers.data.annotations import load
from trainers.data.masks import packed_in
from trainers.data.split import Split, classes_of

QUICK = "--quick" in sys.argv
IMAGES, ANNOTATIONS, CORNERS, CROWDS = (1_000, 7_000, 25, 86) if QUICK else (118_287, 860_001, 25, 86)
WIDTH, HEIGHT = 640, 480


def write(path: Path) -> None:
    """Boxes of 8 to 300 pixels a side; corners to a hundredth of a pixel, as COCO has them."""
    rng = np.random.default_rng(0)
    across, down = ([f"{n / 100:.2f}".rstrip("0").rstrip(".") for n in range(100 * side)] for side in (WIDTH, HEIGHT))
    images = rng.integers(1, IMAGES + 1, ANNOTATIONS)
    with path.open("w") as file:
        names = [{"id": n, "file_name": f"{n:012}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, IMAGES + 1)]
        file.write(f'{{"images": {json.dumps(names)}, "categories": ')
        file.write(json.dumps([{"id": n + 1, "name": f"class {n}"} for n in range(80)]))
        file.write(', "annotations": [')
        for number, image in enumerate(images.tolist()):
            w, h = rng.integers(800, 30_000, 2).tolist()
            x, y = rng.integers(0, 100 * WIDTH - w), rng.integers(0, 100 * HEIGHT - h)
            crowd = number % CROWDS == 0
            if crowd:
                runs = [WIDTH * HEIGHT // 100] * 100
                mask = json.dumps({"counts": runs, "size": [HEIGHT, WIDTH]})
            else:
                corners = zip(
                    rng.integers(x, x + w, CORNERS).tolist(), rng.integers(y, y + h, CORNERS).tolist(), strict=True
                )
                mask = f"[[{', '.join(f'{across[a]}, {down[b]}' for a, b in corners)}]]"
            row = f'{{"segmentation": {mask}, "area": {w * h / 2e4}, "iscrowd": {int(crowd)}, "image_id": {image}, '
            row += f'"bbox": [{x / 100}, {y / 100}, {w / 100}, {h / 100}], "category_id": {number % 80 + 1}'
            file.write(f'{", " if number else ""}{row}, "id": {number + 1}}}')
        file.write("]}")


def measured(name: str, step: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """A line of the table, and what the step returns."""
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    started = time.perf_counter()
    found = step()
    seconds = time.perf_counter() - started
    line = {
        "step": name,
        "seconds": seconds,
        "peak MB": resident("VmHWM") - before,
        "kept MB": resident("VmRSS") - before,
    }
    return line, found


def resident(which: str) -> float:
    """MB of this process in memory: now (VmRSS) or at its peak (VmHWM)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return float(line.split()[1]) / 2**10


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances_train2017.json"
        write(path)
        size = path.stat().st_size / 2**20
        read, coco = measured("annotations", lambda: load(path))
        split = Split(coco, classes_of(coco), lambda _: torch.zeros(0), lambda: packed_in(path.read_bytes()))
        _ = split.boxes(0)
        rows = [read, measured("masks", lambda: split.has_masks)[0], measured("digest", lambda: split.masks_digest)[0]]
    for row in rows:
        row["/ annotations"] = row["seconds"] / read["seconds"]
    note = f"{IMAGES} images, {ANNOTATIONS} annotations, {size:.0f} MB; each step after those above it"
    (lay_out if QUICK else show)("masks", rows, note, "Goal: masks and digest together at most 2 / annotations")


if __name__ == "__main__":
    main()
