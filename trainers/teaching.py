"""What is said to a student about a batch: by which of its guides, and how much each loss counts at that step.

What changes from step to step is a function of the step's number and the stage's seed alone: a training that was
interrupted goes on as if it had not been, and all workers do the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainers.call import Invalid, Term
from trainers.outputs import Outputs
from trainers.spec import Guides, Stage
from trainers.task import Lesson

Lessons = Callable[[Tensor, int], Lesson | None]  # images (B, 3, H, W) and the number of the step, from 0


def no_lesson(images: Tensor, step: int) -> None:
    """For a student that nobody teaches."""


class Teaching:
    """The lessons of a stage. `guides` are its teacher, the teacher's teacher and so on, in evaluation mode.

    `terms` and `listens` say by a loss's name when it counts and which guide it listens to; `steps` are those of an
    epoch. A guide that nobody listens to at a step is not run.
    """

    def __init__(
        self,
        guides: Sequence[Callable[[Tensor], Outputs]],
        terms: Mapping[str, Term],
        listens: Mapping[str, int],
        stage: Stage,
        *,
        steps: int,
    ) -> None:
        self.guides, self.terms, self.listens = guides, terms, listens
        self.policy, self.seed = stage.recipe.guides, stage.seed
        self.steps, self.epochs = steps, stage.recipe.epochs
        for name, term in terms.items():
            check_time(term, name, steps=steps, epochs=self.epochs)

    # Not inference mode: losses keep what guides say for their backward pass, which such tensors refuse.
    @torch.no_grad()
    def __call__(self, images: Tensor, step: int) -> Lesson:
        strength = {
            name: weight(term) * share(term, step, steps=self.steps, epochs=self.epochs)
            for name, term in self.terms.items()
        }
        asked = {self.listens[name] for name, part in strength.items() if part}
        asked &= heard(self.policy, len(self.guides), seed=self.seed, step=step)
        said = [guide(images) if number in asked else None for number, guide in enumerate(self.guides)]
        return Lesson(said, strength, float(len(self.guides)) if self.policy.balance else 1.0)


def check_time(term: Term, name: str, *, steps: int, epochs: int) -> None:
    """Raise `Invalid` for a loss that would not count at any step of such a training."""
    start, end = time_of(term, steps=steps, epochs=epochs)
    if start >= end:
        message = f"{name} would begin after {start} steps and end after {end}, and so never count"
        raise Invalid(f"{message}; there are {steps} steps in each of {epochs} epochs", ("epochs",))


def time_of(term: Term, *, steps: int, epochs: int) -> tuple[int, int]:
    """The first step at which a loss counts, and the first one after."""
    first, last = term.epochs
    return (first - 1) * steps + term.after, min(epochs, last or epochs) * steps


def weight(term: Term) -> float:
    """What a loss is multiplied by as long as nothing else is found out in training."""
    return term.alpha if isinstance(term.alpha, float) else 1.0


def share(term: Term, step: int, *, steps: int, epochs: int) -> float:
    """How much of a loss's weight counts at a step of a training of so many epochs of so many steps each. -> 0..1"""
    start, end = time_of(term, steps=steps, epochs=epochs)
    if not start <= step < end:
        return 0.0
    rise = (step - start + 1) / term.ramp if term.ramp else 1.0
    fall = (end - step) / (term.fade * (end - start)) if term.fade else 1.0
    return min(rise, fall, 1.0)


def heard(policy: Guides, number: int, *, seed: int, step: int) -> set[int]:
    """Which of so many guides, the root teacher last, are heard at a step."""
    drawn = random.Random(f"{seed} {step}")
    left = [guide for guide in range(number) if guide == number - 1 or drawn.random() < policy.keep]
    silent = drawn.sample(left, min(policy.drop, len(left) - 1))
    return set(left) - set(silent)
