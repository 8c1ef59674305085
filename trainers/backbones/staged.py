"""What all backbones have in common: stages that can be frozen, and batch norms that can keep still."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import nn

from trainers.norm import freeze, still


class Staged(nn.Module, ABC):
    """A network of stages, each half as fine as the one before; a subclass has `channels`, `strides` and `stages`."""

    channels: tuple[int, ...]  # of each map, finest first
    strides: tuple[int, ...]  # pixels a cell of each map; each twice the one before

    def __init__(self) -> None:
        super().__init__()
        self.frozen: list[nn.Module] = []
        self.fixed = False

    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """What `freeze` counts, from the image on; the first holds the stem as well."""

    def freeze(self, stages: int) -> None:
        """The first parts keep weights and statistics, and leave nothing out at random: they give the same maps every
        time; 0: none do. Raises `Invalid` if there are not so many."""
        self.frozen = freeze(self.parts(), stages)
        self._keep_still()

    def fix_norm(self) -> None:
        """All batch norms keep their running statistics; gamma and beta learn where they are not frozen."""
        self.fixed = True
        self._keep_still()

    def train(self, mode: bool = True) -> Self:
        """As always, but what keeps still stays so."""
        super().train(mode)
        self._keep_still()
        return self

    def _keep_still(self) -> None:
        for part in self.frozen:
            part.eval()
        if self.fixed:
            still([self])
