"""KD between second stages: whose regions, what is compared, the mean, and which pairs are refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.detectors.scenes import noise
from tests.trainers.test_every_detector import make
from tests.trainers.two_workers import together
from trainers.call import Invalid
from trainers.distill.kd import KD
from trainers.distill.soft import soft_kl
from trainers.outputs import Outputs, Regions, Targets, Truth
from trainers.task import Lesson, Task

WHOSE = pytest.mark.parametrize("whose", ["teacher", "student"])
SMALL = {"extra": 1, "hidden": 32, "pooled": 3, "sampled": 10**6}  # all regions: nothing is left to chance


def pair(*, classes: int = 3, student: str = "FasterRCNN", teacher: str = "FasterRCNN") -> tuple[Any, Any]:
    mine, taught = make(student, SMALL, classes, width=4), make(teacher, SMALL, classes, width=8)
    return mine.train(), taught.eval().requires_grad_(False)


def scene(boxes: int = 2, classes: int = 3) -> tuple[Tensor, Truth]:
    return noise((64, 64), (40, 50), padded=(64, 64), boxes=boxes, num_classes=classes)


def said(student: Any, teacher: Any, images: Tensor, truth: Truth) -> tuple[Outputs, Outputs, Targets]:
    with torch.no_grad():
        taught = teacher(images)
    mine = student(images)
    return mine, taught, student.assign(mine, truth)


@WHOSE
@pytest.mark.parametrize(("over_classes", "divisor"), [("sum", 1), ("mean", 4)])
def test_it_is_the_mean_over_shared_regions_of_the_kl_of_all_classes_and_background(whose, over_classes, divisor):
    student, teacher = pair()
    images, truth = scene()
    mine, taught, targets = said(student, teacher, images, truth)
    loss = KD(student, teacher, weight=3.0, temperature=2.0, proposer=whose, over_classes=over_classes)
    found = loss(mine, taught, targets)

    drawer, outputs = (teacher, taught) if whose == "teacher" else (student, mine)
    regions = drawer.sample(drawer.propose(outputs, truth.sizes), truth)
    p, q = (m.judge(o.features, regions.boxes, truth.sizes)[0] for m, o in ((student, mine), (teacher, taught)))
    assert p.shape == q.shape == (sum(len(boxes) for boxes in regions.boxes), 4)
    textbook = torch.nn.functional.kl_div(
        (p / 2).log_softmax(1), (q / 2).log_softmax(1), reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(found, 3 * 4 * textbook / divisor)


def test_the_teachers_regions_and_the_students_are_not_the_same():
    student, teacher = pair()
    trio = said(student, teacher, *scene())
    by_teacher, by_student = (KD(student, teacher, proposer=whose)(*trio) for whose in ("teacher", "student"))
    assert not torch.isclose(by_teacher, by_student)


@WHOSE
def test_both_stages_of_the_student_that_see_a_region_learn_and_the_teacher_does_not(whose):
    student, teacher = pair()
    teacher.requires_grad_(True)
    KD(student, teacher, proposer=whose)(*said(student, teacher, *scene())).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    learnt = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("backbone.") for name in learnt)
    assert "roi_heads.box_predictor.cls_score.weight" in learnt
    assert not any(name.startswith("rpn.") for name in learnt)  # regions carry no gradient


def test_a_teacher_that_agrees_asks_for_nothing():
    student, _ = pair()
    images, truth = scene()
    outputs = student(images)
    found = KD(student, student)(outputs, outputs, student.assign(outputs, truth))
    assert found.item() == 0
    found.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in student.parameters())


def test_a_batch_without_boxes_still_has_regions_of_background():
    student, teacher = pair()
    found = KD(student, teacher)(*said(student, teacher, *scene(boxes=0)))
    assert found.isfinite() and found > 0


class Blind:
    """A teacher that proposes nothing."""

    def __init__(self, teacher: Any) -> None:
        self.judge = teacher.judge

    def propose(self, outputs: Outputs, sizes: list[tuple[int, int]]) -> list[Tensor]:
        return [torch.zeros(0, 4) for _ in sizes]

    def sample(self, proposed: list[Tensor], truth: Truth) -> Regions:
        return Regions(proposed, [], [], [])


def test_without_any_region_it_is_an_exact_zero_with_a_gradient():
    student, teacher = pair()
    mine, taught, targets = said(student, teacher, *scene())
    found = KD(student, teacher)(mine, replace(taught, by=Blind(teacher)), targets)
    assert found.item() == 0 and found.requires_grad


def test_with_weight_zero_nobody_proposes_anything_and_every_gradient_stays_as_it_is_to_the_bit():
    images, truth = scene()

    def gradients(silent: bool) -> list[Tensor]:
        student, teacher = pair()
        taught = {"kd": KD(student, teacher, weight=0.0)} if silent else {}
        lesson = Lesson([replace(teacher(images), by=None)])  # cannot be asked
        torch.manual_seed(0)
        Task(student, taught)(images, truth, lesson).total.backward()
        return [p.grad for p in student.parameters()]

    for mine, alone in zip(gradients(silent=True), gradients(silent=False), strict=True):
        assert torch.equal(mine, alone)


def test_one_class_and_background_are_two_and_so_a_softmax_will_do():
    student, teacher = pair(classes=1)
    found = KD(student, teacher)(*said(student, teacher, *scene(classes=1)))
    assert found > 0


def test_a_mask_rcnn_may_teach_a_faster_rcnn():
    student, teacher = pair(teacher="MaskRCNN")
    assert KD(student, teacher)(*said(student, teacher, *scene())) > 0


def test_under_autocast_it_is_float32():
    student, teacher = pair()
    images, truth = scene()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = KD(student, teacher)(*said(student, teacher, images, truth))
    assert found.dtype == torch.float32 and found.isfinite()


# What is refused


def test_a_second_stage_is_no_sigmoid_and_has_no_valuable_region():
    student, teacher = pair()
    with pytest.raises(Invalid, match="softmax") as refusal:
        KD(student, teacher, form="binary")
    assert refusal.value.where == ("form",)
    with pytest.raises(Invalid, match="no valuable region") as refusal:
        KD(student, teacher, vlr_weight=1.0)
    assert refusal.value.where == ("vlr_weight",)


def test_other_classes_are_refused():
    with pytest.raises(Invalid, match=r"number of classes.*3.*7"):
        KD(pair()[0], pair(classes=7)[1])


def test_one_stage_and_two_have_nothing_to_compare():
    two, one = pair()[0], make("GFL", {})
    for student, teacher, role in ((one, two, "teacher"), (two, one, "student")):
        with pytest.raises(Invalid, match=f"the {role} has none: .*GFL, detectors of two stages.*FasterRCNN.*PKD"):
            KD(student, teacher)


def test_mimicdet_has_neither_cells_with_sigmoids_nor_a_second_stage_that_can_be_asked():
    model = make("MimicDet", {"channels": 32, "hidden": 64})
    with pytest.raises(Invalid, match=r"the student has none: .*FasterRCNN.*PKD"):
        KD(model, model)


# Two workers


SPLIT = ((0,), (1, 2))  # the images of each of two workers


def learn(images: Sequence[int]) -> dict[str, list[Tensor]]:
    """The loss, and the student's gradients, by each kind of regions."""
    every, truth = noise((64, 64), (64, 64), (64, 64))
    parts = [[x[i] for i in images] for x in (truth.boxes, truth.labels, truth.sizes, truth.ids, truth.scales)]
    found = {}
    for whose in ("teacher", "student"):
        student, teacher = pair()
        trio = said(student, teacher, every[list(images)], Truth(*parts))
        loss = KD(student, teacher, proposer=whose)(*trio)
        loss.backward()
        learnt = [p.grad for p in student.parameters() if p.grad is not None]
        found[whose] = [loss.detach(), *learnt]
    return found


def learn_together(rank: int) -> dict[str, list[Tensor]]:
    return learn(SPLIT[rank])


def test_two_workers_learn_what_one_does(tmp_path):
    left, right = together(learn_together, tmp_path)
    one = learn((0, 1, 2))
    for whose in ("teacher", "student"):
        for a, b, expected in zip(left[whose], right[whose], one[whose], strict=True):
            torch.testing.assert_close((a + b) / 2, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
        assert one[whose][0] > 0


def test_regions_are_drawn_by_the_rule_of_their_drawer():
    student, teacher = pair()
    teacher.roi_heads.fg_bg_sampler.batch_size_per_image = 5
    mine, taught, targets = said(student, teacher, *scene())
    seen = []

    class Watched:
        def judge(self, features: Any, boxes: list[Tensor], sizes: Any) -> Any:
            seen.append(boxes)
            return student.judge(features, boxes, sizes)

    torch.manual_seed(3)
    found = KD(student, teacher)(replace(mine, by=Watched()), taught, targets)
    (regions,) = seen
    assert [len(boxes) for boxes in regions] == [5, 5]
    p, q = (m.judge(o.features, regions, targets.truth.sizes)[0] for m, o in ((student, mine), (teacher, taught)))
    torch.testing.assert_close(found, 10 * soft_kl(p, q, temperature=2.0).mean())
