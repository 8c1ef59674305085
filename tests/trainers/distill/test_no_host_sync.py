"""No loss makes a training step wait for the device, but where this file says so and why.

On a GPU the host runs ahead of the device. Whatever it has to know a number for (a branch, a size that depends on
values, as of `nonzero` or of a mask used as an index) makes it wait until everything before has been computed. All that
goes through operators and methods that can be watched on a CPU as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainers.test_every_loss import OFFERED, Pair

# By loss (with arguments that it needs to be seen whole): how often a step waits for what, and why that has to be.
EXPECTED: dict[str, dict[str, tuple[int, str]]] = {
    "KD": {},
    "LD": {},
    "PKD": {},
}
ARGUMENTS: dict[str, dict[str, Any]] = {}

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
        if name in ("index", "index_put", "index_put_", "_index_put_impl_") and masked(args[1]):
            self.seen["mask as index"] += 1
        return func(*args, **(kwargs or {}))


class Methods(TorchFunctionMode):
    """Counts the methods of tensors that do not show as operators on a CPU."""

    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READS:
            self.seen[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def masked(indices: Any) -> bool:
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


@contextmanager
def watched() -> Any:
    """-> what is waited for within, and how often."""
    seen: Counter[str] = Counter()
    with Methods(seen), Operators(seen):
        yield seen


@pytest.mark.parametrize("name", sorted(OFFERED))
def test_a_step_waits_only_for_what_is_written_here(name: str) -> None:
    pair = Pair(name, **ARGUMENTS.get(name, {}))
    said = pair.said()
    with watched() as seen:
        pair.value(*said).backward()
    assert dict(seen) == {what: times for what, (times, _) in EXPECTED[name].items()}


def test_every_loss_is_written_here_and_every_wait_has_a_reason() -> None:
    assert set(EXPECTED) == set(OFFERED) >= set(ARGUMENTS)
    assert all(why for waits in EXPECTED.values() for _, why in waits.values())


def nms(x: Tensor) -> Any:
    from torchvision.ops import nms

    return nms(torch.stack([x, x, x + 1, x + 1], dim=1), x, 0.5)


PLANTED: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "a number": ("_local_scalar_dense", lambda x: x.sum().item()),
    "a conversion": ("_local_scalar_dense", lambda x: float(x.max())),
    "a branch": ("_local_scalar_dense", lambda x: 1 if x.sum() > 0 else 0),
    "a comparison": ("equal", lambda x: torch.equal(x, x)),
    "places": ("nonzero", lambda x: x.nonzero()),
    "places, by condition alone": ("nonzero", lambda x: torch.where(x > 0)),
    "a mask that is read": ("mask as index", lambda x: x[x > 0]),
    "a mask that is written": ("mask as index", lambda x: x.clone().index_put((x > 0,), torch.zeros(()))),
    "a mask that is assigned to": ("mask as index", lambda x: x.clone().__setitem__(x > 0, torch.ones(2))),
    "a selection": ("masked_select", lambda x: x.masked_select(x > 0)),
    "repetition": ("repeat_interleave", lambda x: x.repeat_interleave(x.long())),
    "sorted values": ("_unique2", lambda x: x.unique()),
    "counts": ("bincount", lambda x: x.long().bincount()),
    "suppression": ("nms", nms),
    "a list": ("tolist", lambda x: x.tolist()),
    "an array": ("numpy", lambda x: x.numpy()),
    "a copy": ("cpu", lambda x: x.cpu()),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_wait_is_seen(planted: str) -> None:
    name, work = PLANTED[planted]
    with watched() as seen:
        work(torch.tensor([0.0, 1.0, 2.0]))
    assert seen[name] >= 1


def test_what_needs_no_number_is_not_counted() -> None:
    x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    with watched() as seen:
        rows = x[torch.tensor([0, 2])] + x.index_select(0, torch.tensor([1])) + x.masked_fill(x > 1, 0).sum()
        rows = rows * torch.where(x > 0, x, 1).sum() + x.repeat_interleave(2).topk(2).values
        rows.sum().backward()
    assert not seen
