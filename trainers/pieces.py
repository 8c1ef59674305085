"""A batch as a step learns from it: in one piece, or in pieces, with less memory and nearly the same gradient.

In pieces the student looks at each twice. First it is kept what it says, and not how that came about. The losses are
then those of all that was said, as of a batch in one piece: so is what they are divided by, what is drawn for them and
what any of them makes of a whole batch. At last the student looks again, and their gradient at what it says goes on
through it, piece after piece. It costs a forward pass more. Gao et al., "Scaling Deep Contrastive Learning Batch Size
under Memory Limited Setup", RepL4NLP 2021, section 3.2, https://arxiv.org/abs/2101.06983

Two things make a difference beyond rounding, of which `doubts` tells: statistics of live batch norms are those of a
piece, and what a student leaves out at random is drawn for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from trainers import balance, workers
from trainers.chance import Chance, drawing
from trainers.norm import Statistics, live
from trainers.outputs import Outputs, Truth
from trainers.task import Lesson, Look, Losses, Task
from trainers.within import rebuilt, said

Inside = Callable[[], AbstractContextManager[Any]]  # mixed precision, or none


class Whole:
    """A batch in one piece. `task` may be data-parallel."""

    said: Sequence[Tensor] = ()  # what the student said, where the losses' gradient ends

    def __init__(self, task: nn.Module, images: Tensor, truth: Truth, lesson: Lesson | None) -> None:
        self.losses: Losses = task(images, truth, lesson)
        self.total = self.losses.total

    def gradients(self, loss: Tensor, at: Sequence[Tensor], scaler: GradScaler) -> list[Tensor]:
        """Of a loss at those of these tensors, what the student said, on which it depends."""
        return balance.gradients(loss, at, scaler)

    def backward(self, scaler: GradScaler) -> None:
        """Have the gradient of all losses, scaled, where the parameters keep theirs: a mean over the workers."""
        scaler.scale(self.total).backward()


class Pieces:
    """The same in pieces of so many images, the last may be smaller. All workers have as many.

    `task` is not data-parallel: the gradients are averaged when all pieces are through. `inside` is where the student
    computes.
    """

    def __init__(
        self, task: Task, images: Tensor, truth: Truth, lesson: Lesson | None, *, size: int, inside: Inside
    ) -> None:
        self.task, self.inside = task, inside
        self.parts = images.split(size)
        # Of each part: what the student may draw from, and how it looks; what is compiled draws in another order.
        self.chances: list[Chance] = []
        self.ways: list[Look] = []
        outputs = self._first(measured=task.measured(lesson))
        with inside():
            self.losses = task.judge(outputs, truth, lesson)
            self.total = self.losses.total

    def _first(self, *, measured: bool) -> Outputs:
        """What the student says of the whole batch, of leaves."""
        found: list[list[Tensor]] = []
        wanted: list[bool] = []
        for part in self.parts:
            self.chances.append(Chance(part.device))
            self.ways.append(self.task.way(part, measured=measured))
            with self.inside():
                outputs = self.ways[-1](part)
            every = list(said(outputs))
            if not found:  # later parts may be looked at by what is compiled, where the same is another tensor
                # What is said in two places, as its towers' ends may be, is one leaf.
                places = {id(x): number for number, x in reversed(list(enumerate(every)))}
                self.firsts = sorted(places.values())
                self.order = [self.firsts.index(places[id(x)]) for x in every]
            wanted = [every[number].requires_grad for number in self.firsts]
            found.append([every[number].detach() for number in self.firsts])
            one = rebuilt(outputs, (x.detach() for x in every))  # else its graph would be there with the next part's
            del outputs, every
        self.said = [x.requires_grad_(w) for x, w in zip(whole(found), wanted, strict=True)]
        return rebuilt(one, iter([self.said[number] for number in self.order]))

    @contextmanager
    def _again(self, number: int) -> Iterator[list[Tensor]]:
        """What the student says of a part, as it did first, with the graph; its statistics have seen it already."""
        before = Statistics(self.task)
        with self.chances[number].again(), self.inside():
            every = list(said(self.ways[number](self.parts[number])))
        yield [every[first] for first in self.firsts]
        before.put_back()

    def _of_parts(self, gradients: Sequence[Tensor | None]) -> list[list[tuple[int, Tensor]]]:
        """Of each part the gradients at what was said, with the numbers of where."""
        size = len(self.parts[0])
        cut = [(number, g.split(size)) for number, g in enumerate(gradients) if g is not None]
        return [[(number, pieces[part]) for number, pieces in cut] for part in range(len(self.parts))]

    def gradients(self, loss: Tensor, at: Sequence[Tensor], scaler: GradScaler) -> list[Tensor]:
        """Of a loss at those of these tensors, what the student said, on which it depends: a part's, then the next's.

        Through the head too, for which the student looks at each part once more.
        """
        numbers = [number for x in at for number, mine in enumerate(self.said) if x is mine and x.requires_grad]
        learnt = [x for x in self.said if x.requires_grad]
        if not numbers or not loss.requires_grad:
            return []
        ends = iter(torch.autograd.grad(scaler.scale(loss), learnt, retain_graph=True, allow_unused=True))
        every = [next(ends) if x.requires_grad else None for x in self.said]
        found: list[Tensor] = []
        for part, known in enumerate(self._of_parts(every)):
            if not known:
                continue
            with self._again(part) as again:
                grads = torch.autograd.grad(
                    [again[number] for number, _ in known],
                    [again[number] for number in numbers],
                    [gradient for _, gradient in known],
                    allow_unused=True,
                )
            found += [one for one in grads if one is not None]
        return found

    def backward(self, scaler: GradScaler) -> None:
        """As `Whole.backward`."""
        scaler.scale(self.total).backward()
        for part, known in enumerate(self._of_parts([x.grad for x in self.said])):
            if not known:
                continue
            with self._again(part) as again:
                torch.autograd.backward([again[number] for number, _ in known], [gradient for _, gradient in known])
        workers.average([p.grad for p in self.task.parameters() if p.grad is not None])


def whole(parts: list[list[Tensor]]) -> list[Tensor]:
    """The tensors of all parts joined, each one's let go of when they are. P of n of (B_p, ...) -> n of (B, ...)."""
    joined = []
    for part in parts:
        part.reverse()
    while parts[0]:
        joined.append(torch.cat([part.pop() for part in parts]))
    return joined


def lesson(lessons: Callable[[Tensor, int], Lesson | None], images: Tensor, step: int, *, size: int) -> Lesson | None:
    """What is taught about images of which the guides look at so many at once."""
    given = [lessons(part, step) for part in images.split(size)]
    first, *_ = given
    if first is None:
        return None
    voices: list[Outputs | None] = []
    for guide, one in enumerate(first.said):
        every = [each.said[guide] for each in given if each is not None]
        parts = [list(said(outputs)) for outputs in every if outputs is not None]
        voices.append(rebuilt(one, iter(whole(parts))) if one is not None else None)
    return first._replace(said=voices)


def doubts(task: Task, *, size: int, images: int) -> Iterator[str]:
    """Why a task learns something else from so many images in pieces of that size, for people."""
    part = f"{size} of a worker's {images} images at once"
    if any(live(task)):
        yield f"batch norms learn from {part}, which is another training"
    if any(one.training for one in drawing(task.student)):
        yield f"what the student leaves out at random is drawn for {part}, which is as with another seed"
