"""What a batch's truth tells is found before the student looks, where shapes are enough, and changes nothing."""

from dataclasses import replace
from typing import Any

import torch

from tests.trainers.detectors.scenes import noise
from tests.trainers.recorded import Recorded
from tests.trainers.test_every_detector import EVERY, OFFERED, make, over
from tests.trainers.trainings import guide, identical, lessons_of, taught, training
from trainers.distill.ld import LD
from trainers.foresight import Foresight
from trainers.loop import Training
from trainers.outputs import Targets
from trainers.task import Lesson

BY_SHAPE = over([(name, own) for name, own in EVERY.args[1] if hasattr(OFFERED[name], "by_shape")])
IMAGES, TRUTH = noise((64, 64), (64, 48))


def known(model: Any, losses: Any = (), *, truth: Any = TRUTH) -> Targets:
    """The targets of a batch, found before the model looks at it."""
    one = Foresight(model)
    one.note(IMAGES, model(IMAGES))
    targets = one.targets(torch.zeros_like(IMAGES), truth, losses)
    assert targets is not None
    return targets


def check_same(found: Targets, expected: Targets) -> None:
    for name in ("row", "level", "label", "box", "valid"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert identical(found.own, expected.own)


@BY_SHAPE
def test_they_are_the_targets_of_what_the_student_says(name: str, own: dict[str, Any]) -> None:
    model = make(name, own)
    check_same(known(model), model.assign(model(IMAGES), TRUTH))


@EVERY
def test_who_reads_what_a_student_says_is_asked_afterwards(name: str, own: dict[str, Any]) -> None:
    model = make(name, own)
    one = Foresight(model)
    assert one.targets(IMAGES, TRUTH, ()) is None, "nobody knows its maps"
    one.note(IMAGES, model(IMAGES))
    assert (one.targets(IMAGES, TRUTH, ()) is None) == (not hasattr(model, "by_shape"))
    assert one.targets(IMAGES[:1], TRUTH, ()) is None, "a batch of another size has other maps"


def test_shapes_take_no_memory() -> None:
    model = make("GFL", {})
    one = Foresight(model)
    one.note(IMAGES, model(IMAGES))
    (shapes,) = one.shapes.values()
    assert all(x.untyped_storage().nbytes() <= 4 and not x.requires_grad for x in (*shapes.cls, *shapes.maps))


def test_a_loss_finds_its_region_there() -> None:
    model = make("GFL", {})
    loss = LD(model, model)
    targets = known(model, [loss])
    looked: list[str] = []
    before = set(targets.own)
    outputs = replace(model(IMAGES), by=Watched(model, looked))
    found = loss.regions(outputs, targets)
    assert not looked and set(targets.own) == before and len(found) == 2
    expected = loss.regions(model(IMAGES), model.assign(model(IMAGES), TRUTH))
    assert torch.equal(found[1][1].row, expected[1][1].row)


class Watched:
    """A detector that notes what it is asked."""

    def __init__(self, model: Any, asked: list[str]) -> None:
        self.model, self.asked = model, asked

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self.model, name)


def test_it_is_found_on_the_lane_by_which_the_batch_came_and_all_of_it_is_waited_for() -> None:
    model, lane = make("GFL", {}), Recorded()
    plain = model.assign

    def assign(*args: Any) -> Targets:
        assert lane.within
        targets: Targets = plain(*args)
        return targets

    model.assign = assign
    shapes = Foresight(model)
    shapes.note(IMAGES, model(IMAGES))
    truth: Any = replace(TRUTH, lane=lane)
    targets = shapes.targets(IMAGES, truth, [LD(model, model)])
    assert targets is not None
    region = next(value for name, value in targets.own.items() if name.startswith("valuable"))
    made = [targets.row, targets.level, targets.label, targets.box, targets.valid, targets.own["threshold"], *region]
    assert {id(x) for x in made} <= {id(x) for x in lane.joined}


def learnt(*, by_shape: bool) -> tuple[Training, list[str]]:
    """A training to its end, and in which order its student was asked."""
    one, asked = training(taught("LD", "KD", epochs=3)), list[str]()
    one.task.student.by_shape = by_shape
    plain = one.task.student.assign

    def assign(*args: Any) -> Targets:
        asked.append("assign")
        targets: Targets = plain(*args)
        return targets

    one.task.student.assign = assign
    one.task.student.register_forward_pre_hook(lambda *_: asked.append("look"))
    list(one.epochs(lessons_of(guide())))
    return one, asked


def test_a_training_learns_the_same_to_the_bit_and_asks_before_it_looks() -> None:
    (one, asked), (other, plainly) = learnt(by_shape=True), learnt(by_shape=False)
    assert identical(one.task.state_dict(), other.task.state_dict())
    assert plainly == ["look", "assign"] * 12
    assert asked == ["look", "assign"] + ["assign", "look"] * 11


def test_a_loss_that_is_silent_foresees_nothing() -> None:
    one = training(taught("LD"))
    seen: list[str] = []
    one.task.distill["ld"].foresee = lambda *_: seen.append("ld")
    said = lessons_of(guide())
    for strength, expected in ((0.0, []), (1.0, ["ld"])):
        for images, truth in one.batches.epoch(0):
            lesson = said(images, 0)
            assert lesson is not None
            one.task(images, truth, Lesson(lesson.said, {"ld": strength}))
        assert seen[:1] == expected
