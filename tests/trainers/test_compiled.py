"""A compiled student trains as one that is not, whatever else a training does with its batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.stages import STEPS
from tests.trainers.trainings import guide, lessons_of, taught, training
from trainers import speed
from trainers.balance import Balance
from trainers.loop import Training
from trainers.outputs import Outputs, Targets
from trainers.speed import Compiled
from trainers.task import Lesson
from trainers.teaching import Lessons

LEARNT = taught("LD", epochs=3)
LATE = speed.OFTEN + 2  # steps: the batches' size has its graph
EAGER = "aot_eager"  # traces networks and their gradients as any backend, and compiles nothing


def compiled(one: Training) -> Training:
    one.task.fast = Compiled(one.task.student, backend=EAGER)
    return one


def changed(change: Callable[[Lesson, int], Lesson]) -> Lessons:
    """What the teacher says, changed from step to step."""
    plain = lessons_of(guide())

    def lesson(images: Tensor, step: int) -> Lesson:
        said = plain(images, step)
        assert said is not None
        return change(said, step)

    return lesson


def check_alike(one: Training, other: Training, lessons: Lessons) -> None:
    """Both learn the same by these lessons, the first one compiled."""
    for each in (one, other):
        list(each.epochs(lessons))
    assert isinstance(one.task.fast, Compiled) and one.task.fast.graphs
    like(one.task.state_dict(), other.task.state_dict())


def like(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-5, msg=name)


# A loss that is looked at for the first time when there are graphs


@pytest.mark.parametrize(
    "change",
    [
        lambda said, step: said._replace(strength={"ld": float(step >= LATE)}),
        lambda said, step: said if step >= LATE else said._replace(said=[None]),
    ],
    ids=["it begins late", "its guide is not heard before"],
)
def test_a_loss_that_counts_late_is_checked(change: Callable[[Lesson, int], Lesson]) -> None:
    one = compiled(training(LEARNT))
    check_alike(one, training(LEARNT), changed(change))
    assert not one.unchecked


def test_a_loss_that_finds_nothing_at_first_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = compiled(training(LEARNT)), training(LEARNT)
    for each in (one, other):
        monkeypatch.setattr(each.task.distill["ld"], "forward", empty_until(LATE, each.task.distill["ld"].forward))
    check_alike(one, other, lessons_of(guide()))
    assert not one.unchecked


def empty_until(calls: int, plain: Any) -> Any:
    """A loss whose own region is empty in so many batches."""
    number = 0

    def forward(student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        nonlocal number
        number += 1
        value: Tensor = plain(student, teacher, targets)
        return value if number > calls else 0 * value

    return forward


# An alpha that is looked for


@pytest.mark.parametrize("looks", [2, 3 * STEPS + 1], ids=["found", "never found"])
def test_an_alpha_is_found_as_without_compiling(looks: int) -> None:
    one, other = (training(LEARNT) for _ in range(2))
    for each in (one, other):
        each.balance = Balance({"ld": 0.5}, {"ld": looks})
    compiled(one)
    for each in (one, other):
        list(each.epochs(lessons_of(guide())))
    like(one.task.state_dict(), other.task.state_dict())
    assert one.balance.alphas == pytest.approx(other.balance.alphas, rel=1e-4)
    assert one.balance.norms["ld"] == [pytest.approx(pair, rel=1e-4) for pair in other.balance.norms["ld"]]
    assert bool(one.task.fast.graphs) == (looks == 2), "as long as it is looked for, the student looks as it is"


def test_an_alpha_that_is_looked_for_later_keeps_no_student_from_being_compiled_before() -> None:
    one = training(LEARNT)
    one.balance = Balance({"ld": 0.5}, {"ld": 2})
    silent = changed(lambda said, step: said._replace(strength={"ld": 0.0}))
    list(compiled(one).epochs(silent))
    assert one.task.fast.graphs and not one.balance.norms["ld"]
