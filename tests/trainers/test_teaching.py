"""How much of what each guide says counts at each step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.stages import stage
from tests.trainers.trainings import guide, identical, taught, training
from tests.trainers.two_workers import together
from trainers import build
from trainers.call import Invalid, Term
from trainers.outputs import Outputs, Targets
from trainers.spec import Guides, Stage
from trainers.task import Lesson, Task, nothing
from trainers.teaching import Teaching, heard, share

# When a loss counts


def course(*, steps: int, epochs: int, **when: Any) -> list[float]:
    """The share at every step."""
    term = Term(name="LD", **when)
    return [share(term, step, steps=steps, epochs=epochs) for step in range(steps * epochs)]


def test_a_loss_counts_in_full_at_every_step_if_nothing_is_said() -> None:
    assert course(steps=3, epochs=2) == [1.0] * 6


def test_epochs_are_counted_from_one_and_the_last_is_among_them() -> None:
    term = Term(name="LD", epochs=(2, 3))
    assert [share(term, step, steps=2, epochs=4) for step in range(8)] == [0, 0, 1, 1, 1, 1, 0, 0]


def test_a_ramp_rises_in_equal_steps_once_the_steps_before_it_have_passed() -> None:
    assert course(steps=4, epochs=2, after=2, ramp=4) == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_a_fade_falls_over_the_last_part_of_its_time_and_never_reaches_zero_while_it_counts() -> None:
    assert course(steps=4, epochs=2, fade=0.5) == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert course(steps=2, epochs=2, fade=1) == [1, 0.75, 0.5, 0.25]


def test_a_rise_and_a_fall_that_meet_give_the_smaller_of_the_two() -> None:
    assert course(steps=4, epochs=1, ramp=4, fade=1) == [0.25, 0.5, 0.5, 0.25]


@given(
    first=st.integers(1, 5),
    length=st.integers(0, 5) | st.none(),
    after=st.integers(0, 9),
    ramp=st.integers(0, 9),
    fade=st.floats(0, 1),
    steps=st.integers(1, 7),
    epochs=st.integers(1, 8),
)
def test_a_share_lies_between_zero_and_one_and_is_zero_outside_its_epochs(
    first: int, length: int | None, after: int, ramp: int, fade: float, steps: int, epochs: int
) -> None:
    last = None if length is None else first + length
    term = Term(name="LD", epochs=(first, last), after=after, ramp=ramp, fade=fade)
    for step in range(steps * epochs):
        value = share(term, step, steps=steps, epochs=epochs)
        assert 0 <= value <= 1
        inside = first <= step // steps + 1 <= (last or epochs) and step - (first - 1) * steps >= after
        assert (value > 0) == inside


# Who is heard


def test_all_guides_are_heard_if_nothing_is_dropped() -> None:
    assert heard(Guides(who="all"), 3, seed=0, step=5) == {0, 1, 2}


def test_assistants_are_heard_as_often_as_said_and_the_root_teacher_always() -> None:
    policy = Guides(who="all", keep=0.75)
    drawn = [heard(policy, 3, seed=0, step=step) for step in range(2000)]
    assert all(2 in guides for guides in drawn)
    for assistant in (0, 1):
        assert abs(sum(assistant in guides for guides in drawn) / 2000 - 0.75) < 0.04
    both = sum({0, 1} <= guides for guides in drawn) / 2000
    assert abs(both - 0.75**2) < 0.04, "they are drawn one by one"


def test_as_many_guides_are_dropped_as_said_the_root_teacher_too_but_never_all() -> None:
    drawn = [heard(Guides(who="all", drop=1), 3, seed=0, step=step) for step in range(300)]
    assert {len(guides) for guides in drawn} == {2}
    assert set.union(*drawn) == {0, 1, 2} and any(2 not in guides for guides in drawn)
    assert {len(heard(Guides(who="all", drop=9), 3, seed=0, step=step)) for step in range(9)} == {1}


def test_what_is_drawn_depends_on_seed_and_step_alone() -> None:
    policy = Guides(who="all", keep=0.5)

    def all_of(seed: int) -> list[set[int]]:
        return [heard(policy, 4, seed=seed, step=step) for step in range(20)]

    before = all_of(1)
    torch.rand(3)
    assert all_of(1) == before != all_of(2)


class Speaker(nn.Module):
    """A guide that counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def forward(self, images: Tensor) -> Outputs:
        self.times += 1
        assert not torch.is_grad_enabled()
        return Outputs([images])


def of_guides(speakers: list[Speaker], terms: dict[str, Term], listens: dict[str, int], **guides: Any) -> Teaching:
    one = taught("LD", epochs=3, guides={"who": "all", **guides})
    return Teaching(speakers, terms, listens, one, steps=2)


def test_a_guide_to_whom_nobody_listens_at_a_step_is_not_run() -> None:
    near, root = Speaker(), Speaker()
    terms = {"ld": Term(name="LD", epochs=(2, None)), "ld_of_guide_2": Term(name="LD", epochs=(3, None))}
    lessons = of_guides([near, root], terms, {"ld": 0, "ld_of_guide_2": 1})
    said = [[one is not None for one in lessons(torch.zeros(1, 3, 8, 8), step).said] for step in range(6)]
    assert said == [[False, False]] * 2 + [[True, False]] * 2 + [[True, True]] * 2
    assert (near.times, root.times) == (4, 2)


def test_the_detection_losses_count_once_for_each_guide_or_once() -> None:
    speakers, terms = [Speaker(), Speaker(), Speaker()], {"ld": Term(name="LD")}
    images = torch.zeros(1, 3, 8, 8)
    assert of_guides(speakers, terms, {"ld": 0})(images, 0).detection == 3
    assert of_guides(speakers, terms, {"ld": 0}, balance=False)(images, 0).detection == 1


# What the task makes of it


class Part(nn.Module):
    """A loss with a weight of its own, of what its guide said."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Parameter(torch.ones(()))

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        return self.adapter * student.features[0].mean() * teacher.features[0].mean()


def batch_of(run: Any) -> Any:
    return next(run.batches.epoch(0))


def test_a_loss_is_multiplied_by_its_share_and_listens_to_its_own_guide() -> None:
    run = training(taught("LD"), {})
    task = Task(run.task.student.eval(), {"a": Part(), "b": Part()}, {"b": 1})
    said = [Outputs([torch.full((1,), value)]) for value in (2.0, 6.0)]
    images, truth = batch_of(run)
    full = task(images, truth, Lesson(said)).by_name
    part = task(images, truth, Lesson(said, {"a": 0.25, "b": 0.5}, detection=3)).by_name
    torch.testing.assert_close(full["b"], 3 * full["a"])
    torch.testing.assert_close(part["a"], full["a"] / 4)
    torch.testing.assert_close(part["b"], full["b"] / 2)
    torch.testing.assert_close(part["qfl"], 3 * full["qfl"])


@pytest.mark.parametrize("lesson", [None, Lesson([None]), Lesson([Outputs([])], {"part": 0.0})])
def test_a_loss_that_does_not_count_is_zero_with_a_zero_gradient_for_its_adapter(lesson: Lesson | None) -> None:
    run = training(taught("LD"), {"part": Part()})
    losses = run.task(*batch_of(run), lesson)
    assert losses.by_name["part"] == 0 and not losses.counting
    losses.total.backward()
    assert run.task.distill["part"].adapter.grad == 0


def test_nothing_of_a_loss_without_adapters_is_a_plain_zero() -> None:
    assert nothing(nn.Identity(), torch.ones(2)).item() == 0


# A stage with several guides


def dense(**guides: Any) -> Stage:
    assistant = taught("LD", seed=3)
    return stage({"LD": {"weight": 2}}, "KD", teacher=assistant, epochs=1, guides={"who": "all", **guides})


def test_every_loss_is_built_for_every_guide_and_named_after_it() -> None:
    built = build.losses(dense().distill, guide(), [guide(), guide(), guide()])
    names = ["ld", "ld_of_guide_2", "ld_of_guide_3", "kd", "kd_of_guide_2", "kd_of_guide_3"]
    assert list(built.modules) == list(built.terms) == names
    assert list(built.guides.values()) == [0, 1, 2, 0, 1, 2]


def test_two_equal_guides_teach_twice_as_much_as_one() -> None:
    one, teacher = dense(), guide()
    gradients = []
    for number in (1, 2):
        torch.manual_seed(0)
        student = build.detector(one)
        losses = build.losses(one.distill, student, [teacher] * number)
        task = Task(student, losses.modules, losses.guides)
        images, truth = batch_of(training(one, {}))
        found = task(images, truth, Lesson([teacher(images)] * number, detection=0.0)).total
        gradients.append(torch.autograd.grad(found, list(student.parameters()), allow_unused=True))
    for once, twice in zip(*gradients, strict=True):
        assert (once is None) == (twice is None)
        if once is not None:
            torch.testing.assert_close(twice, 2 * once)


def test_a_training_with_dropped_guides_goes_on_to_the_bit() -> None:
    one = dense(keep=0.5).model_copy(update={"recipe": dense(keep=0.5).recipe.model_copy(update={"epochs": 3})})
    guides = [guide(), guide()]

    def fresh() -> Any:
        torch.manual_seed(0)
        student = build.detector(one)
        losses = build.losses(one.distill, student, guides)
        run = training(one, {})
        run = type(run)(Task(student, losses.modules, losses.guides), one.recipe, run.batches, device=run.device)
        return run, Teaching(guides, losses.terms, losses.guides, one, steps=run.batches.steps)

    straight, lessons = fresh()
    list(straight.epochs(lessons))
    first, lessons = fresh()
    state = next(first.epochs(lessons)).state
    second, lessons = fresh()
    second.restore(state)
    list(second.epochs(lessons))
    assert identical(straight.product.state_dict(), second.product.state_dict())


# Several workers


def part_time(rank: int) -> list[Tensor]:
    """The gradients of a loss's adapter at a step where it counts on no worker, and at one where it does."""
    run = training(taught("LD"), {"part": Part()})
    task = DistributedDataParallel(run.task)
    images, truth = batch_of(run)
    found = []
    for strength in (0.0, 1.0):
        task.zero_grad()
        task(images, truth, Lesson([Outputs([torch.ones(1)])], {"part": strength})).total.backward()
        found.append(run.task.distill["part"].adapter.grad.clone())
    return found


def test_workers_do_not_wait_for_the_adapter_of_a_loss_that_does_not_count(tmp_path: Path) -> None:
    for silent, counting in together(part_time, tmp_path):
        assert silent == 0 and counting != 0


def test_a_loss_that_would_never_count_is_refused_before_anything_is_trained() -> None:
    for when in ({"after": 6}, {"epochs": (4, None)}, {"epochs": (2, 2), "after": 2}):
        with pytest.raises(Invalid, match=r"ld would begin after \d steps and end after \d, and so never count"):
            of_guides([Speaker()], {"ld": Term(name="LD", **when)}, {"ld": 0})


def test_a_shortened_training_keeps_the_part_in_which_a_loss_counts() -> None:
    term = Term(name="LD", epochs=(5, 8), after=10, ramp=20, fade=0.5)
    assert term.shortened(1.0, epochs=12) is term
    half = term.shortened(0.5, epochs=6)
    assert (half.epochs, half.after, half.ramp, half.fade) == ((3, 4), 5, 10, 0.5)
    last = Term(name="LD", epochs=(12, None)).shortened(0.1, epochs=1)
    assert last.epochs == (1, None)
