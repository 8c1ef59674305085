"""Whether each distillation loss teaches the student anything, looked at when it counts for the first time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers import workers
from trainers.task import Losses, Task


class Unreachable(ArithmeticError):
    """A distillation loss gives the student no gradient, or one that is not finite."""


PATIENCE = 10  # batches with objects in which a loss may find nothing to teach: its own region may be empty


def check(
    task: Task,
    losses: Losses,
    unchecked: dict[str, int],
    scaler: torch.amp.grad_scaler.GradScaler,
    *,
    said: Sequence[Tensor] = (),
) -> None:
    """Take out of `unchecked` the losses that reach the student with a finite, non-zero gradient; count for the others.

    All workers do so together, and find the same. A batch without objects counts for nobody, and a loss that does not
    count yet is not looked at. Raises `Unreachable`, which names the loss, if there is no gradient or one that is not
    finite, and if it is zero in several batches. `said`: what the student said, if the losses' graph begins there.
    Gradients are scaled as in training: without it float16 may have none, and at first they may be too large.
    """
    names = sorted(losses.counting & unchecked.keys())
    if not names or not workers.mean(losses.positives.to(losses.total.device, torch.float32)):
        return
    parameters = [p for p in (*task.student.parameters(), *said) if p.requires_grad]
    for name in names:
        loss = losses.computed(name)
        if not loss.requires_grad:
            raise Unreachable(f"the distillation loss {name} gives the student no gradient at all")
        grads = torch.autograd.grad(
            scaler.scale(loss), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        norm = torch.stack([g.float().norm() for g in grads]).norm()
        norm, value = workers.mean(torch.stack([norm, loss.detach().float()]))
        if not torch.isfinite(norm):
            if scaler.is_enabled() and torch.isfinite(value):
                continue
            raise Unreachable(f"the distillation loss {name} gives the student a gradient of norm {norm.item()}")
        if norm and value:
            del unchecked[name]
            continue
        unchecked[name] += 1
        # A student that is its own teacher has a loss of 0, but rounding in its gradient.
        if norm or unchecked[name] == PATIENCE:
            reason = "is it the teacher, or do all parts of the loss weigh 0?"
            raise Unreachable(f"the distillation loss {name} gives the student a gradient of zero; {reason}")
