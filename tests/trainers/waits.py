"""What a GPU would have to be waited for, watched on a CPU: operators, methods, and copies of the host's numbers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ASKED = (
    "propose",
    "sample",
    "judge",
    "pool",
    "valuable",
    "detect",
)  # what a detector waits for by itself, once it is asked
WAITS = {  # operators whose result the host must know, at least its size
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique_consecutive",
    "unique_dim",
    "_unique",
    "_unique2",
    "bincount",
    "nms",
    "deform_nms",
}
READS = {"tolist", "numpy", "__array__", "cpu"}  # methods that fetch without asking an operator on a CPU


class Operators(TorchDispatchMode):
    """Counts the operators that a GPU would have to be waited for."""

    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS or (name == "repeat_interleave" and (kwargs or {}).get("output_size") is None):
            self.seen[name] += 1
        if name in ("_to_copy", "copy_") and between_devices(name, args, kwargs or {}):
            self.seen["copy"] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_") and masked(args[1]):
            self.seen["mask as index"] += 1
        return func(*args, **(kwargs or {}))


class Methods(TorchFunctionMode):
    """Counts what does not show as an operator on a CPU: methods that fetch, and numbers handed over one by one."""

    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS or name == "new_tensor" or (name == "tensor" and (kwargs or {}).get("device") is not None):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def between_devices(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a copy goes from one device to another while the host waits; for the host nothing is ever ready."""
    source, target = (args[0], kwargs.get("device")) if name == "_to_copy" else (args[1], args[0].device)
    if target is None or torch.device(target).type == source.device.type:
        return False
    behind = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
    return torch.device(target).type == "cpu" or not behind


def masked(indices: Any) -> bool:
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


@contextmanager
def watched(*detectors: nn.Module) -> Any:
    """-> what is waited for within, and how often. What one of the detectors is asked for counts as one wait."""
    seen: Counter[str] = Counter()

    def counted(name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            seen[name] += 1
            before = seen.copy()
            try:
                return ask(*args, **kwargs)
            finally:
                seen.clear()
                seen.update(before)

        return asked

    with ExitStack() as stack:
        for detector, name in itertools.product(detectors, ASKED):
            if hasattr(detector, name):
                stack.enter_context(patch.object(detector, name, counted(name, getattr(detector, name))))
        stack.enter_context(Methods(seen))
        stack.enter_context(Operators(seen))
        yield seen
