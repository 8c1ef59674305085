"""What is known of a batch before the student looks at it: by detectors whose assignment reads no more than shapes.

How many locations answer for a box the host has to wait for. Asked after the student, it would wait until a GPU is
through with teacher and student, which would then wait for the host in turn. So it is asked before, and on the lane by
which the batch came, where nothing else is under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from trainers.outputs import Network, Outputs, Targets, Truth
from trainers.within import rebuilt, said


class Foresight:
    """Targets from the second batch of a size on, once it is known which maps a student makes of it.

    A loss that looks for something where only shapes are read has a method `foresee`, which keeps it in the targets.
    """

    def __init__(self, student: Network) -> None:
        self.student = student
        self.shapes: dict[tuple[int, ...], Outputs] = {}  # by the shape of the images

    def targets(self, images: Tensor, truth: Truth, losses: Iterable[Any]) -> Targets | None:
        """Those of a batch, with all that the losses foresee; None if they cannot be known yet."""
        shapes = self.shapes.get(tuple(images.shape))
        if shapes is None:
            return None
        with truth.lane.beside() if truth.lane else nullcontext():
            targets: Targets = self.student.assign(shapes, truth)
            for loss in losses:
                if hasattr(loss, "foresee"):
                    loss.foresee(shapes, targets)
        if truth.lane:
            truth.lane.join(*_found(targets))
        return targets

    def note(self, images: Tensor, outputs: Outputs) -> None:
        """See which maps the student makes of images."""
        if getattr(self.student, "by_shape", False) and tuple(images.shape) not in self.shapes:
            blank = (x.new_empty(()).expand(x.shape).detach() for x in said(outputs))  # takes no memory
            self.shapes[tuple(images.shape)] = rebuilt(outputs, blank)


def _found(targets: Targets) -> Iterator[Tensor]:
    """All tensors that were made for these targets."""
    waiting: list[Any] = [targets.row, targets.level, targets.label, targets.box, targets.valid, targets.ignored]
    waiting += targets.own.values()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, tuple):
            waiting += one
