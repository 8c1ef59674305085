"""RetinaNet: mmdetection's assignment and losses written out, distributions, and what padding may not do."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from tests.trainers.detectors.scenes import STRIDES, drawer, small
from tests.trainers.detectors.scenes import truth as truth_of
from tests.trainers.detectors.written_out import (
    distances,
    distribution_focal,
    edges,
    focal,
    focal_of_nothing,
    max_iou,
    overlap,
)
from trainers.backbones import ResNet
from trainers.detectors import RetinaNet
from trainers.detectors.max_iou import IGNORED
from trainers.detectors.nine import nine_anchors
from trainers.outputs import Outputs, Truth

BINS = 9
SIDE = 32
CELLS = [(i, j, s) for s in STRIDES for i in range(SIDE // s) for j in range(SIDE // s)]
ANCHORS = 9 * len(CELLS)


def make(**knobs: Any) -> RetinaNet:
    return small(RetinaNet, **{"channels": 16, "extra": 0, **knobs})


def truth(*boxes: list[list[float]], size: tuple[int, int] = (SIDE, SIDE)) -> Truth:
    return truth_of(*boxes, size=size)


def said(images: int, *, bins: int = 0) -> Outputs:
    """Outputs that are leaves."""
    draw = drawer(images, size=(SIDE, SIDE))
    return Outputs(draw(16), draw(9 * 3), draw(9 * 4 * (bins or 1), 1.0 if bins else 0.3), anchors=9)


THREE = truth([[2.0, 3, 20, 22], [3.0, 2, 31, 30]], [], [[5.0, 4, 15, 30], [20.0, 20, 23, 22], [1.0, 20, 30, 31]])


def anchors() -> list[tuple[float, float, float, float, int]]:
    """Centre, width, height and stride, row by row."""
    found = []
    for i, j, stride in CELLS:
        for ratio in (0.5, 1.0, 2.0):
            for third in range(3):
                side = 4 * stride * 2 ** (third / 3)
                found.append((j * stride, i * stride, side / ratio**0.5, side * ratio**0.5, stride))
    return found


def overlaps(boxes: Tensor) -> list[list[float]]:
    """IoUs, anchor by anchor and box by box: as torch rounds them, for ties count only where they are exact."""
    grid = nine_anchors([torch.zeros(1, 1, 32 // s, 32 // s) for s in STRIDES], STRIDES, "mmdetection")
    table: list[list[float]] = box_iou(boxes, grid.box).T.tolist()
    return table


def owners(boxes: Tensor) -> list[int | None]:
    """The number of the box that each anchor answers for, -1 for none, None if it does not count."""
    return [None if number == IGNORED else number for number in max_iou(overlaps(boxes), 0.5, 0.4)]


def of_box(
    kind: str, raw: list[float], anchor: tuple[float, float, float, float, int], box: list[float]
) -> dict[str, float]:
    x, y, w, h, stride = anchor
    if kind == "edges":
        d = [stride * one for one in distances(raw)]
        predicted = [x - d[0], y - d[1], x + d[2], y + d[3]]
        dfl = distribution_focal(raw, [d / stride for d in edges(x, y, box)])
        return {"box": 2 * (1 - overlap(predicted, box)[1]), "dfl": 0.25 * dfl}
    if kind == "l1":
        cx, cy, bw, bh = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
        wanted = ((cx - x) / w, (cy - y) / h, math.log(bw / w), math.log(bh / h))
        return {"box": sum(abs(r - t) for r, t in zip(raw, wanted, strict=True))}
    px, py, pw, ph = x + raw[0] * w, y + raw[1] * h, w * math.exp(raw[2]), h * math.exp(raw[3])
    return {"box": 1 - overlap([px - pw / 2, py - ph / 2, px + pw / 2, py + ph / 2], box)[1]}


def literal(outputs: Outputs, seen: Truth, kind: str) -> dict[str, float]:
    """Image by image and anchor by anchor."""
    sums = {"focal": 0.0, "box": 0.0} | ({"dfl": 0.0} if kind == "edges" else {})
    positives = 0
    for image, (boxes, labels) in enumerate(zip(seen.boxes, seen.labels, strict=True)):
        cls = torch.cat([x[image].detach().permute(1, 2, 0).reshape(-1, 3) for x in outputs.cls])
        box = torch.cat([x[image].detach().permute(1, 2, 0).flatten().view(-1, x.shape[1] // 9) for x in outputs.box])
        found = owners(boxes)
        positives += max(1, sum(number is not None and number >= 0 for number in found))
        for row, (anchor, number) in enumerate(zip(anchors(), found, strict=True)):
            if number is None:
                continue
            sums["focal"] += focal(cls[row].tolist(), int(labels[number]) if number >= 0 else None)
            if number >= 0:
                for name, value in of_box(kind, box[row].tolist(), anchor, boxes[number].tolist()).items():
                    sums[name] += value
    return {name: value / positives for name, value in sums.items()}


@pytest.mark.parametrize(
    ("kind", "knobs"),
    [("l1", {}), ("giou", {"box_loss": "giou"}), ("edges", {"reg_max": BINS - 1})],
)
def test_mmdetections_losses_are_those_written_out(kind: str, knobs: dict[str, Any]) -> None:
    model, outputs = make(**knobs), said(3, bins=BINS if kind == "edges" else 0)
    found = model.losses(outputs, model.assign(outputs, THREE))
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(literal(outputs, THREE, kind), rel=1e-4)


def test_an_edge_beyond_the_last_bin_learns_the_last_bins() -> None:
    model, raw, box = make(reg_max=BINS - 1), torch.randn(1, 4 * BINS), [-90.0, -80, 7, 160]
    grid = model.grid(said(1))
    found = model.box_losses(raw, torch.tensor([5]), grid, torch.tensor([box]))
    expected = of_box("edges", raw[0].tolist(), anchors()[5], box)
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-4)


def test_anchors_are_assigned_as_written_out() -> None:
    model = make()
    targets = model.assign(said(3), THREE)
    positive, ignored, least = {}, set(), 1.0
    for image, boxes in enumerate(THREE.boxes):
        for row, (number, iou) in enumerate(zip(owners(boxes), overlaps(boxes), strict=True)):
            if number is None:
                ignored.add(image * ANCHORS + row)
            elif number >= 0:
                positive[image * ANCHORS + row] = boxes[number].tolist(), THREE.labels[image][number].item()
                least = min(least, iou[number])
    assert least < 0.2 and ignored  # the small box has its best anchors, though they are bad
    answers = zip(targets.box.tolist(), targets.label.tolist(), strict=True)
    assert dict(zip(targets.row.tolist(), answers, strict=True)) == positive
    assert set(targets.ignored.nonzero().flatten().tolist()) == ignored
    stride = [anchors()[row % ANCHORS][4] for row in targets.row.tolist()]
    assert [STRIDES[level] for level in targets.level.tolist()] == stride
    assert targets.valid.all()


@pytest.mark.parametrize(("conventions", "owner"), [("mmdetection", 1), ("torchvision", 0)])
def test_an_anchor_that_two_boxes_need_is_of_the_last_one_by_mmdetections_conventions(
    conventions: str, owner: int
) -> None:
    whole, part = [-8.0, -8, 8, 8], [-4.0, -4, 4, 4]  # around the first cell of each level; an anchor is the first box
    seen = truth([whole, part])
    model, outputs = make(conventions=conventions), said(1)
    grid = model.grid(outputs)
    iou = overlaps(seen.boxes[0])
    shared = next(row for row, pair in enumerate(iou) if pair[0] == 1.0)
    assert iou[shared][1] == max(pair[1] for pair in iou) == 0.25 and grid.box[shared].tolist() == whole
    targets = model.assign(outputs, seen)
    assert targets.label[targets.row == shared].tolist() == [owner]


def test_ignored_anchors_learn_no_class_and_all_others_do_and_only_positives_learn_boxes() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    sum(model.losses(outputs, targets).values()).backward()
    grads = replace(outputs, cls=[x.grad for x in outputs.cls], box=[x.grad for x in outputs.box])
    assert torch.equal((grads.class_rows() == 0).all(1), targets.ignored)
    learns = replace(grads, cls=grads.box).class_rows().any(1).nonzero().flatten()
    assert torch.equal(learns, targets.row)


def test_padding_carries_no_loss_and_no_positives_by_mmdetections_conventions() -> None:
    model, outputs = make(), said(2)
    size = (17, 12)  # 5 by 3, 3 by 2 and 2 by 1 cells
    corner = [11.0, 15, 12, 17]  # anchors in the padding overlap it as much as the best ones do
    targets = model.assign(outputs, truth([corner], [[1.0, 1, 12, 9]], size=size))
    sum(model.losses(outputs, targets).values()).backward()
    for cls, box, (height, width) in zip(outputs.cls, outputs.box, [(5, 3), (3, 2), (2, 1)], strict=True):
        assert cls.grad is not None and box.grad is not None
        assert cls.grad[:, :, :height, :width].any()
        for grad in (cls.grad, box.grad):
            assert not grad[:, :, height:].any()
            assert not grad[:, :, :, width:].any()


def test_what_the_padding_says_is_never_detected_by_mmdetections_conventions() -> None:
    model, outputs = make(score_threshold=0.0, max_detections=10_000, nms_iou=1.0), said(1)
    for cls, (height, width) in zip(outputs.cls, [(5, 3), (3, 2), (2, 1)], strict=True):
        cls.data[:, :, height:] += 20
        cls.data[:, :, :, width:] += 20
    (found,) = model.detect(outputs, [(17, 12)])
    assert found.scores.max() < 0.999
    assert len(found.scores) <= 3 * 9 * (5 * 3 + 3 * 2 + 2 * 1)


# ---- in both


BOTH = pytest.mark.parametrize("conventions", ["mmdetection", "torchvision"])


@BOTH
@pytest.mark.parametrize("reg_max", [0, BINS - 1])
def test_a_batch_without_boxes_learns_that_nothing_is_there(conventions: str, reg_max: int) -> None:
    model, outputs = make(conventions=conventions, reg_max=reg_max), said(2, bins=reg_max and BINS)
    losses = model.losses(outputs, model.assign(outputs, truth([], [])))
    torch.testing.assert_close(losses.pop("focal"), focal_of_nothing(outputs.cls) / 2)
    assert not any(losses.values())
    sum(losses.values()).backward()
    for box in outputs.box:
        assert box.grad is not None and not box.grad.any()


@BOTH
def test_certain_edges_are_decoded_to_their_box(conventions: str) -> None:
    """Anchor 4 of cell (2, 1) of stride 8 says: 1, 2, 2.5 and 0.5 strides to the left, top, right and bottom."""
    model, outputs = make(reg_max=BINS - 1, conventions=conventions), said(1, bins=BINS)
    cls = [torch.full_like(c, -9.0) for c in outputs.cls]
    box = [torch.zeros_like(b) for b in outputs.box]
    cls[1][0, 4 * 3 + 2, 2, 1] = 3.0
    edges = torch.full((4, BINS), -50.0)
    edges[[0, 1], [1, 2]] = 50
    edges[2, 2:4] = edges[3, :2] = 50
    box[1][0, 4 * 4 * BINS : 5 * 4 * BINS, 2, 1] = edges.flatten()
    (found,) = model.detect(Outputs([], cls, box, anchors=9), [(32, 32)])
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0, 28, 20]]))
    assert found.labels.tolist() == [2]
    torch.testing.assert_close(found.scores, torch.tensor([3.0]).sigmoid())


def test_what_is_said_far_outside_is_clipped_to_the_image() -> None:
    model, outputs = make(max_detections=5), said(1)
    for box in outputs.box:
        box.data.mul_(20)  # the logarithm of a side has a ceiling: no box is infinite
    (found,) = model.detect(outputs, [(30, 20)])
    assert found.boxes.isfinite().all() and (found.boxes >= 0).all()
    assert (found.boxes[:, 2] <= 20).all() and (found.boxes[:, 3] <= 30).all()
    assert len(found.boxes) == 5


def test_every_class_starts_at_a_score_of_one_in_a_hundred() -> None:
    outputs = make()(torch.rand(2, 3, 64, 64))
    for cls in outputs.cls:
        torch.testing.assert_close(cls.sigmoid(), torch.full_like(cls, 0.01), atol=5e-3, rtol=0)


def test_parameters_are_those_of_the_published_network() -> None:
    with torch.device("meta"):
        model = RetinaNet(ResNet(depth=50), 80)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    assert sum(p.numel() for p in model.parameters()) == 37_968_692
    assert model.strides == (8, 16, 32, 64, 128)
    assert not model.neck.relu and model.neck.extra_from == "input"
    assert [tuple(c.shape[1:]) for c in outputs.cls] == [
        (9 * 80, math.ceil(801 / s), math.ceil(1333 / s)) for s in model.strides
    ]


def test_distributions_only_widen_the_last_convolution_of_boxes() -> None:
    with torch.device("meta"):
        deltas, edges = (RetinaNet(ResNet(depth=18), 80, reg_max=n).state_dict() for n in (0, 16))
    assert deltas.keys() == edges.keys()
    assert {name for name in edges if edges[name].shape != deltas[name].shape} == {
        "head.regression_head.bbox_reg.weight",
        "head.regression_head.bbox_reg.bias",
    }
    assert len(edges["head.regression_head.bbox_reg.bias"]) == 9 * 4 * 17
