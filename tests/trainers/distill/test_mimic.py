"""Mimic reads both networks where one of them proposes, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.detectors.scenes import noise, truth
from tests.trainers.test_every_detector import make
from tests.trainers.two_workers import together
from trainers import backbones, detectors, distill
from trainers.call import Call, Invalid
from trainers.distill import Mimic
from trainers.distill.mimic_regions import crop_distance, numbered
from trainers.outputs import Outputs, Targets, Truth
from trainers.task import Task

BOXES = [torch.tensor([[0.0, 0, 8, 8], [8.0, 0, 24, 16]]), torch.tensor([[4.0, 4, 12, 30]])]


@dataclass(frozen=True)
class Spine:
    strides: tuple[int, ...] = (8, 16)
    channels: tuple[int, ...] = (2, 3)


@dataclass(frozen=True)
class Figures:
    """What a loss may read of a two-stage detector, and what it says whatever it is asked."""

    num_classes: int = 2
    strides: tuple[int, ...] = (8, 16, 32)
    channels: int = 4
    backbone: Spine = Spine()
    boxes: list[Tensor] = field(default_factory=lambda: BOXES)
    judged: Callable[[int], tuple[Tensor, Tensor]] | None = None  # how many regions -> logits and deltas

    def propose(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Tensor]:
        return self.boxes

    def judge(self, features: list[Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        assert self.judged is not None, "nobody should have asked"
        return self.judged(sum(map(len, boxes)))


def said(seed: int, by: Figures | None = None, *, images: int = 2) -> Outputs:
    """Leaves in float64 that want a gradient, for images of 32 x 32 pixels."""
    generator = torch.Generator().manual_seed(seed)
    by = by or Figures()

    def draw(channels: tuple[int, ...], strides: tuple[int, ...]) -> list[Tensor]:
        sides = [-(-32 // stride) for stride in strides]
        shapes = [(images, c, side, side) for c, side in zip(channels, sides, strict=True)]
        return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]

    pyramid = draw((by.channels,) * len(by.strides), by.strides)
    return Outputs(pyramid, maps=draw(by.backbone.channels, by.backbone.strides), by=by)


def targets(real: Truth | None = None, *, images: int = 2) -> Targets:
    empty = torch.zeros(0, dtype=torch.long)
    real = real or truth(*([[]] * images), size=(32, 32))
    return Targets(empty, empty, empty, torch.zeros(0, 4), empty.bool(), 3, real)


def mimic(student: Any = None, teacher: Any = None, **knobs: Any) -> Mimic:
    """In float64, and without an adapter unless one is asked for."""
    return Mimic(student or Figures(), teacher or Figures(), **{"adapter": False, **knobs}).double()


# The value


def test_by_hand() -> None:
    # Everywhere the teacher is 3 more. Three regions: 1 / (2 * 3) * 3 * 3^2.
    student = said(1)
    teacher = Outputs([x.detach() + 3 for x in student.features], by=Figures())
    assert mimic()(student, teacher, targets()).item() == pytest.approx(9 / 2)
    assert mimic(weight=2.0)(student, teacher, targets()).item() == pytest.approx(9)
    # Without 1 / m: 1, 4 and 8 cells of 4 channels.
    assert mimic(per_value=False)(student, teacher, targets()).item() == pytest.approx(9 * (1 + 4 + 8) * 4 / 6)


@pytest.mark.parametrize("region", ["align", "pyramid_pool"])
def test_by_hand_for_regions_of_one_size(region: str) -> None:
    student = said(1)
    teacher = Outputs([x.detach() + 3 for x in student.features], by=Figures())
    assert mimic(pooling=region)(student, teacher, targets()).item() == pytest.approx(9 / 2)
    values = 4 * (9 if region == "align" else 21)
    unnormalised = mimic(pooling=region, size=3, per_value=False)
    assert unnormalised(student, teacher, targets()).item() == pytest.approx(values * 9 / 2)


def test_each_region_is_read_from_the_level_that_fits_it() -> None:
    large = [torch.tensor([[0.0, 0, 32, 32]]), torch.tensor([[0.0, 0, 8, 8]])]
    by = Figures(strides=(1, 2, 4), backbone=Spine((1, 2)), boxes=large)  # from 28 pixels on the second level
    student, teacher = said(1, by), said(2, by)
    alone = [[large[0], large[1][:0]], [large[0][:0], large[1]]]
    wanted = sum(
        crop_distance(
            student.features[level], teacher.features[level], numbered(boxes), stride=2**level, per_value=True
        )
        for level, boxes in zip((1, 0), alone, strict=True)
    )
    torch.testing.assert_close(mimic(by, by)(student, teacher, targets()), wanted / 4)


def test_several_levels_are_a_mean_of_their_losses() -> None:
    student, teacher = said(1), said(2)
    first, second, both = (mimic(levels=n)(student, teacher, targets()) for n in ((0,), (1,), (0, 1)))
    torch.testing.assert_close(both, (first + second) / 2)
    assert first != second


def test_of_a_backbone_the_last_map_is_compared_if_nothing_is_said() -> None:
    student, teacher = said(1), said(2)
    last = mimic(source="backbone")(student, teacher, targets())
    wanted = crop_distance(student.maps[1], teacher.maps[1], numbered(BOXES), stride=16, per_value=True) / 6
    torch.testing.assert_close(last, wanted)
    torch.testing.assert_close(mimic(source="backbone", levels=(1,))(student, teacher, targets()), wanted)
    assert mimic(source="backbone", levels=(0,))(student, teacher, targets()) != last


def test_the_last_maps_of_unlike_backbones_are_read_at_the_same_pixels() -> None:
    """Maps whose values are where their cells are."""
    boxes = [torch.tensor([[24.0, 24, 40, 40], [20.0, 30, 44, 37]])]
    by = Figures(boxes=boxes, backbone=Spine((8,), (1,))), Figures(boxes=boxes, backbone=Spine((4, 4), (9, 1)))
    ramps = [(torch.arange(64 // stride) + 0.5) * stride for stride in (8, 4)]
    maps = [x.expand(1, 1, len(x), len(x)) for x in ramps]
    student, teacher = (Outputs([x], maps=[x], by=one) for x, one in zip(maps, by, strict=True))
    teacher.maps.insert(0, maps[0])
    loss = Mimic(*by, source="backbone", pooling="align", adapter=False)
    assert loss(student, teacher, targets(images=1)).item() == pytest.approx(0, abs=1e-8)


def test_the_adapter_turns_the_students_channels_into_the_teachers() -> None:
    wide = Figures(channels=6)
    for region in ("crop", "align", "pyramid_pool"):
        loss = mimic(teacher=wide, adapter=True, pooling=region)
        assert [tuple(r.weight.shape) for r in loss.adapters] == [(6, 4, 1, 1)] * 2
        student, teacher = said(1), said(2, wide)
        loss(student, teacher, targets()).backward()
        assert loss.adapters[0].weight.grad.any()
        with torch.no_grad():
            teacher.features[0].copy_(loss.adapters[0](student.features[0]))
        if region != "pyramid_pool":  # RoIAlign too is linear, and its weights sum to 1
            assert loss(student, teacher, targets()).item() == pytest.approx(0, abs=1e-12)


def test_a_linear_teacher_is_learnt_by_the_adapter_alone() -> None:
    student = said(1)
    mixing = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    taught = [torch.einsum("dc,bchw->bdhw", mixing, x.detach()) for x in student.features]
    torch.manual_seed(0)
    loss = mimic(adapter=True, levels=(0,))
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)
    start = loss(student, Outputs(taught), targets()).item()

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(student, Outputs(taught), targets())
        value.backward()
        return value

    optimizer.step(closure)
    assert loss(student, Outputs(taught), targets()).item() < 1e-6 * start


@pytest.mark.parametrize(("region", "source"), [*product(("crop", "align", "pyramid_pool"), ("pyramid", "backbone"))])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(region: str, source: str) -> None:
    student = said(1)
    loss = mimic(pooling=region, source=source)(student, student, targets())
    assert loss == 0
    for gradient in torch.autograd.grad(loss, student.features, allow_unused=True, materialize_grads=True):
        assert not gradient.any()


@pytest.mark.parametrize("region", ["crop", "align", "pyramid_pool"])
def test_a_batch_twice_over_has_the_same_loss(region: str) -> None:
    twice = Figures(boxes=BOXES * 2)
    once, again = ([said(n, by) for n in (1, 2)] for by in (Figures(), twice))
    for one, two in zip(once, again, strict=True):
        two.features[:] = [torch.cat([x, x]) for x in one.features]
    wanted = mimic(pooling=region)(*once, targets())
    torch.testing.assert_close(mimic(pooling=region)(*again, targets(images=4)), wanted)


def test_nothing_proposed_is_an_exact_zero_with_a_zero_gradient() -> None:
    nobody = Figures(boxes=[torch.empty(0, 4)] * 2, judged=lambda n: (torch.empty(n, 3), torch.empty(n, 12)))
    for region in ("crop", "align", "pyramid_pool"):
        loss = mimic(pooling=region, adapter=True, cls_weight=1.0, box_weight=1.0)
        student = said(1, nobody)
        value = loss(student, said(2, nobody), targets())
        value.backward()
        assert value == 0 and student.features[0].grad is not None and not student.features[0].grad.any()
        assert all(p.grad is not None and not p.grad.any() for p in loss.parameters())


def test_as_united_perception_has_it_it_is_half_the_mean_squared_difference_of_what_the_second_stages_pool() -> None:
    own = {"extra": 1, "hidden": 64, "pooled": 7}
    student, teacher = make("FasterRCNN", own, width=4).train(), make("FasterRCNN", own).eval()
    images, real = noise((128, 160), (100, 150), padded=(128, 160))
    with torch.no_grad():
        outputs, lesson = student(images), teacher(images)
        boxes = teacher.propose(lesson, real.sizes)
        pooled = [one.by.pool(one.features, boxes, real.sizes) for one in (outputs, lesson)]
        loss = Mimic(
            student, teacher, proposer="teacher", balanced=False, proposals=1000, pooling="align", adapter=False
        )
        value = loss(outputs, lesson, student.assign(outputs, real))
    assert len({int(n) for n in student.roi_heads.box_roi_pool.level(torch.cat(boxes))}) > 1, "more than one level"
    torch.testing.assert_close(value, torch.nn.functional.mse_loss(*pooled) / 2)


# Which regions


def test_the_best_proposals_of_the_student_are_read_or_those_of_the_teacher() -> None:
    other = Figures(boxes=[boxes + 3 for boxes in BOXES])
    student, teacher = said(1), said(2, other)

    def distance(boxes: list[Tensor]) -> Tensor:
        level = student.features[0], teacher.features[0]
        return crop_distance(*level, numbered(boxes), stride=8, per_value=True)

    torch.testing.assert_close(mimic()(student, teacher, targets()), distance(BOXES) / 6)
    of_teacher = mimic(proposer="teacher")(student, teacher, targets())
    torch.testing.assert_close(of_teacher, distance(other.boxes) / 6)
    best = mimic(proposals=1)(student, teacher, targets())
    torch.testing.assert_close(best, distance([boxes[:1] for boxes in BOXES]) / 4)


def test_half_of_the_proposals_are_on_objects_if_there_are_so_many() -> None:
    off, on = [16.0, 16, 24, 24], [0.0, 0, 8, 8]
    by = Figures(boxes=[torch.tensor([off, off, off, on, on]), torch.tensor([off, off, off, off, off])])
    student, teacher = said(1, by), said(2, by)
    real = targets(truth([on], [on], size=(32, 32)))

    def distance(*boxes: list[list[float]]) -> Tensor:
        level = student.features[0], teacher.features[0]
        return crop_distance(*level, numbered([torch.tensor(b) for b in boxes]), stride=8, per_value=True) / 16

    found = mimic(proposals=4)(student, teacher, real), mimic(proposals=4, balanced=False)(student, teacher, real)
    torch.testing.assert_close(found[0], distance([off, off, on, on], [off] * 4))
    torch.testing.assert_close(found[1], distance([off, off, off, on], [off] * 4))


# The second stage


def test_the_second_stage_by_hand() -> None:
    def judge(logits: list[float], deltas: float) -> Callable[[int], tuple[Tensor, Tensor]]:
        return lambda n: (torch.tensor([logits]).expand(n, 3), torch.full((n, 12), deltas))

    even, sure = judge([0.0, 0.0, 0.0], 0.0), judge([0.0, 50.0, 0.0], 0.5)
    student, teacher = said(1, Figures(judged=even)), said(2, Figures(judged=sure))
    cls = (1 / 3) ** 2 + (2 / 3) ** 2 + (1 / 3) ** 2  # of each of the three regions
    knobs = {"weight": 0.0, "cls_weight": 3.0}
    assert mimic(**knobs)(student, teacher, targets()).item() == pytest.approx(3 * cls / 2)
    knobs["box_weight"] = 5.0
    assert mimic(**knobs)(student, teacher, targets()).item() == pytest.approx(3 * cls / 2 + 5 * 4 * 0.25 / 2)


def test_what_has_no_weight_is_not_computed() -> None:
    student, teacher = said(1), said(2)  # `judge` of these objects
    mimic()(student, teacher, targets())
    assert mimic(weight=0.0)(student, teacher, targets()) == 0
    loss = mimic(weight=0.0, cls_weight=1.0, adapter=True, teacher=Figures(channels=6))
    assert not list(loss.parameters())
    with pytest.raises(AssertionError, match="nobody should have asked"):
        loss(student, teacher, targets())


def faster(width: int = 4, **knobs: Any) -> Any:
    return make("FasterRCNN", {"extra": 1, "hidden": 64, "pooled": 5}, width=width, **knobs)


@pytest.mark.parametrize("region", ["crop", "align", "pyramid_pool"])
def test_a_real_student_learns_in_both_of_its_stages(region: str) -> None:
    student, teacher = faster(num_classes=1).train(), faster(8, num_classes=1).eval().requires_grad_(False)
    torch.manual_seed(0)
    loss = Mimic(student, teacher, pooling=region, cls_weight=1.0, box_weight=1.0, proposals=32)
    images, real = noise((64, 64), (40, 50), padded=(64, 64), num_classes=1)
    with torch.no_grad():
        lesson = teacher(images)
    outputs = student(images)
    value = loss(outputs, lesson, student.assign(outputs, real))
    value.backward()
    silent = {name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()}
    assert value.isfinite() and value > 0
    # The first stage's own predictions are not taught, and no region is large enough for the coarser levels.
    assert {name for name in silent if not name.startswith(("rpn.", "neck."))} == set()
    assert all(p.grad is None for p in teacher.parameters())


def test_the_student_learns_what_the_teacher_says_by_mimicry_alone() -> None:
    student, teacher = faster().train(), faster(8).eval().requires_grad_(False)
    torch.manual_seed(0)
    task = Task(student, {"mimic": Mimic(student, teacher, cls_weight=1.0, box_weight=1.0, proposals=64)})
    images, real = noise((64, 64), (64, 64), padded=(64, 64))
    with torch.no_grad():
        lesson = teacher(images)
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    seen = []
    for _ in range(40):
        outputs = student(images)
        loss = task.distill["mimic"](outputs, lesson, student.assign(outputs, real))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.4 * seen[0]


# Who fits


def built(detector: dict[str, Any] | str, backbone: dict[str, Any] | str) -> Any:
    with torch.device("meta"):
        spine = Call.model_validate(backbone).complete(backbones).of(backbones)
        return Call.model_validate(detector).complete(detectors).of(detectors, spine, 3)


def refused(student: Any, teacher: Any, message: str, **knobs: Any) -> tuple[str | int, ...]:
    call = Call(name="Mimic", args=knobs).complete(distill)
    with pytest.raises(Invalid, match=message) as caught, torch.device("meta"):
        call.of(distill, student, teacher)
    return caught.value.where


def test_a_network_without_proposals_is_refused_with_what_would_do() -> None:
    one, two = built("RetinaNet", "TinyResNet"), built("FasterRCNN", "TinyResNet")
    where = refused(one, two, "the student has none: write proposer: teacher, .* FasterRCNN, or .* PKD$")
    assert where == ("proposer",)
    refused(two, one, "the teacher has none: write proposer: student", proposer="teacher")
    assert refused(one, one, "the student has none: use a two-stage detector") == ()
    for knob in ("cls_weight", "box_weight"):
        says = f"{knob} compares second stages, and the teacher has none: leave {knob} out"
        assert refused(two, one, says, **{knob: 1.0}) == (knob,)


def test_what_is_said_of_a_student_without_proposals_leads_to_a_pair_that_fits() -> None:
    gfl, faster_rcnn = (built(kind, {"ResNet": {"depth": 18}}) for kind in ("GFL", "FasterRCNN"))
    refused(gfl, faster_rcnn, "write proposer: teacher")
    refused(gfl, faster_rcnn, "write pooling: align", proposer="teacher")
    assert Mimic(gfl, faster_rcnn, proposer="teacher", pooling="align").strides[0] == (8, 4)


def test_a_student_with_proposals_of_its_own_can_mimic_a_one_stage_teacher() -> None:
    retina, faster_rcnn = built("RetinaNet", "TinyResNet"), built("FasterRCNN", "TinyResNet")
    assert Mimic(faster_rcnn, retina, source="backbone").pairs == [(2, 2)]


def test_crops_of_unlike_strides_are_refused_and_regions_of_one_size_are_not() -> None:
    tiny, inception = built("FasterRCNN", "TinyResNet"), built("FasterRCNN", {"Inception": {"divide": 8}})
    where = refused(tiny, inception, "a stride of 16 and the teacher's of 32: write pooling: align", source="backbone")
    assert where == ("pooling",)
    for region in ("align", "pyramid_pool"):
        loss = Mimic(tiny, inception, source="backbone", pooling=region)
        assert loss.pairs == [(2, 3)] and loss.strides == [(16, 32)]
    assert Mimic(tiny, inception).strides == [(4, 4), (8, 8), (16, 16)]


def test_a_student_on_half_the_image_fits_a_teacher_on_the_whole() -> None:
    whole = built("FasterRCNN", {"Inception": {"divide": 8}})
    half = built("FasterRCNN", {"Halved": {"backbone": {"Inception": {"divide": 16}}}})
    assert Mimic(half, whole, source="backbone").strides == [(32, 32)]
    assert Mimic(half, whole).strides == [(4, 4), (8, 8), (16, 16), (32, 32)]


def test_unlike_channels_need_the_adapter() -> None:
    narrow, wide = (built({"FasterRCNN": {"channels": n}}, "TinyResNet") for n in (16, 32))
    where = refused(narrow, wide, "student's have 16 and the teacher's 32: write adapter: true", adapter=False)
    assert where == ("adapter",)


@pytest.mark.parametrize(("source", "levels"), [("pyramid", ()), ("pyramid", (3,)), ("backbone", (0, 0))])
def test_levels_that_do_not_exist_are_refused(source: str, levels: tuple[int, ...]) -> None:
    same = built("FasterRCNN", "TinyResNet")  # the pooled level has no map
    where = refused(same, same, "write one or more of 0 to 2, each once", source=source, levels=list(levels))
    assert where == ("levels",)


def test_second_stages_of_other_classes_are_refused() -> None:
    with pytest.raises(Invalid, match="number of classes"):
        mimic(teacher=Figures(num_classes=3), cls_weight=1.0)
    assert mimic(teacher=Figures(num_classes=3)).weight == 1


@pytest.mark.parametrize("knobs", [{"proposals": 0}, {"pooling": "whole"}, {"weight": -1.0}, {"size": 0}])
def test_knobs_out_of_range_are_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Call(name="Mimic", args=knobs).complete(distill)


# Workers

SPLIT = ((0,), (1, 2))  # the images of each of the two workers
COUNTS = {"more on one": (1, 3, 2), "on one worker only": (0, 2, 1), "nowhere": (0, 0, 0)}


def learn(images: tuple[int, ...]) -> dict[tuple[str, str], Tensor]:
    """(2,) for each kind of region and case: the loss, and the gradient of the one weight of a student."""
    found = {}
    for (case, counts), region in product(COUNTS.items(), ("crop", "align", "pyramid_pool")):
        boxes = [torch.tensor([[0.0, 0, 8, 8], [3.0, 1, 24, 30], [8.0, 8, 20, 32]])[: counts[i]] for i in images]

        def judged(number: int) -> tuple[Tensor, Tensor]:
            return torch.ones(number, 3), torch.ones(number, 12)

        by = Figures(boxes=boxes, judged=judged)
        teacher_by = Figures(judged=lambda n: (torch.eye(3)[torch.arange(n) % 3], torch.zeros(n, 12)))
        weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        student, teacher = said(1, by, images=3), said(2, teacher_by, images=3)
        student.features[:] = [weight * x[list(images)] for x in student.features]
        teacher.features[:] = [x[list(images)] for x in teacher.features]
        loss = mimic(pooling=region, cls_weight=0.5, box_weight=0.5)
        value = loss(student, teacher, targets(images=len(images)))
        value.backward()
        assert weight.grad is not None
        found[case, region] = torch.stack([value.detach(), weight.grad])
    return found


def learn_together(rank: int) -> dict[tuple[str, str], Tensor]:
    return learn(SPLIT[rank])


def test_two_workers_learn_what_one_does(tmp_path: Path) -> None:
    left, right = together(learn_together, tmp_path)
    for key, one in learn((0, 1, 2)).items():
        torch.testing.assert_close((left[key] + right[key]) / 2, one)
        assert (one != 0).all() == (key[0] != "nowhere")
