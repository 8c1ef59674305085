"""Every loss either teaches a detector by a larger one of its kind, or says at once why it cannot."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.detectors.scenes import noise
from tests.trainers.test_every_detector import CASES, EVERY, make
from tests.trainers.test_every_loss import FASTER, GFL, ON
from trainers import distill
from trainers.call import Call, Invalid, offers
from trainers.export import Raw, graph
from trainers.outputs import Network
from trainers.reach import check
from trainers.task import Lesson, Task

LOSSES = sorted(offers(distill))
DENSE = {"ATSS", "FCOS", "GFL", "GFLv2", "RepPoints", "RetinaNet"}
TWO_STAGES = {"FasterRCNN", "MaskRCNN"}
KINDS = DENSE | TWO_STAGES | {"MimicDet"}
# Which detectors each loss teaches by a larger one of their kind. A new loss needs a line here.
TAUGHT = {
    "CWD": KINDS,
    "CrossKD": DENSE - {"RepPoints"},
    "DeFeat": KINDS,
    "FGD": KINDS,
    "FGFI": KINDS,
    "GI": DENSE,
    "Imitation": KINDS,
    "KD": DENSE | TWO_STAGES,
    "LD": {"GFL", "GFLv2", "ATSS with bins", "FCOS with bins", "RetinaNet with bins"},
    "Mimic": TWO_STAGES,
    "PKD": KINDS,
    "TADF": KINDS,
}


def teaches(loss: str, name: str, own: dict[str, Any]) -> bool:
    return name in TAUGHT[loss] or ("reg_max" in own and f"{name} with bins" in TAUGHT[loss])


def fresh(name: str, own: dict[str, Any], *, width: int) -> Network:
    """A detector that nothing was done to."""
    return copy.deepcopy(built(CASES.index((name, own)), width))


@cache
def built(number: int, width: int) -> Network:
    name, own = CASES[number]
    return make(name, own, width=width)


def test_every_loss_and_every_detector_is_in_the_lists_above() -> None:
    assert set(TAUGHT) == set(LOSSES)
    assert {name for name, _ in CASES} == KINDS


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
def test_it_reaches_the_student_or_is_refused_with_the_reason(name: str, own: dict[str, Any], loss: str) -> None:
    student, teacher = fresh(name, own, width=4), fresh(name, own, width=8).eval().requires_grad_(False)
    torch.manual_seed(0)
    call = Call(name=loss).complete(distill)
    if not teaches(loss, name, own):
        with pytest.raises(Invalid) as refusal:
            call.of(distill, student, teacher)
        words = set(re.findall(r"\w+", str(refusal.value)))
        others = {other for other in LOSSES if teaches(other, name, own)}
        assert loss in words and words & (TAUGHT[loss] | others), "it names itself, and what would do"
        return
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    task = Task(student, {loss.lower(): call.of(distill, student, teacher)}).train()
    with torch.no_grad():
        lesson = Lesson([teacher(images)])
    losses = task(images, truth, lesson)
    unchecked = {loss.lower(): 0}
    check(task, losses, unchecked, torch.amp.grad_scaler.GradScaler(enabled=False))
    assert not unchecked, "there was something to learn"
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    if loss == "CrossKD" or name == ON.get(loss, GFL)[0]:  # the one that asks its detectors to keep more than they do
        check_same(student, fresh(name, own, width=4), images)


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
def test_who_says_that_features_are_enough_learns_the_same_from_a_teacher_without_a_head(
    name: str, own: dict[str, Any], loss: str
) -> None:
    student, teacher = fresh(name, own, width=4).train(), fresh(name, own, width=8).eval().requires_grad_(False)
    if not hasattr(teacher, "features_only") or not teaches(loss, name, own):
        return
    built = Call(name=loss).complete(distill).of(distill, student, teacher)
    if not getattr(built, "features_only", False):
        return
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    outputs = student(images)
    targets, whole = student.assign(outputs, truth), teacher(images)
    teacher.features_only = True
    brief = teacher(images)
    assert not (brief.cls or brief.box or brief.own) and (whole.cls or whole.own)
    assert torch.equal(built(outputs, brief, targets), built(outputs, whole, targets))


def check_same(taught: Network, alone: Network, images: Tensor) -> None:
    """A student that was taught has the weights of one that was not, and says the same by the same weights."""
    assert {key: value.shape for key, value in taught.state_dict().items()} == {
        key: value.shape for key, value in alone.state_dict().items()
    }
    taught.load_state_dict(alone.state_dict())
    with torch.no_grad():
        for x, y in zip(Raw(taught.eval())(images), Raw(alone.eval())(images), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("loss", ["LD", "KD"])
@pytest.mark.parametrize(("teacher", "student"), [("GFL", "ATSS"), ("GFLv2", "GFL"), ("ATSS", "GFLv2")])
def test_detectors_of_different_kinds_with_equal_cells_and_bins_teach_one_another(
    teacher: str, student: str, loss: str
) -> None:
    strong, weak = (make(n, {"reg_max": 8}, width=w) for n, w in ((teacher, 8), (student, 4)))
    taught = Call(name=loss).complete(distill).of(distill, weak, strong)
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    with torch.no_grad():
        lesson = Lesson([strong.eval()(images)])
    losses = Task(weak, {"loss": taught})(images, truth, lesson)
    value: Tensor = losses.by_name["loss"]
    assert value.isfinite() and value > 0


def test_distances_that_start_elsewhere_in_a_cell_are_not_compared() -> None:
    fcos, gfl = (make(name, {"reg_max": 8}, 8) for name in ("FCOS", "GFL"))
    with pytest.raises(Invalid, match=r"start of distances in a cell.*0.5.*0.0"):
        Call(name="LD").complete(distill).of(distill, fcos, gfl)


@pytest.mark.parametrize("kind", [GFL, FASTER], ids=["GFL", "FasterRCNN"])
def test_the_exported_graph_of_a_student_that_all_losses_taught_is_that_of_one_that_none_taught(
    kind: tuple[str, dict[str, Any]],
) -> None:
    name, own = kind
    student, teacher = make(name, own, width=4), make(name, own, width=8).eval().requires_grad_(False)
    for loss in LOSSES:
        if teaches(loss, name, own):
            Call(name=loss).complete(distill).of(distill, student, teacher)
    graphs = [graph(one.eval(), (64, 64)) for one in (student, make(name, own, width=4).eval())]
    taught, alone = ([(node.op, str(node.target)) for node in one.graph.nodes] for one in graphs)
    assert taught == alone
    assert graphs[0].state_dict.keys() == graphs[1].state_dict.keys()
