"""What becomes of a step for which a device's memory is too small: the same step, on fewer images at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from trainers import workers
from trainers.chance import Chance
from trainers.norm import Statistics

if TYPE_CHECKING:
    from trainers.loop import Training

T = TypeVar("T")
# What the driver, Triton and libraries say that ask for memory themselves: cuBLAS, and cuDNN before 9 and since.
NO_ROOM = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
)


class OutOfMemory(RuntimeError):
    """Not even one image at once has room on the device."""


class Fewer(RuntimeError):
    """A worker ran out of memory, and all of its stage begin again after its last epoch with `micro_batch` images.

    The others may wait for what it has to say to a sum over all, so that none of them can go on from here.
    """

    def __init__(self, text: str, micro_batch: int) -> None:
        super().__init__(text, micro_batch)  # both, or it could not be sent from process to process
        self.text, self.micro_batch = text, micro_batch

    def __str__(self) -> str:
        return self.text


def sparing(training: Training, learn: Callable[[], T], *, images: int, where: str) -> T:
    """What `learn` returns, which learns from so many images; with half as many at once as often as it has to be.

    Neither weights nor optimizer may have been touched when it runs out of memory. What else a step changes is put back
    before the next try, so that it is the step that it would have been. Raises `OutOfMemory` that says what was tried,
    and `Fewer` if there are several workers.
    """
    before = Before(training)
    while True:
        try:
            return learn()
        except RuntimeError as error:
            if not is_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        # Not where the error is handled: it holds all that the step had made.
        now = min(training.micro_batch or images, images)
        if now == 1:
            raise OutOfMemory(f"out of memory in {where}, {now} image at once: {advice(training)} ({reason})")
        half = -(-now // 2)
        text = f"out of memory in {where} with {now} images at once; from now on {half} at once"
        if workers.count() > 1:
            raise Fewer(f"{text} for each worker; all go on from the last epoch", half)
        before.restore(training)
        training.micro_batch = half
        training.say(text)


def advice(training: Training) -> str:
    """What somebody could do about it."""
    share = training.recipe.batch // workers.count()
    return (
        f"fewer there cannot be; of a batch a worker has {share}, and its losses are computed for all of them. "
        "What helps is a device with more memory, more workers, precision bf16, smaller images (resize, crop) or a "
        "smaller batch"
    )


def is_of_memory(error: RuntimeError) -> bool:
    """Whether the device had no room left."""
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in NO_ROOM)


def if_room(call: Callable[[], T]) -> T | None:
    """What a call returns; None where the device has no memory for it."""
    try:
        return call()
    except RuntimeError as error:
        if not is_of_memory(error):
            raise
    # Not where the error is handled: it holds all that the call had made.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


class Before:
    """What a step changes before weights and optimizer: statistics of batch norms, random numbers, and what was found
    of the distillation losses."""

    def __init__(self, training: Training) -> None:
        self.statistics = Statistics(training.task)
        self.chance = Chance(training.device)
        self.unchecked = dict(training.unchecked)
        self.balance = training.balance.state()

    def restore(self, training: Training) -> None:
        """Put it back, and let go of what the failed step had made."""
        self.statistics.put_back()
        self.chance.put_back()
        training.unchecked = dict(self.unchecked)
        training.balance.restore(copy.deepcopy(self.balance))  # its lists grow, and this may be needed again
        training.optimizer.zero_grad(set_to_none=True)
        training.batches.forget()
        if training.device.type == "cuda":
            torch.cuda.empty_cache()
