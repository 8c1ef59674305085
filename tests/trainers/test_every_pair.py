"""Every loss either teaches a detector by a larger one of its kind, or says at once why it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.detectors.scenes import noise
from tests.trainers.test_every_detector import EVERY, make
from tests.trainers.test_every_loss import GFL, ON
from trainers import distill
from trainers.call import Call, Invalid, offers
from trainers.export import Raw, graph
from trainers.loop import check
from trainers.task import Lesson, Task

LOSSES = sorted(offers(distill))
# What each loss reads of a detector. A new loss needs a line here.
READS: dict[str, Any] = {
    "CWD": lambda detector: True,
    "CrossKD": lambda detector: hasattr(detector, "finish"),
    "DeFeat": lambda detector: True,
    "FGD": lambda detector: True,
    "FGFI": lambda detector: True,
    "GI": lambda detector: hasattr(detector, "boxes"),
    "Imitation": lambda detector: True,
    "KD": lambda detector: detector.anchors > 0 or hasattr(detector, "judge"),
    "LD": lambda detector: detector.bins > 0,
    "Mimic": lambda detector: hasattr(detector, "propose"),
    "PKD": lambda detector: True,
    "TADF": lambda detector: True,
}


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
def test_it_reaches_the_student_or_is_refused_with_the_reason(name: str, own: dict[str, Any], loss: str) -> None:
    student, teacher = make(name, own, width=4), make(name, own, width=8).eval().requires_grad_(False)
    call = Call(name=loss).complete(distill)
    if not READS[loss](student):
        with pytest.raises(Invalid, match=r"PKD|as GFL"):
            call.of(distill, student, teacher)
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


def test_every_loss_is_in_the_list_above() -> None:
    assert set(READS) == set(LOSSES)


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
def test_a_student_that_was_taught_has_the_weights_and_the_graph_of_one_that_was_not(
    name: str, own: dict[str, Any], loss: str
) -> None:
    if not READS[loss](make(name, own, width=4)):
        return
    student, teacher = make(name, own, width=4), make(name, own, width=8).eval().requires_grad_(False)
    task = Task(student, {loss.lower(): Call(name=loss).complete(distill).of(distill, student, teacher)})
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    with torch.no_grad():
        lesson = Lesson([teacher(images)])
    torch.manual_seed(0)
    task.train()(images, truth, lesson).total.backward()
    alone = make(name, own, width=4)
    assert {key: value.shape for key, value in task.student.state_dict().items()} == {
        key: value.shape for key, value in alone.state_dict().items()
    }
    student.load_state_dict(alone.state_dict())
    with torch.no_grad():
        for x, y in zip(Raw(student.eval())(images), Raw(alone.eval())(images), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_exported_graph_of_a_student_that_was_taught_is_that_of_one_that_was_not(loss: str) -> None:
    name, own = ON.get(loss, GFL)
    student, teacher = make(name, own, width=4), make(name, own, width=8).eval().requires_grad_(False)
    Call(name=loss).complete(distill).of(distill, student, teacher)
    graphs = [graph(one.eval(), (64, 64)) for one in (student, make(name, own, width=4).eval())]
    taught, alone = ([(node.op, str(node.target)) for node in one.graph.nodes] for one in graphs)
    assert taught == alone
    assert graphs[0].state_dict.keys() == graphs[1].state_dict.keys()
