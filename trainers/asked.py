"""A guide, and who wants to know what its head says: where nobody does, the head is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from trainers.outputs import Network, Outputs


class Asked:
    """A guide as stages ask it that are trained together, for some of which its features may be enough."""

    def __init__(self, network: Network, look: Callable[[Tensor], Outputs]) -> None:
        """`look`: how the network is asked."""
        self.network, self.look = network, look
        self._readers: set[Any] = set()  # those who read what its head says
        if not self.whole:
            # The network's own from the beginning: what is compiled would be so again when it became that.
            self.network.features_only = False

    @property
    def whole(self) -> bool:
        """Whether it says all that it has to say."""
        return bool(self._readers) or not hasattr(self.network, "features_only")

    @property
    def towers(self) -> frozenset[int]:
        """What it says of its head's towers: `keep_towers`, which grows with those who read more of them."""
        towers: frozenset[int] = getattr(self.network, "keep_towers", frozenset())
        return towers

    def read_by(self, who: Any) -> None:
        """Somebody reads what the head says, from now on."""
        self._readers.add(who)

    def leave(self, who: Any) -> None:
        """Somebody does no more."""
        self._readers.discard(who)

    def __call__(self, images: Tensor) -> Outputs:
        """(B, 3, H, W) -> what it says."""
        if self.whole:
            return self.look(images)
        self.network.features_only = True
        try:
            return self.look(images)
        finally:
            self.network.features_only = False
