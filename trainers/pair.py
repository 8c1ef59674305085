"""Whether torch and torchvision are a pair: an operator of torchvision's own runs, on a GPU too if there is one."""

from __future__ import annotations

from typing import Any

import torch
import torchvision

OVERLAPPING = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]]


def seen() -> dict[str, Any]:
    """Versions, and which of three boxes the operator kept on each device: [0, 2]. Raises what a broken pair does."""
    kept = {"cpu": _kept(torch.device("cpu"))}
    there = gpus()
    for i in range(there):
        kept[f"cuda:{i} {torch.cuda.get_device_name(i)}"] = _kept(torch.device("cuda", i))
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": torch.version.cuda,
        "gpus": there,
        "right": all(one == [0, 2] for one in kept.values()),
        "kept": kept,
    }


def gpus() -> int:
    """How many torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _kept(device: torch.device) -> list[int]:
    boxes, scores = torch.tensor(OVERLAPPING, device=device), torch.tensor([0.9, 0.8, 0.7], device=device)
    found: list[int] = torchvision.ops.nms(boxes, scores, 0.5).tolist()
    return found
