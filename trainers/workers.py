"""The workers of one stage: means over all of them, so that a loss does not depend on their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainers.turns import Turn, Turns, Wait

T = TypeVar("T")


def count() -> int:
    """How many workers train this stage."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def mean(x: Tensor) -> Tensor:
    """The mean of x over the workers, without gradient.

    DDP averages gradients, so a loss that is divided by a mean over workers has the gradient that one worker with
    the whole batch would have.
    """
    return total(x) / count() if count() > 1 else x.detach()


def total(x: Tensor) -> Tensor:
    """The sum of x over the workers, without gradient."""
    x = x.detach()
    if count() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x)
    return x


def largest(x: Tensor) -> Tensor:
    """Elementwise the largest x of any worker, without gradient."""
    x = x.detach()
    if count() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


def anywhere(here: bool, *, device: torch.device) -> bool:
    """Whether something is so at any worker; all ask at the same time. Waits for the device if there are several."""
    return largest(torch.tensor(float(here), device=device)).item() > 0 if count() > 1 else here


BUCKET = 1 << 23  # numbers that are sent at once


def average(tensors: Sequence[Tensor]) -> None:
    """Have every tensor be its mean over the workers, in place; all have the same ones in the same order."""
    if count() == 1:
        return
    bucket: list[Tensor] = []
    for number, tensor in enumerate(tensors):
        bucket.append(tensor)
        following = tensors[number + 1] if number + 1 < len(tensors) else None
        if following is not None and following.dtype == tensor.dtype and sum(x.numel() for x in bucket) < BUCKET:
            continue
        flat = torch.cat([x.flatten() for x in bucket])
        dist.all_reduce(flat)
        flat /= count()
        for mine, mean in zip(bucket, flat.split([x.numel() for x in bucket]), strict=True):
            mine.copy_(mean.view_as(mine))
        bucket = []


def gathered(mine: Any) -> list[Any]:
    """At the first worker what each has, in their order; at the others nothing."""
    if count() == 1:
        return [mine]
    each: list[Any] | None = [None] * count() if rank() == 0 else None
    dist.gather_object(mine, each)
    return each or []


def told(word: Any) -> Any:
    """What the first worker says; what the others have in that place does not count."""
    if count() == 1:
        return word
    words = [word]
    dist.broadcast_object_list(words)
    return words[0]


def agreed(work: Turns[T]) -> Turns[T]:
    """What the first of several workers comes to, who alone does the work: the others wait when it waits."""
    while True:
        now: Turn | Wait | None = None
        value: T | None = None
        if rank() == 0:
            try:
                now = next(work)
            except StopIteration as end:
                value = end.value
        now, value = told((now, value))
        if now is None:
            came: T = value
            return came
        yield now


def align(tensors: Iterable[Tensor]) -> None:
    """Give every worker the first one's values, in place."""
    if count() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def barrier() -> None:
    """Wait until every worker is here."""
    if count() > 1:
        dist.barrier()
