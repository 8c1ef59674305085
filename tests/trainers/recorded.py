"""A lane to a device that notes what happens on it, and where."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CPU = torch.device("cpu")


class Recorded:
    """`within`: whether what is computed now is on the lane. `events` are what was made ready and how many tensors were
    joined, which `joined` has."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self.within = False
        self.events: list[str] = []
        self.joined: list[Tensor] = []

    def ready(self, x: Tensor) -> Tensor:
        self.events.append(f"ready {tuple(x.shape)} {x.dtype} {'beside' if self.within else 'in the way'}")
        return x.clone()

    @contextmanager
    def beside(self) -> Iterator[None]:
        self.within = True
        yield
        self.within = False

    def join(self, *tensors: Tensor) -> None:
        assert not self.within
        self.events.append(f"join {len(tensors)}")
        self.joined += tensors
