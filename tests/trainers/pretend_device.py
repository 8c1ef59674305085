"""A device that is not there: numbers stay on the CPU, and whoever mixes them with the CPU's is told, as by a GPU.

It is torch's backend for others to fill, under a name of our own. A tensor on it wraps one on the CPU, where every
operation runs. It must be there before a process computes its first gradient, and is then what torch calls the
accelerator: hence the tests' fixture `elsewhere`, a process of its own.
"""

from collections.abc import Iterable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as trees
from torch.utils import backend_registration

NAME = "pretended"
ATEN = torch.ops.aten
COPIES = {ATEN.copy_, ATEN._to_copy}  # from one device to another
INDEXED = {ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_, ATEN._unsafe_index}
# The way of `torch.tensor`, and what torch would make empty and enlarge later, of which a wrapper learns nothing.
ALONE = (ATEN._to_copy, ATEN.arange, ATEN.randperm, ATEN.linspace, ATEN.eye)
CPU = torch.device("cpu")


class Pretended(Tensor):
    """A tensor on the device, with its numbers in `inner`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "Pretended":
        made: Pretended = Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = real
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.inner!r})"

    def tolist(self) -> Any:
        """Its numbers, as a GPU gives them; torch's own method refuses wrappers."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, *args, **(kwargs or {}))


def run(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation of which a tensor, or what is to be made, is on the device."""
    kind = func.overloadpacket
    if kind not in COPIES:
        values = trees.tree_leaves((args, kwargs))
        if kind in INDEXED:  # with what may be on the CPU
            free = {id(x) for x in trees.tree_leaves(args[1]) if not isinstance(x, Pretended)}
            values = [x for x in values if id(x) not in free]
        refuse_mixtures(func, values)
    asked = kwargs.get("device")
    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
    real = trees.tree_map_only(Pretended, lambda x: x.inner, (args, kwargs))
    found = func(*real[0], **real[1])
    if asked is not None and torch.device(asked).type != NAME:
        return found
    known = {id(x.inner): x for x in trees.tree_leaves((args, kwargs)) if isinstance(x, Pretended)}
    assert all(x.shape == x.inner.shape for x in known.values()), f"{func} changes the shape of its argument"
    # What was changed in place stays the tensor that it was.
    return trees.tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else Pretended(x), found)


def refuse_mixtures(func: Any, values: Iterable[Any]) -> None:
    """Raise `RuntimeError` if some tensors are on the device and others are not; single numbers may be anywhere."""
    tensors = [x for x in values if isinstance(x, Tensor)]
    strangers = [tuple(x.shape) for x in tensors if not isinstance(x, Pretended) and x.dim()]
    if strangers and len(strangers) < len(tensors):
        raise RuntimeError(f"{func} reads tensors of the CPU beside others: {strangers}")


class Module:
    """What torch wants to know of a device: there is one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(backend_registration._DummyBackendModule(), name)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def device() -> torch.device:
    """The device, in a process where `begin` made it."""
    return torch.device(NAME, 0)


def begin() -> None:
    """Make the device."""
    torch.set_num_threads(1)
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    every, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(run, "PrivateUse1")
    for kind in ALONE:
        for overload in (getattr(kind, name) for name in kind.overloads() if not name.endswith("out")):
            aten.impl(overload.name(), partial(run, overload), "PrivateUse1")
    LIBRARIES.extend((every, aten))


def serve(connection: Connection) -> None:
    """Make the device, and call there what comes, as (function, arguments): the answer is sent, or what is raised."""
    begin()
    while True:
        function, args = connection.recv()
        try:
            connection.send(function(*args))
        except Exception as error:
            connection.send(error)


LIBRARIES: list[torch.library.Library] = []  # forget what they registered when they go
