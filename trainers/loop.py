"""Train a student: a generator of epochs that knows neither Ray nor MLflow nor which method it trains."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainers import optim, pieces, workers
from trainers.average import Average
from trainers.balance import Balance
from trainers.chance import Chance
from trainers.clock import Clock
from trainers.data.batches import Batches
from trainers.evaluate import precision
from trainers.feeding import Share
from trainers.memory import sparing
from trainers.meter import Meter
from trainers.nonfinite import Step, Tolerance, wrong
from trainers.outputs import Truth
from trainers.pieces import Pieces, Whole
from trainers.reach import check
from trainers.spec import Recipe
from trainers.task import Task
from trainers.teaching import Lessons
from trainers.turns import Turn

log = logging.getLogger(__name__)


class Stopped(BaseException):
    """Somebody asked the training to end before its time; not an error, so nothing that handles errors sees it."""


class Paused(Stopped):
    """The training is as far as it was to be trained for now."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch brought: its metrics, and all that is needed to go on after it.

    The state is the training's own tensors, so it is to be saved before the next epoch changes them.
    """

    number: int  # from 1
    metrics: dict[str, float]
    state: dict[str, Any]


class Training:
    """A task on its way through a recipe. `balance` has the losses whose alphas are to be found.

    `micro_batch`: how many images of its part of a batch a worker looks at once, all of them if None. It is halved when
    memory runs out, of which `say` is told. `clock` is where it reads how long it takes.
    """

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        batches: Batches | Share,
        *,
        device: torch.device,
        balance: Balance | None = None,
        micro_batch: int | None = None,
        clock: Clock | None = None,
        say: Callable[[str], None] = log.warning,
    ) -> None:
        self.task = task
        self.recipe = recipe
        self.batches = batches
        self.device = device
        self.clock = clock or Clock()
        self.wrapped: nn.Module = task  # what is called; a data-parallel wrapper may take its place
        self.learning = [p for p in task.parameters() if p.requires_grad]
        self.optimizer = recipe.optimizer.of(optim, optim.groups(task, recipe), recipe.lr)
        self.rate = optim.rates(recipe, batches.steps)
        self.scaler = torch.amp.grad_scaler.GradScaler(enabled=recipe.precision == "fp16" and device.type == "cuda")
        self.average = Average(task.student, recipe.ema) if recipe.ema else None
        self.epoch = 0
        self.meter: Meter | None = None  # of the epoch under way; None between two
        self.draws: list[dict[str, Any]] = []  # by worker: from where an epoch that was stopped draws on
        # The distillation losses of which nobody knows yet whether they teach, and in how many batches each did not.
        self.unchecked = dict.fromkeys(task.distill, 0)
        self.balance = balance or Balance({}, {})
        self.micro_batch, self.say = micro_batch, say
        self.tolerance = Tolerance(recipe.tolerated)
        self.scales: list[Tensor] = []  # the loss scales of this epoch, each (), as long as float16 is scaled
        self.warned = False  # of what makes pieces of a batch another training

    @property
    def product(self) -> nn.Module:
        """The detector that this training makes: the student, or the average of its weights."""
        return self.average.model if self.average else self.task.student

    def state(self) -> dict[str, Any]:
        """Tensors and plain values only, so that reading it back can run no code. Between two steps of an epoch every
        worker calls it."""
        return {
            "epoch": self.epoch,
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.model.state_dict() if self.average else None,
            "unchecked": dict(self.unchecked),
            "balance": self.balance.state(),
            "micro_batch": self.micro_batch,
            "skipped": self.tolerance.skipped,
            "under_way": self._under_way(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; the weights will be those of an uninterrupted training."""
        self.epoch = state["epoch"]
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        optim.aligned(self.optimizer)
        if state["scaler"]:  # empty where nothing is scaled, as on a CPU
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        self.unchecked = dict(state["unchecked"])
        if self.balance.ratios:
            self.balance.restore(state["balance"])
        self.tolerance.skipped = state["skipped"]
        found = state["micro_batch"]  # what memory was enough for
        if found is not None:
            self.micro_batch = min(found, self.micro_batch or found)
        left = state["under_way"]
        self.meter = self._meter(left["meter"]) if left else None
        self.draws = left["draws"] if left else []
        self.scales = [one.to(self.device) for one in left["scales"]] if left else []

    def _under_way(self) -> dict[str, Any] | None:
        """How far an epoch is; None between two."""
        if self.meter is None:
            return None
        draws = workers.gathered(Chance(self.device).state())
        return {"meter": self.meter.state(), "draws": draws, "scales": self.scales}

    def _meter(self, left: dict[str, Any] | None = None) -> Meter:
        """Of the epoch that comes, or of one that was stopped."""
        every = 1 if self.device.type == "cpu" else 50
        scaler = self.scaler  # alone: what held this training would outlive it in the circle
        return Meter(every=every, scale=lambda: scale_of(scaler), left=left, device=self.device, clock=self.clock)

    def epochs(self, lessons: Lessons, *, stop: Callable[[], bool] = lambda: False) -> Iterator[Epoch]:
        """Train epoch by epoch, from wherever this training stands.

        Raises `NonFinite`, `Unreachable`, and `Stopped` when `stop()` says so between two steps.
        """
        return (one for one in self.turns(lessons, stop=stop) if isinstance(one, Epoch))

    def turns(self, lessons: Lessons, *, stop: Callable[[], bool] = lambda: False) -> Iterator[Epoch | Turn]:
        """The same step by step: between any two of them others may use the device and draw random numbers, if these
        are put back."""
        while self.epoch < self.recipe.epochs:
            metrics = yield from self._one_epoch(lessons, stop)
            self.epoch, self.meter, self.scales = self.epoch + 1, None, []
            yield Epoch(self.epoch, metrics, self.state())

    def _one_epoch(self, lessons: Lessons, stop: Callable[[], bool]) -> Generator[Turn, None, dict[str, float]]:
        self.task.train()
        torch.manual_seed(chance(self.batches.seed, self.epoch, workers.rank()))
        if workers.rank() < len(self.draws):
            Chance(self.device, self.draws[workers.rank()]).put_back()
        self.draws = []
        meter = self.meter = self.meter or self._meter()
        number = self.epoch * self.batches.steps + meter.steps
        yield Turn(self.epoch, meter.steps)
        for images, truth in self.batches.epoch(self.epoch, start=meter.steps):
            if stop():
                raise Stopped
            step = Step(self.epoch + 1, number % self.batches.steps + 1, truth.ids, self.rate(number))
            losses = self._step(images, truth, lessons, step, number)
            if losses is None:
                meter.leave_out()
            else:
                meter.add(losses, step)
            number += 1
            yield Turn(self.epoch, meter.steps)
        metrics = meter.means()
        metrics["train/lr"] = self.rate(number - 1)
        metrics |= {f"train/alpha_{name}": alpha for name, alpha in self.balance.alphas.items()}
        if self.tolerance.allowed:
            metrics["train/skipped"] = float(meter.left_out)
        if self.scales:  # which is halved for a step that overflows, and which it leaves out
            fell = torch.stack(self.scales).diff() < 0
            metrics |= {"train/scale": self.scales[-1].item(), "train/overflows": float(fell.sum())}
        metrics["train/images_per_second"] = self.batches.steps * self.recipe.batch / meter.seconds
        return metrics

    @property
    def scale(self) -> float | None:
        """What losses are multiplied by where float16 is scaled, else None."""
        return scale_of(self.scaler)

    def _note_scale(self) -> None:
        """Keep the loss scale, on the device: the scaler would wait for it to say how large it is."""
        if self.scaler.is_enabled() and self.scaler._scale is not None:
            self.scales.append(self.scaler._scale.clone())

    def _step(
        self, images: Tensor, truth: Truth, lessons: Lessons, step: Step, number: int
    ) -> dict[str, Tensor] | None:
        """Learn from a batch in the `number`-th step of the training; -> its losses, None if it was left out."""
        optim.turn(self.optimizer, step.rate)
        where = f"epoch {step.epoch}, step {step.number}"
        self.tolerance.begin(self.task)
        losses = sparing(self, lambda: self._learn(images, truth, lessons, number), images=len(images), where=where)
        if self._is_left_out(losses, step):
            return None
        if not self.scales:
            self._note_scale()  # what the first step may fall from
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.learning, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._note_scale()
        if self.average:
            self.average.update(self.task.student)
        return losses

    def _is_left_out(self, losses: dict[str, Tensor], step: Step) -> bool:
        """Whether the step may be, and is, left out, as a loss or the gradient is no number. Of several workers those
        say so whose losses are not."""
        refused = self.tolerance.refused
        if not (refused or self.tolerance.refuses_gradient(self.learning, self.scaler)):
            return False
        values = {name: loss.item() for name, loss in losses.items()}
        own = not all(abs(value) < float("inf") for value in values.values())
        name, value = wrong(values) if own else ("a loss of another worker" if refused else "the gradient", "no number")
        text = self.tolerance.leave_out(step.said(name, value, self.scale))
        if own or (workers.rank() == 0 and not refused):
            self.say(text)
        return True

    def _learn(self, images: Tensor, truth: Truth, lessons: Lessons, step: int) -> dict[str, Tensor]:
        """Have the gradients of a batch where the optimizer finds them; -> its losses."""
        batch = self._look(images, truth, lessons, step)
        if self.tolerance.refuses(batch.total):
            return named(batch)  # there is nothing to learn
        if self.unchecked:
            check(self.task, batch.losses, self.unchecked, self.scaler, said=batch.said)
        self.balance.look(batch.losses, self.scaler, batch.gradients)
        self.optimizer.zero_grad(set_to_none=True)
        batch.backward(self.scaler)
        return named(batch)

    def _look(self, images: Tensor, truth: Truth, lessons: Lessons, step: int) -> Whole | Pieces:
        """The losses of a batch, of which as many images are looked at once as there is memory for."""
        size = self.micro_batch
        if size is None or size >= len(images):
            with self.inside():
                lesson = self.balance.applied(lessons(images, step))
                if lesson is not None and self.unchecked:
                    lesson = lesson._replace(unchecked=frozenset(self.unchecked))
                return Whole(self.wrapped, images, truth, lesson)
        if not self.warned and workers.rank() == 0:
            for doubt in pieces.doubts(self.task, size=size, images=len(images)):
                self.say(doubt)
        self.warned = True
        with self.inside():
            lesson = self.balance.applied(pieces.lesson(lessons, images, step, size=size))
        return Pieces(self.task, images, truth, lesson, size=size, inside=self.inside)

    def inside(self) -> torch.autocast:
        """Where the task computes."""
        return precision(self.recipe, self.device)


def named(batch: Whole | Pieces) -> dict[str, Tensor]:
    """The losses of a batch and their sum, by their names in the log."""
    parts = {f"loss_{name}": loss.detach() for name, loss in batch.losses.by_name.items()}
    return {"loss": batch.total.detach(), **parts}


def chance(seed: int, epoch: int, rank: int) -> int:
    """What a worker's draws in an epoch start from: so that a training goes on as it was, and workers draw apart."""
    return random.Random(f"{seed} {epoch} {rank}").getrandbits(63)


def scale_of(scaler: torch.amp.grad_scaler.GradScaler) -> float | None:
    """What losses are multiplied by where float16 is scaled, else None."""
    return float(scaler.get_scale()) if scaler.is_enabled() else None
