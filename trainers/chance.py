"""Where torch's random numbers are, to be put back there; and which networks draw some while they look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd


class Chance:
    """The state of the random numbers of the CPU, and of a GPU where `device` is one: as it is now, or as another's
    `state` has it, whatever kind of device that was on."""

    def __init__(self, device: torch.device, left: dict[str, Any] | None = None) -> None:
        self.device = device
        self.cpu = left["cpu"] if left else torch.get_rng_state()
        self.gpu = left["gpu"] if left else torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def state(self) -> dict[str, Any]:
        """Tensors alone."""
        return {"cpu": self.cpu, "gpu": self.gpu}

    def put_back(self) -> None:
        """Have the next numbers be those that came after this."""
        torch.set_rng_state(self.cpu)
        if self.gpu is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(self.gpu, self.device)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw as after this for a while, and go on as if nothing had been drawn."""
        now = Chance(self.device)
        self.put_back()
        try:
            yield
        finally:
            now.put_back()


def drawing(module: nn.Module) -> Iterator[nn.Module]:
    """Its parts that in training leave something out at random: dropout and stochastic depth."""
    from torchvision.ops import StochasticDepth  # seconds to import

    kinds = (_DropoutNd, StochasticDepth)
    return (one for one in module.modules() if isinstance(one, kinds) and one.p > 0)
