"""The first stage, written out anchor by anchor: where anchors lie, what they answer for, and what is proposed."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from tests.trainers.detectors.scenes import drawer, truth
from tests.trainers.detectors.written_out import max_iou
from trainers.detectors import proposals
from trainers.detectors.max_iou import BACKGROUND, IGNORED
from trainers.detectors.proposals import CONVENTIONS, Grid, grid, losses, match, network, propose
from trainers.outputs import Outputs

STRIDES = (4, 8, 16, 32)
EXACT, ROUNDED = CONVENTIONS["mmdetection"], CONVENTIONS["torchvision"]
Box = tuple[float, float, float, float]


def said(images: int = 1, *, size: tuple[int, int] = (64, 64), spread: float = 0.1) -> Outputs:
    """What a first stage may say, as leaves; `spread` is the deviation of its deltas."""
    draw = drawer(images, size=size, strides=STRIDES)
    own = {"objectness": draw(3), "deltas": draw(12, spread)}
    return Outputs(draw(2), own=own, anchors=0)


def laid(outputs: Outputs, sizes: list[tuple[int, int]], rpn: Any = None, convention: Any = EXACT) -> Grid:
    return grid(rpn or network(2, STRIDES, convention), outputs.features, STRIDES, sizes, convention)


def literal_anchors(size: tuple[int, int] = (64, 64)) -> list[tuple[Box, int]]:
    """Of mmdetection: sides of eight strides, of shapes .5, 1 and 2, around the corners of the cells; and levels."""
    found = []
    for level, stride in enumerate(STRIDES):
        for i in range(math.ceil(size[0] / stride)):
            for j in range(math.ceil(size[1] / stride)):
                for ratio in (0.5, 1, 2):
                    w, h = 8 * stride / math.sqrt(ratio), 8 * stride * math.sqrt(ratio)
                    x, y = j * stride, i * stride
                    found.append(((x - w / 2, y - h / 2, x + w / 2, y + h / 2), level))
    return found


def literal_match(anchors: Tensor, valid: list[bool], boxes: Tensor) -> list[tuple[int, int]]:
    """For each anchor 1, 0 or -1, and the number of the box that it answers for.

    A small box lies inside many anchors of one area, so that rounding decides which of them overlap it most: the
    overlaps are taken from where torchvision takes them.
    """
    table = [row if ok else [0.0] * len(row) for row, ok in zip(box_iou(anchors, boxes).tolist(), valid, strict=True)]
    owners = max_iou(table, 0.7, 0.3, least=0.3)
    kind = {BACKGROUND: 0, IGNORED: -1}
    return [(kind.get(n, 1) if ok else -1, n) for n, ok in zip(owners, valid, strict=True)]


def test_anchors_are_exact_and_at_nominal_strides_in_the_order_of_the_rows() -> None:
    outputs = said(size=(70, 40))
    here = laid(outputs, [(70, 40)])
    wanted = literal_anchors((70, 40))
    torch.testing.assert_close(here.boxes, torch.tensor([box for box, _ in wanted]))
    assert here.level.tolist() == [level for _, level in wanted]
    assert here.counts == [3 * 18 * 10, 3 * 9 * 5, 3 * 5 * 3, 3 * 3 * 2]
    assert here.valid.all()


def test_torchvisions_anchors_are_rounded_and_as_far_apart_as_the_padded_image_says() -> None:
    here = laid(said(size=(96, 160)), [(90, 150)], convention=ROUNDED)
    last = here.boxes[-3 * 3 * 5 :].view(3, 5, 3, 4)  # 96 by 160 pixels in 3 by 5 cells
    assert last[0, 0].tolist() == [[-181, -91, 181, 91], [-128, -128, 128, 128], [-91, -181, 91, 181]]
    assert (last[2, 4] - last[0, 0])[0].tolist() == [128, 64, 128, 64]
    coarse = laid(said(size=(72, 136)), [(72, 136)], convention=ROUNDED)  # 3 by 5 cells, too
    last = coarse.boxes[-3 * 3 * 5 :].view(3, 5, 3, 4)
    assert (last[1, 1] - last[0, 0])[0].tolist() == [27, 24, 27, 24]
    assert here.valid.all() and here.valid.shape == (1, len(here.boxes))


def test_anchors_in_the_padding_do_not_count_by_the_place_of_their_cell() -> None:
    sizes = [(64, 64), (33, 20)]
    here = laid(said(2), sizes)
    for image, (height, width) in enumerate(sizes):
        wanted = []
        for stride in STRIDES:
            cells = [(i, j) for i in range(64 // stride) for j in range(64 // stride)]
            wanted += [i * stride < height and j * stride < width for i, j in cells for _ in range(3)]
        assert here.valid[image].tolist() == wanted


THREE = truth([[3.0, 5, 33, 40], [4.0, 3, 61, 62]], [], [[10.0, 8, 22, 21], [30.0, 20, 61, 60], [2.0, 40, 20, 63]])


@pytest.mark.parametrize("size", [(64, 64), (45, 50)])
def test_anchors_answer_for_boxes_as_written_out(size: tuple[int, int]) -> None:
    boxes = [[[3.0, 5, 33, 40], [4.0, 3, 49, 44]], [], [[10.0, 8, 22, 21], [30.0, 20, 48, 44], [2.0, 30, 20, 44.5]]]
    seen = truth(*boxes, size=size)
    rpn = network(2, STRIDES, EXACT)
    here = laid(said(3), seen.sizes, rpn)
    targets = match(rpn, here, seen)
    positives = []
    for image in range(3):
        found = literal_match(here.boxes, here.valid[image].tolist(), seen.boxes[image])
        assert targets.own["object"][image].tolist() == [kind for kind, _ in found]
        positives += [(image * len(here.boxes) + a, number) for a, (kind, number) in enumerate(found) if kind == 1]
    assert targets.row.tolist() == [row for row, _ in positives] and len(positives) > 5
    for p, (row, number) in enumerate(positives):
        image = row // len(here.boxes)
        assert targets.box[p].tolist() == seen.boxes[image][number].tolist()
        assert targets.label[p] == seen.labels[image][number]
        assert targets.level[p] == here.level[row % len(here.boxes)]
    assert torch.equal(targets.valid, here.valid.flatten())
    assert (targets.images, targets.levels) == (3, 4)


@pytest.mark.parametrize(("convention", "images"), [(EXACT, set()), (ROUNDED, {0, 1, 2})])
def test_however_small_or_odd_a_box_is_it_has_an_anchor_only_by_torchvisions_conventions(
    convention: Any, images: set[int]
) -> None:
    seen = truth([[0.0, 0, 1, 1]], [[63.5, 63.5, 64, 64]], [[0.0, 30, 64, 31]])
    rpn = network(2, STRIDES, convention)
    targets = match(rpn, laid(said(3), seen.sizes, rpn, convention), seen)
    assert set((targets.row // len(literal_anchors())).tolist()) == images
    assert (targets.own["object"] == 1).any(1).nonzero().flatten().tolist() == sorted(images)


@pytest.mark.parametrize(("side", "enough"), [(17, False), (18, True)])  # of 32 * 32 pixels: .28 and .32
def test_mmdetections_anchors_answer_for_a_box_from_three_tenths_on(side: int, enough: bool) -> None:
    seen = truth([[20.0, 20, 20 + side, 20 + side]])
    rpn = network(2, STRIDES, EXACT)
    assert (len(match(rpn, laid(said(), seen.sizes, rpn), seen).row) > 0) == enough


def everything(rpn: Any) -> Any:
    """All that is not ignored is drawn, so that nothing is left to chance."""
    rpn.fg_bg_sampler.batch_size_per_image = 10**6
    return rpn


@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_the_losses_are_those_of_the_paper_written_out(beta: float) -> None:
    outputs, rpn = said(3), everything(network(2, STRIDES, EXACT))
    here = laid(outputs, THREE.sizes, rpn)
    targets = match(rpn, here, THREE)
    owner = {row: p for p, row in enumerate(targets.row.tolist())}
    cls = box = 0.0
    number = 0
    for image in range(3):
        place = 0
        for objectness, deltas in zip(outputs.own["objectness"], outputs.own["deltas"], strict=True):
            for i in range(objectness.shape[2]):
                for j in range(objectness.shape[3]):
                    for a in range(3):
                        kind = targets.own["object"][image, place].item()
                        anchor = here.boxes[place].tolist()
                        p = owner.get(image * len(here.boxes) + place)
                        place += 1
                        if kind == -1:
                            continue
                        number += 1
                        z = objectness[image, a, i, j].item()
                        cls += math.log1p(math.exp(-z if kind == 1 else z))
                        if p is None:
                            continue
                        x1, y1, x2, y2 = targets.box[p].tolist()
                        w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
                        wanted = (
                            ((x1 + x2) / 2 - (anchor[0] + anchor[2]) / 2) / w,
                            ((y1 + y2) / 2 - (anchor[1] + anchor[3]) / 2) / h,
                            math.log((x2 - x1) / w),
                            math.log((y2 - y1) / h),
                        )
                        for d, want in enumerate(wanted):
                            far = abs(deltas[image, 4 * a + d, i, j].item() - want)
                            box += far if far >= beta else far * far / (2 * beta)
                            if far >= beta:
                                box -= beta / 2
    found = losses(rpn, outputs, targets, here, beta=beta)
    assert [x.item() for x in found] == pytest.approx([cls / number, box / number], rel=1e-4)


def test_of_each_image_256_anchors_are_drawn_and_at_most_half_are_positive() -> None:
    outputs, rpn = said(2), network(2, STRIDES, EXACT)
    seen = truth([[3.0, 5, 33, 40]], [])
    here = laid(outputs, seen.sizes, rpn)
    targets = match(rpn, here, seen)
    targets.own["object"][0, :400] = 1
    targets = replace(
        targets,
        row=torch.arange(400),
        box=torch.tensor([[3.0, 5, 33, 40]]).expand(400, 4),
        own=targets.own,
    )
    targets.own["object"][0, 400:] = 0
    sum(losses(rpn, outputs, targets, here, beta=0.0)).backward()
    drawn = torch.stack([torch.cat([x.grad[i].flatten() for x in outputs.own["objectness"]]) for i in range(2)])
    assert (drawn != 0).sum(1).tolist() == [256, 256]
    assert (drawn < 0).sum(1).tolist() == [128, 0]  # a positive's score wants to rise
    boxes = [torch.cat([x.grad[i].flatten() for x in outputs.own["deltas"]]) for i in range(2)]
    assert (boxes[0] != 0).sum() == 4 * 128 and not boxes[1].any()


def test_anchors_in_the_padding_have_no_loss_and_no_proposal() -> None:
    outputs, rpn = said(1), everything(network(2, STRIDES, EXACT))
    size = (33, 20)
    loud = {name: [x.detach().clone() for x in levels] for name, levels in outputs.own.items()}
    cells = [(9, 5), (5, 3), (3, 2), (2, 1)]
    for x, (height, width) in zip(loud["objectness"], cells, strict=True):
        x[:, :, height:] += 20
        x[:, :, :, width:] += 20
    seen = truth([[2.0, 3, 18, 30]], size=size)
    here = laid(outputs, [size], rpn)
    targets = match(rpn, here, seen)
    rpn.eval()
    for one, two in zip(
        propose(rpn, outputs, here, [size]), propose(rpn, replace(outputs, own=loud), here, [size]), strict=True
    ):
        assert len(one) and torch.equal(one, two)
    sum(losses(rpn, outputs, targets, here, beta=0.0)).backward()
    for x, (height, width) in zip(outputs.own["objectness"], cells, strict=True):
        assert not x.grad[:, :, height:].any() and not x.grad[:, :, :, width:].any()
    assert len(propose(rpn, outputs, laid(outputs, [(1, 1)], rpn), [(1, 1)])[0]) <= 3 * 4


def test_proposals_are_the_best_of_each_level_apart_and_inside_the_image() -> None:
    outputs, rpn = said(2, spread=0.3), network(2, STRIDES, EXACT)
    sizes = [(64, 64), (50, 60)]
    here = laid(outputs, sizes, rpn)
    for boxes, (height, width), valid, image in zip(
        propose(rpn, outputs, here, sizes), sizes, here.valid, range(2), strict=True
    ):
        assert not boxes.requires_grad and len(boxes) > 50
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
        # Literally: decode, cut, and go through each level from the best on; then all by score.
        objectness = torch.cat([x[image].permute(1, 2, 0).flatten() for x in outputs.own["objectness"]]).detach()
        deltas = torch.cat([x[image].permute(1, 2, 0).reshape(-1, 4) for x in outputs.own["deltas"]]).detach()
        side = here.boxes[:, 2:] - here.boxes[:, :2]
        centre = (here.boxes[:, 2:] + here.boxes[:, :2]) / 2 + deltas[:, :2] * side
        half = side * deltas[:, 2:].exp() / 2
        decoded = torch.cat([centre - half, centre + half], 1).clamp(min=0)
        decoded = torch.minimum(decoded, torch.tensor([width, height, width, height]))
        kept: list[int] = []
        for level in range(4):
            mine: list[int] = []
            for a in objectness.argsort(descending=True).tolist():
                x1, y1, x2, y2 = decoded[a].tolist()
                if here.level[a] == level and valid[a] and x2 > x1 and y2 > y1:
                    rest = decoded[mine] if mine else torch.zeros(0, 4)
                    if not (box_iou(decoded[a][None], rest) > 0.7).any():
                        mine.append(a)
            kept += mine
        kept.sort(key=lambda a: -objectness[a].item())
        torch.testing.assert_close(boxes, decoded[kept], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "training", "evaluation"), [("mmdetection", 1000, 1000), ("torchvision", 2000, 1000)])
def test_so_many_proposals_are_kept_as_the_conventions_say(name: str, training: int, evaluation: int) -> None:
    convention = proposals.CONVENTIONS[name]
    size = (256, 256)
    outputs, rpn = said(1, size=size), network(2, STRIDES, convention)
    rpn.nms_thresh = 1.0  # nothing suppresses anything
    here = laid(outputs, [size], rpn, convention)
    assert len(propose(rpn.train(), outputs, here, [size])[0]) == training
    assert len(propose(rpn.eval(), outputs, here, [size])[0]) == evaluation
    # Before suppression, a level gives at most 2000 in training and 1000 in evaluation.
    rpn._post_nms_top_n = {"training": 10**6, "testing": 10**6}
    assert len(propose(rpn.train(), outputs, here, [size])[0]) == 2000 + 2000 + 3 * (16 * 16 + 8 * 8)
    assert len(propose(rpn.eval(), outputs, here, [size])[0]) == 1000 + 1000 + 3 * 16 * 16 + 3 * 8 * 8
