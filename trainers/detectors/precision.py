"""The small parts of a network that need more precision than autocast would give them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """No autocast on the device of x; on a device that has none, such as `meta`, nothing."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext()
