"""A loss that is no number, or that teaches the student nothing, ends the training and is named."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.stages import STEPS, stage
from tests.trainers.trainings import BOTH, empty_lesson, guide, identical, taught, training
from trainers.loop import Training, chance
from trainers.meter import Meter
from trainers.nonfinite import NonFinite, Step
from trainers.outputs import Outputs, Targets, Truth
from trainers.reach import PATIENCE, Unreachable, check
from trainers.task import Lesson


class Planted(nn.Module):
    """A loss that is `value(student outputs)` at one call, counted from 1, or at every one."""

    def __init__(self, value: Callable[[Outputs], Tensor], *, at: int = 0) -> None:
        super().__init__()
        self.value, self.at, self.calls = value, at, 0

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        self.calls += 1
        if self.at in (0, self.calls):
            return self.value(student)
        return student.features[0].mean()


def plain(student: Outputs) -> Tensor:
    return student.features[0].mean()


def planted(loss: Planted) -> Training:
    return training(taught(epochs=3), {"planted": loss})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("call", "epoch", "step"), [(1, 1, 1), (3, 1, 3), (STEPS, 1, STEPS), (STEPS + 2, 2, 2)])
def test_a_loss_that_is_no_number_is_named_with_its_epoch_and_step(
    value: float, call: int, epoch: int, step: int
) -> None:
    one = planted(Planted(lambda student: plain(student) + value, at=call))
    with pytest.raises(NonFinite, match=rf"^loss_planted became {value} in epoch {epoch}, step {step} \(images"):
        list(one.epochs(empty_lesson))
    assert one.epoch == epoch - 1


def test_a_loss_of_the_detector_that_is_no_number_is_named_too() -> None:
    one = training(stage())
    with torch.no_grad():
        one.task.student.head.cls.bias.fill_(float("nan"))
    with pytest.raises(NonFinite, match=r"^loss_qfl became nan in epoch 1, step 1 "):
        list(one.epochs(empty_lesson))


def metered(values: list[float], *, every: int) -> dict[str, float]:
    meter = Meter(every=every, scale=lambda: 65536.0)
    for number, value in enumerate(values, start=1):
        losses = {"loss": torch.tensor(value + 1), "loss_a": torch.tensor(value), "loss_b": torch.tensor(1.0)}
        meter.add(losses, Step(5, number, [number, *range(20, 30)], 0.1 / number))
    return meter.means()


@pytest.mark.parametrize("every", [1, 2, 3, 50])
def test_a_meter_names_step_images_rate_and_scale_however_seldom_it_looks(every: int) -> None:
    with pytest.raises(NonFinite) as caught:
        metered([1, 2, 3, float("nan"), float("inf")], every=every)
    images = "images 4, 20, 21, 22, 23, 24, 25, 26 and 3 more"
    said = f"loss_a became nan in epoch 5, step 4 ({images}; learning rate 0.025, loss scale 65536)"
    assert str(caught.value) == said
    assert metered([1, 2, 6], every=every) == {"train/loss": 4.0, "train/loss_a": 3.0, "train/loss_b": 1.0}


def test_a_sum_that_overflows_although_its_parts_do_not_is_named_itself() -> None:
    parts = {"loss_a": torch.tensor(3e38), "loss_b": torch.tensor(3e38)}
    with pytest.raises(NonFinite, match=r"^loss became inf"):
        Meter(every=1).add({"loss": torch.tensor(float("inf")), **parts}, Step(1, 1, [1], 0.1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda student: plain(student).detach(), "no gradient at all"),
        (lambda student: torch.zeros(()), "no gradient at all"),
        (lambda student: (plain(student) * 0).sqrt(), "a gradient of norm nan"),
        (lambda student: plain(student) * torch.tensor(1e38) * 10, "a gradient of norm (nan|inf)"),
    ],
    ids=["detached", "constant", "nan", "infinite"],
)
def test_a_loss_that_does_not_reach_the_student_is_refused_before_the_first_step(
    value: Callable[[Outputs], Tensor], message: str
) -> None:
    one = planted(Planted(value))
    before = {name: tensor.clone() for name, tensor in one.task.student.named_parameters()}
    with pytest.raises(Unreachable, match=f"^the distillation loss planted gives the student {message}"):
        list(one.epochs(empty_lesson))
    assert identical(before, dict(one.task.student.named_parameters()))


class Adapter(nn.Module):
    """A loss that teaches its own weights only."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        return plain(student).detach() * self.scale


def test_a_loss_whose_gradient_goes_to_its_own_weights_only_is_refused() -> None:
    with pytest.raises(Unreachable, match="adapter gives the student a gradient of zero"):
        list(training(taught(epochs=3), {"adapter": Adapter()}).epochs(empty_lesson))


def test_a_loss_that_teaches_nothing_in_several_batches_is_refused() -> None:
    run = planted(Planted(lambda student: plain(student) * 0))
    assert PATIENCE < 3 * STEPS
    with pytest.raises(Unreachable, match="planted gives the student a gradient of zero; is it the teacher"):
        list(run.epochs(empty_lesson))
    assert run.epoch == PATIENCE // STEPS


def test_a_loss_whose_own_region_is_empty_at_first_is_given_time() -> None:
    run = planted(Planted(lambda student: plain(student) * (run.task.distill["planted"].calls == PATIENCE)))
    list(run.epochs(empty_lesson))
    assert not run.unchecked


class Scaled(nn.Module):
    """What a scaler of float16 does to a loss."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.factor

    def is_enabled(self) -> bool:
        return True


@pytest.mark.parametrize(("factor", "known"), [(1.0, True), (float("inf"), False)])
def test_a_gradient_that_is_only_scaled_too_far_is_looked_at_again(factor: float, known: bool) -> None:
    run = planted(Planted(plain))
    losses = run.task(*next(run.batches.epoch(0)), Lesson([Outputs([])]))
    check(run.task, losses, run.unchecked, Scaled(factor))
    assert (not run.unchecked) == known


def test_workers_draw_apart_and_every_epoch_starts_from_its_own_number() -> None:
    starts = {chance(seed, epoch, rank) for seed in range(3) for epoch in range(3) for rank in range(3)}
    assert len(starts) == 27 and all(0 <= start < 2**63 for start in starts)


def test_only_the_first_steps_of_a_loss_are_checked() -> None:
    list(planted(Planted(lambda student: plain(student) * 0, at=2)).epochs(empty_lesson))


def test_a_loss_that_counts_later_is_checked_when_it_does() -> None:
    late = STEPS + 2
    run = planted(Planted(lambda student: plain(student).detach()))
    with pytest.raises(Unreachable, match="planted"):
        list(run.epochs(lambda images, step: Lesson([Outputs([])], {"planted": float(step >= late)})))
    assert run.epoch == 1 and run.unchecked == {"planted": 0}


@pytest.mark.parametrize("loss", ["LD", "KD", {"KD": {"form": "binary", "weight": 100}}])
def test_a_student_that_is_its_own_teacher_is_refused(loss: str | dict[str, Any]) -> None:
    """The mistake that the check is there for. Its gradient is not quite zero: it is rounding."""
    one = taught(loss)
    run = training(one)
    run.task.student.eval()
    with pytest.raises(Unreachable, match="d gives the student a gradient of zero"):
        truth = next(run.batches.epoch(0))
        for _ in range(PATIENCE):
            check(run.task, run.task(*truth, Lesson([run.task.student(truth[0])])), run.unchecked, run.scaler)


def test_a_batch_without_positives_puts_the_check_off(monkeypatch: pytest.MonkeyPatch) -> None:
    run = planted(Planted(lambda student: plain(student).detach()))
    full = run.batches.epoch

    def first_empty(n: int, *, start: int) -> Iterator[tuple[Tensor, Truth]]:
        for step, (images, truth) in enumerate(full(n, start=start)):
            none = [torch.zeros(0, 4) for _ in truth.boxes], [torch.zeros(0, dtype=torch.long) for _ in truth.labels]
            yield images, Truth(*none, truth.sizes, truth.ids, truth.scales) if step < 2 else truth

    monkeypatch.setattr(run.batches, "epoch", first_empty)
    steps: list[int] = []
    run.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    with pytest.raises(Unreachable, match="planted"):
        list(run.epochs(empty_lesson))
    assert len(steps) == 2


def test_the_check_leaves_no_trace_in_the_gradients() -> None:
    one = taught(*BOTH)
    run = training(one)
    images, truth = next(run.batches.epoch(0))
    losses = run.task(images, truth, Lesson([guide()(images)]))
    check(run.task, losses, run.unchecked, run.scaler)
    assert not run.unchecked
    assert all(p.grad is None for p in run.task.parameters())
    losses.total.backward()
