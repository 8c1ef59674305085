"""Where torch's random numbers are, to be put back there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Chance:
    """The state of the random numbers of the CPU, and of a GPU where `device` is one, as it is now."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def put_back(self) -> None:
        """Have the next numbers be those that came after this."""
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
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
