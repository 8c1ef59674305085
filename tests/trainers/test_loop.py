"""A training goes on bit by bit where it was left, and changes nothing that is not its own."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.kept import kept_state
from tests.trainers.stages import CPU, STEPS, recipe, stage
from tests.trainers.trainings import (
    BOTH,
    batches,
    empty_lesson,
    guide,
    identical,
    leaves,
    lessons,
    lessons_of,
    taught,
    training,
)
from trainers import build
from trainers.average import Average
from trainers.loop import Epoch, Stopped, Training
from trainers.outputs import Outputs, Targets
from trainers.store import Store
from trainers.task import Task
from trainers.teaching import no_lesson


def untimed(epochs: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in one.items() if "second" not in name} for one in epochs]


# Going on


CASES = {
    "SGD": stage(epochs=4),
    "AdamW, EMA, clip": stage(epochs=4, optimizer="AdamW", lr=0.003, ema=0.9, clip=0.5),
    "LD and KD, clip": taught(*BOTH, epochs=4, clip=1.0, schedule="OneCycle", warmup=0),
    "LD and KD, AdamW, EMA": taught(*BOTH, epochs=4, optimizer="AdamW", lr=0.003, ema=0.5, schedule="Step"),
    "biases apart, EMA, clip": taught(*BOTH, epochs=4, bias_lr=2.0, bias_decay=0.0, ema=0.9, clip=1.0, warmup=5),
    "frozen, half mirrored": taught("LD", epochs=4, freeze=1, flip=0.5, fixed_norm=True),
}


@pytest.mark.parametrize(
    ("name", "left_after"), [*((name, 2) for name in CASES), *(("LD and KD, AdamW, EMA", n) for n in (1, 3))]
)
def test_four_epochs_are_the_same_to_the_bit_when_interrupted(name: str, left_after: int, tmp_path: Path) -> None:
    one = CASES[name]
    straight = training(one)
    straight_metrics = [epoch.metrics for epoch in straight.epochs(lessons(one))]

    store, metrics = Store(tmp_path), []
    first = training(one)
    for epoch in first.epochs(lessons(one)):
        metrics.append(epoch.metrics)
        store.save_state(one.key, epoch.number, {"training": epoch.state})
        if epoch.number == left_after:
            break
    torch.manual_seed(12345)  # what another process happens to have
    second = training(one)
    torch.rand(7)
    kept = kept_state(Store(tmp_path), one.key)
    assert kept is not None
    second.restore(kept["training"])
    assert second.epoch == left_after
    torch.rand(7)
    metrics += [epoch.metrics for epoch in second.epochs(lessons(one))]

    assert identical(straight.product.state_dict(), second.product.state_dict())
    assert identical(straight.state(), second.state())
    assert untimed(metrics) == untimed(straight_metrics)


def test_the_random_state_goes_on_too() -> None:
    class Dropping(nn.Module):
        """A loss that draws."""

        def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
            return (student.features[0] * torch.rand(())).mean()

    def ready() -> Training:
        return training(taught(epochs=2), {"dropping": Dropping()})

    straight = ready()
    assert len(list(straight.epochs(empty_lesson))) == 2
    first = ready()
    state = copy.deepcopy(next(first.epochs(empty_lesson)).state)
    torch.manual_seed(4321)
    second = ready()
    second.restore(state)
    list(second.epochs(empty_lesson))
    assert identical(straight.state(), second.state())


def test_a_finished_training_has_no_more_epochs() -> None:
    one = training(stage(epochs=1))
    assert [epoch.number for epoch in one.epochs(no_lesson)] == [1]
    again = training(stage(epochs=1))
    again.restore(one.state())
    assert list(again.epochs(no_lesson)) == []


def test_a_state_of_a_cpu_holds_only_tensors_and_plain_values() -> None:
    one = training(taught(*BOTH, optimizer="AdamW", ema=0.9))
    kinds = {type(value) for epoch in one.epochs(lessons_of(guide())) for _, value in leaves(epoch.state)}
    assert kinds <= {Tensor, int, float, bool, str, type(None)}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, second, other = (training(stage(seed=seed)) for seed in (3, 3, 4))
    for one in (first, second, other):
        list(one.epochs(no_lesson))
    assert identical(first.state(), second.state())
    assert not identical(first.product.state_dict(), other.product.state_dict())


def seen(of: Training, epoch: int) -> list[tuple[list[int], Tensor]]:
    return [(truth.ids, images) for images, truth in of.batches.epoch(epoch)]


def test_order_and_mirroring_depend_on_the_seed_and_the_epoch_and_on_no_stage() -> None:
    plain = training(stage(flip=0.5))
    other = training(taught("LD", flip=0.5, lr=0.1, optimizer="AdamW", epochs=9))
    torch.rand(100)
    for epoch in (0, 1, 5):
        for (ids, images), (their_ids, their_images) in zip(seen(plain, epoch), seen(other, epoch), strict=True):
            assert ids == their_ids and torch.equal(images, their_images)
    assert [ids for ids, _ in seen(plain, 0)] != [ids for ids, _ in seen(plain, 1)]


# What must not change


def test_a_teacher_is_untouched_and_not_part_of_what_learns() -> None:
    torch.manual_seed(0)
    one = taught(*BOTH)
    teacher = guide()
    before = {name: tensor.clone() for name, tensor in [*teacher.named_parameters(), *teacher.named_buffers()]}
    student = build.detector(one)
    task = Task(student, build.losses(one.distill, student, [teacher]).modules)
    run = Training(task, one.recipe, batches(one.recipe), device=CPU)
    list(run.epochs(lessons_of(teacher)))
    after = dict([*teacher.named_parameters(), *teacher.named_buffers()])
    assert identical(before, after)
    assert not teacher.training and not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    theirs = {id(p) for p in teacher.parameters()}
    assert theirs.isdisjoint(id(p) for p in task.parameters())
    assert theirs.isdisjoint(id(p) for group in run.optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_losses_of_weight_zero_leave_the_student_as_it_is_without_them(optimizer: str) -> None:
    alone = training(stage(optimizer=optimizer, clip=1.0, ema=0.9))
    silent = taught(
        {"LD": {"weight": 0, "vlr_weight": 0}}, {"KD": {"weight": 0}}, optimizer=optimizer, clip=1.0, ema=0.9
    )
    accompanied = training(silent)
    list(alone.epochs(no_lesson))
    entries = [epoch.metrics for epoch in accompanied.epochs(lessons(silent))]
    assert identical(alone.task.student.state_dict(), accompanied.task.student.state_dict())
    assert identical(alone.product.state_dict(), accompanied.product.state_dict())
    assert not any("ld" in name or "kd" in name for name in entries[0])


def test_a_loss_that_weighs_changes_the_student() -> None:
    alone, one = training(stage()), taught(*BOTH)
    accompanied = training(one)
    list(alone.epochs(no_lesson))
    list(accompanied.epochs(lessons(one)))
    assert not identical(alone.task.student.state_dict(), accompanied.task.student.state_dict())


def test_frozen_stages_do_not_change_and_the_others_do() -> None:
    one = training(stage(freeze=2))
    backbone: Any = one.task.student.backbone
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    list(one.epochs(no_lesson))
    after = backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    still = {name for name in before if name.startswith(("stem.", "stages.0.", "stages.1."))}
    assert moved and still and moved.isdisjoint(still)
    assert any(name.startswith("stages.2.") and "running_mean" in name for name in moved)


def test_fixed_norms_keep_their_statistics_and_learn() -> None:
    one = training(stage(fixed_norm=True))
    before = {name: tensor.clone() for name, tensor in one.task.student.state_dict().items()}
    list(one.epochs(no_lesson))
    moved = {n for n, tensor in one.task.student.state_dict().items() if not torch.equal(before[n], tensor)}
    assert not any("running" in name or "num_batches" in name for name in moved)
    assert any("norm1.weight" in name for name in moved)


# Steps, rates, clipping, averages


def test_each_step_has_its_own_rate_and_the_last_is_reported() -> None:
    one = training(stage(epochs=2, warmup=3, warmup_from=0.0, schedule="Constant", lr=0.03))
    rates: list[float] = []
    one.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    entries = [epoch.metrics for epoch in one.epochs(no_lesson)]
    assert rates == pytest.approx([0, 0.01, 0.02, 0.03, 0.03, 0.03, 0.03, 0.03]) and len(rates) == 2 * STEPS
    assert entries[-1]["train/lr"] == rates[-1]


@pytest.mark.parametrize("clip", [None, 0.01])
def test_gradients_are_clipped_to_their_norm(clip: float | None) -> None:
    one = training(stage(clip=clip))
    norms: list[float] = []

    def look(*_: Any) -> None:
        norms.append(torch.stack([p.grad.norm() for p in one.learning if p.grad is not None]).norm().item())

    one.optimizer.register_step_pre_hook(look)
    list(one.epochs(no_lesson))
    if clip:
        assert norms == pytest.approx([clip] * len(norms), rel=1e-3)
    else:
        assert min(norms) > 0.1


def test_the_average_is_the_one_by_hand_and_copies_buffers() -> None:
    model: Any = nn.BatchNorm1d(1)
    average: Any = Average(model, 0.9)
    for value in (2.0, 3.0):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        average.update(model)
    # 0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3
    assert average.model.weight.item() == pytest.approx(1.29)
    assert average.model.running_mean.item() == 3.0
    assert not average.model.training and not average.model.weight.requires_grad
    assert model.training and model.weight.requires_grad and model.weight.item() == 3.0


def test_the_average_follows_every_step_and_is_what_the_training_makes() -> None:
    one = training(stage(ema=0.75, epochs=1))
    name, weight = next(iter(one.task.student.named_parameters()))
    expected = weight.detach().clone().double()
    one.optimizer.register_step_post_hook(lambda *_: expected.mul_(0.75).add_(weight.detach(), alpha=0.25))
    list(one.epochs(no_lesson))
    assert one.product is not one.task.student
    assert torch.allclose(dict(one.product.named_parameters())[name].double(), expected, atol=1e-6)
    assert not torch.equal(dict(one.product.named_parameters())[name], weight)


def test_without_an_average_the_student_itself_is_what_the_training_makes() -> None:
    one = training(stage())
    assert one.product is one.task.student and one.state()["average"] is None


def test_the_average_changes_nothing_for_the_student() -> None:
    plain, averaged = training(stage()), training(stage(ema=0.9))
    list(plain.epochs(no_lesson))
    list(averaged.epochs(no_lesson))
    assert identical(plain.task.state_dict(), averaged.task.state_dict())


def test_an_epoch_reports_the_means_of_its_steps() -> None:
    one = training(taught(*BOTH, epochs=1))
    (epoch,) = one.epochs(lessons_of(guide()))
    parts = [value for name, value in epoch.metrics.items() if name.startswith("train/loss_")]
    assert {n for n in epoch.metrics if "loss_" in n} == {f"train/loss_{n}" for n in ("qfl", "box", "dfl", "ld", "kd")}
    assert epoch.metrics["train/loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert isinstance(epoch, Epoch) and epoch.number == 1 and epoch.metrics["train/images_per_second"] > 0


# Stopping


@pytest.mark.parametrize("after", [0, 1, STEPS, STEPS + 2])
def test_a_stop_comes_between_two_steps_and_no_step_too_late(after: int) -> None:
    one = training(stage(epochs=3))
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    one.optimizer.register_step_post_hook(count)
    done: list[int] = []
    with pytest.raises(Stopped):
        done += [epoch.number for epoch in one.epochs(no_lesson, stop=lambda: steps == after)]
    assert steps == after and one.epoch == after // STEPS


def test_an_epoch_after_a_measurement_trains_as_ever() -> None:
    """Measuring leaves the student in evaluation mode, in which batch norm neither learns nor uses the batch."""
    measured, plain = training(stage(epochs=3)), training(stage(epochs=3))
    for _ in measured.epochs(no_lesson):
        measured.task.student.eval()
    list(plain.epochs(no_lesson))
    assert identical(measured.state(), plain.state())


def test_a_stop_is_no_error() -> None:
    assert not issubclass(Stopped, Exception)


def test_half_precision_is_for_devices_only() -> None:
    full, half = training(stage()), training(stage(precision="fp16"))
    assert recipe(precision="fp16").precision == "fp16" and not half.scaler.is_enabled()
    list(full.epochs(no_lesson))
    list(half.epochs(no_lesson))
    assert identical(full.state(), half.state())


def test_a_state_without_a_scale_can_be_taken_up_where_there_is_one() -> None:
    """As a stage that began on a CPU and goes on with a GPU."""
    one, other = training(stage()), training(stage())
    other.scaler = torch.GradScaler("cpu")
    assert one.state()["scaler"] == {} and other.scaler.is_enabled()
    other.restore(one.state())
    assert other.scaler.get_scale() == 2.0**16
