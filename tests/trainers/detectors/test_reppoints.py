"""RepPoints: boxes around points, what a deformable convolution reads, both assigners and the losses, written out."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from trainers import workers
from trainers.backbones import ResNet, TinyResNet
from trainers.detectors import RepPoints
from trainers.detectors.anchors import anchors, inside
from trainers.detectors.points import gradient_times, moment_box, regular_grid
from trainers.detectors.points_assign import BACKGROUND, IGNORED, by_overlap, nearest_cells
from trainers.outputs import Outputs, Targets, Truth

STRIDES = (4, 8, 16)
PER_IMAGE = 16 * 16 + 8 * 8 + 4 * 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(num_classes: int = 3, **knobs: Any) -> Any:
    torch.manual_seed(0)
    small: dict[str, Any] = {"channels": 16, "convs": 1, "extra": 0}
    model = RepPoints(TinyResNet(width=8), num_classes, **{**small, **knobs})
    with torch.no_grad():
        model.head.moment_transfer.copy_(torch.tensor([0.3, -0.2]))
    return model


def truth(*boxes: list[list[float]], size: tuple[int, int] = (64, 64)) -> Truth:
    """Images with boxes of class 0, 1, 2, 0, ... each."""
    return Truth(
        boxes=[torch.tensor(b).view(-1, 4) for b in boxes],
        labels=[torch.arange(len(b)) % 3 for b in boxes],
        sizes=[size] * len(boxes),
        ids=list(range(len(boxes))),
        scales=[(1.0, 1.0)] * len(boxes),
    )


def said(images: int) -> Outputs:
    """Outputs that are leaves, with guesses about as large as the boxes of their levels."""
    generator = torch.Generator().manual_seed(0)

    def levels(channels: int, spread: float = 1.0) -> list[Tensor]:
        shapes = [(images, channels, 64 // s, 64 // s) for s in STRIDES]
        return [(spread * torch.randn(shape, generator=generator)).requires_grad_() for shape in shapes]

    half = torch.tensor([-2.0, -2, 2, 2]).view(1, 4, 1, 1)
    box = [(x.detach() + half).requires_grad_() for x in levels(4)]
    return Outputs(levels(16), levels(3), box, own={"init": levels(18, 2.0), "points": levels(18, 2.0)})


THREE = truth([[3.0, 5, 20, 24], [4.0, 3, 61, 62]], [], [[10.0, 8, 22, 21], [30.0, 20, 61, 60], [2.0, 40, 20, 63]])


def literal_box(points: list[float], transfer: tuple[float, float] = (0.3, -0.2)) -> list[float]:
    y, x = points[0::2], points[1::2]
    right, down = statistics.stdev(x) * math.exp(transfer[0]), statistics.stdev(y) * math.exp(transfer[1])
    middle_x, middle_y = statistics.fmean(x), statistics.fmean(y)
    return [middle_x - right, middle_y - down, middle_x + right, middle_y + down]


def cells_of(side: int = 64) -> list[tuple[int, int, int]]:
    """Level, x and y in pixels of each cell."""
    return [
        (level, j * s, i * s) for level, s in enumerate(STRIDES) for i in range(side // s) for j in range(side // s)
    ]


def literal_nearest(boxes: list[list[float]], size: tuple[int, int]) -> dict[int, int]:
    """Cell -> box, one box after the other, as in mmdetection's PointAssigner."""
    owner: dict[int, int] = {}
    distance: dict[int, float] = {}
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        level = int((math.log2((x2 - x1) / 4) + math.log2((y2 - y1) / 4)) / 2)
        level = min(max(level, 2), 4) - 2
        far = {
            cell: math.hypot((x - (x1 + x2) / 2) / (x2 - x1), (y - (y1 + y2) / 2) / (y2 - y1))
            for cell, (of_level, x, y) in enumerate(cells_of())
            if of_level == level and x < size[1] and y < size[0]
        }
        cell = min(far, key=lambda cell: far[cell])
        if far[cell] < distance.get(cell, math.inf):
            owner[cell], distance[cell] = number, far[cell]
    return owner


def literal_overlap(guesses: list[list[float]], boxes: list[list[float]]) -> list[int]:
    """What each cell answers for, box after box, as in mmdetection's MaxIoUAssigner."""
    if not boxes:
        return [BACKGROUND] * len(guesses)
    iou = box_iou(torch.tensor(boxes), torch.tensor(guesses)).tolist()
    owner = []
    for cell in range(len(guesses)):
        of_cell = [of_box[cell] for of_box in iou]
        best = max(of_cell)
        owner.append(of_cell.index(best) if best >= 0.5 else IGNORED if best >= 0.4 else BACKGROUND)
    for number, of_box in enumerate(iou):
        for cell, value in enumerate(of_box):
            if value == max(of_box) > 0:
                owner[cell] = number
    return owner


def literal_guesses(outputs: Outputs, image: int) -> list[list[float]]:
    """In pixels."""
    found = []
    for init, stride in zip(outputs.own["init"], STRIDES, strict=True):
        for i in range(init.shape[2]):
            for j in range(init.shape[3]):
                box = literal_box(init[image, :, i, j].tolist())
                found.append([(v + c) * stride for v, c in zip(box, (j, i, j, i), strict=True)])
    return found


def test_a_box_lies_around_the_mean_of_its_points_by_their_deviation() -> None:
    points = torch.randn(5, 18, generator=torch.Generator().manual_seed(0)) * 3
    transfer = torch.tensor([0.3, -0.2])
    found = moment_box(points, transfer)
    torch.testing.assert_close(found, torch.tensor([literal_box(p) for p in points.tolist()]))
    as_map = points.T.reshape(1, 18, 1, 5)
    assert torch.equal(moment_box(as_map, transfer)[0, :, 0].T, found)


def test_points_have_their_whole_gradient_and_the_transfer_a_hundredth_of_it() -> None:
    points = torch.randn(2, 18, dtype=torch.float64, requires_grad=True)
    transfer = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 4, dtype=torch.float64)
    (moment_box(points, transfer) * weight).sum().backward()
    assert points.grad is not None and transfer.grad is not None

    def change(of: Tensor, at: tuple[int, ...], step: float = 1e-6) -> float:
        values = []
        for sign in (1, -1):
            moved = [x.detach().clone() for x in (points, transfer)]
            moved[0 if of is points else 1][at] += sign * step
            values.append((moment_box(*moved) * weight).sum().item())
        return (values[0] - values[1]) / (2 * step)

    assert points.grad[1, 7].item() == pytest.approx(change(points, (1, 7)), rel=1e-5)
    assert transfer.grad[0].item() == pytest.approx(0.01 * change(transfer, (0,)), rel=1e-5)
    assert transfer.grad[1].item() == pytest.approx(0.01 * change(transfer, (1,)), rel=1e-5)


def test_points_in_one_place_have_finite_gradients() -> None:
    points, transfer = torch.zeros(1, 18, requires_grad=True), torch.zeros(2, requires_grad=True)
    moment_box(points, transfer).square().sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()


def test_a_gradient_is_multiplied_and_its_value_is_not() -> None:
    x = torch.randn(100, requires_grad=True)
    y = gradient_times(0.1, x)
    assert torch.equal(y, x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((100,), 0.1))


def place(model: Any, points: Tensor) -> None:
    """Every cell guesses these points."""
    with torch.no_grad():
        model.head.init_out.weight.zero_()
        model.head.init_out.bias.copy_(points)


def test_at_the_regular_grid_the_deformable_convolutions_are_ordinary_ones() -> None:
    model, x = make(), torch.randn(2, 16, 7, 9)
    head = model.head
    place(model, regular_grid())
    cls, init, points = head(x)
    plain = F.conv2d(head.cls_tower(x), head.cls_conv.weight, padding=1)
    torch.testing.assert_close(cls, head.cls_out(plain.relu()))
    plain = F.conv2d(head.pts_tower(x), head.refine_conv.weight, padding=1)
    torch.testing.assert_close(points, head.refine_out(plain.relu()) + init)


def test_points_one_down_and_two_to_the_right_read_the_features_there() -> None:
    model, x = make(), torch.randn(2, 16, 7, 9)
    place(model, regular_grid())
    there = model.head(x)[0][:, :, 1:, 2:]
    place(model, regular_grid() + torch.tensor([1.0, 2.0]).repeat(9))
    # Not at the last cells: an ordinary convolution sees no padding there, and these would.
    torch.testing.assert_close(model.head(x)[0][:, :, :5, :6], there[:, :, :5, :6])


def test_what_is_read_at_the_points_moves_them_by_a_tenth_and_the_refined_box_not_at_all() -> None:
    gradients = []
    for factor in (1.0, 0.1):
        model, x = make(gradient_mul=factor), torch.randn(1, 16, 7, 9, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(model.head.init_out.bias)
        cls, _, points = model.head(x)
        (of_class,) = torch.autograd.grad(cls.square().sum(), model.head.init_out.bias, retain_graph=True)
        (of_points,) = torch.autograd.grad(points.square().sum(), model.head.init_out.bias)
        gradients.append((of_class, of_points))
    assert gradients[0][0].any() and gradients[0][1].any()
    for whole, tenth in zip(*gradients, strict=True):
        torch.testing.assert_close(0.1 * whole, tenth)
    model = make(gradient_mul=0.0)
    points = model.head(torch.randn(1, 16, 7, 9))[2]
    assert not torch.autograd.grad(points.sum(), model.head.init_out.bias)[0].any()


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_the_nearest_cell_of_its_level_guesses_a_box(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(40, 2, generator=generator) * 30
    side = 2 ** (1 + 6.5 * torch.rand(40, 2, generator=generator))  # 2 to 181 pixels: levels end at both sides
    boxes = torch.cat([low, low + side], 1)
    grid = anchors(said(1).cls, STRIDES)
    image = torch.arange(40) % 2
    row, number = nearest_cells(grid, STRIDES, inside(grid, [size, size]), boxes, image)
    expected = {}
    for i in (0, 1):
        numbers = (image == i).nonzero().squeeze(1).tolist()
        for cell, own in literal_nearest(boxes[image == i].tolist(), size).items():
            expected[i * PER_IMAGE + cell] = numbers[own]
    assert dict(zip(row.tolist(), number.tolist(), strict=True)) == expected
    assert len(expected) < 40  # some boxes want the same cell
    assert set(grid.level[row % PER_IMAGE].tolist()) == {0, 1, 2}


def test_of_two_boxes_around_one_cell_the_first_has_it() -> None:
    grid = anchors(said(1).cls, STRIDES)
    boxes = torch.tensor([[8.0, 8, 24, 24], [6.0, 6, 26, 26]])
    valid = inside(grid, [(64, 64)])
    row, number = nearest_cells(grid, STRIDES, valid, boxes, torch.zeros(2, dtype=torch.long))
    assert (row.tolist(), number.tolist()) == ([4 * 16 + 4], [0])


def test_cells_answer_for_what_their_guess_overlaps() -> None:
    outputs = said(3)
    for image, boxes in enumerate(THREE.boxes):
        guesses = literal_guesses(outputs, image)
        found = by_overlap(torch.tensor(guesses), torch.ones(PER_IMAGE, dtype=torch.bool), boxes)
        assert found.tolist() == literal_overlap(guesses, boxes.tolist())
        assert (len(boxes) == 0) == (set(found.tolist()) == {BACKGROUND})


def test_overlaps_at_the_thresholds_the_best_of_a_box_and_cells_in_the_padding() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [100.0, 100, 110, 110], [100.0, 100, 110, 120], [200.0, 0, 210, 10]])
    guesses = torch.tensor(
        [
            [0.0, 0, 10, 9],  # 0.9: positive, and the best of the first box
            [0.0, 0, 10, 5],  # 0.5 exactly
            [0.0, 0, 10, 4],  # 0.4 exactly
            [0.0, 0, 10, 3],
            [100.0, 100, 110, 103],  # the best of two boxes: 0.3 and 0.15
            [0.0, 0, 10, 10],  # in the padding
            [5.0, 5, 5, 5],  # nothing
        ]
    )
    valid = torch.tensor([True] * 5 + [False, True])
    assert by_overlap(guesses, valid, boxes).tolist() == [0, 0, IGNORED, BACKGROUND, 2, BACKGROUND, BACKGROUND]


def test_targets_are_the_positives_of_the_refinement_and_own_those_of_the_guess() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    rows, ignored, first = {}, [], {}
    for image, boxes in enumerate(THREE.boxes):
        owner = literal_overlap(literal_guesses(outputs, image), boxes.tolist())
        ignored += [number == IGNORED for number in owner]
        rows |= {image * PER_IMAGE + cell: boxes[number].tolist() for cell, number in enumerate(owner) if number >= 0}
        for cell, number in literal_nearest(boxes.tolist(), (64, 64)).items():
            first[image * PER_IMAGE + cell] = boxes[number].tolist()
    assert dict(zip(targets.row.tolist(), targets.box.tolist(), strict=True)) == rows
    assert targets.own["ignored"].tolist() == ignored and any(ignored)
    assert dict(zip(targets.own["init_row"].tolist(), targets.own["init_box"].tolist(), strict=True)) == first
    image = targets.row // PER_IMAGE
    for i, label, box in zip(image.tolist(), targets.label.tolist(), targets.box.tolist(), strict=True):
        assert box == THREE.boxes[i][label].tolist()
    assert [cells_of()[cell][0] for cell in (targets.row % PER_IMAGE).tolist()] == targets.level.tolist()


def literal_losses(outputs: Outputs, targets: Targets) -> dict[str, float]:
    """Image by image and cell by cell."""
    first = dict(zip(targets.own["init_row"].tolist(), targets.own["init_box"].tolist(), strict=True))
    positive = dict(zip(targets.row.tolist(), range(len(targets.row)), strict=True))
    ignored = targets.own["ignored"].tolist()
    sums, counts = dict.fromkeys(("focal", "init", "refine"), 0.0), {"init": 0, "refine": 0}

    def distance(box: list[float], real: list[float], x: int, y: int, stride: int) -> float:
        total = 0.0
        for v, r, c in zip(box, real, (x, y, x, y), strict=True):
            d = abs((v * stride + c) / (4 * stride) - r / (4 * stride))
            total += d * d / 2 / 0.11 if d < 0.11 else d - 0.11 / 2
        return total

    for image in range(targets.images):
        seen = {"init": 0, "refine": 0}
        for cell, (level, x, y) in enumerate(cells_of()):
            row, stride = image * PER_IMAGE + cell, STRIDES[level]
            at = (image, slice(None), y // stride, x // stride)
            p = positive.get(row)
            if row in first:
                seen["init"] += 1
                box = literal_box(outputs.own["init"][level][at].tolist())
                sums["init"] += 0.5 * distance(box, first[row], x, y, stride)
            if p is not None:
                seen["refine"] += 1
                sums["refine"] += distance(outputs.box[level][at].tolist(), targets.box[p].tolist(), x, y, stride)
            if not ignored[row]:
                for k, z in enumerate(outputs.cls[level][at].tolist()):
                    s = 1 / (1 + math.exp(-z))
                    if p is not None and k == targets.label[p]:
                        sums["focal"] -= 0.25 * (1 - s) ** 2 * math.log(s)
                    else:
                        sums["focal"] -= 0.75 * s**2 * math.log(1 - s)
        for stage in counts:
            counts[stage] += max(1, seen[stage])
    return {
        "focal": sums["focal"] / counts["refine"],
        "init": sums["init"] / counts["init"],
        "refine": sums["refine"] / counts["refine"],
    }


def test_the_losses_are_those_of_the_paper_written_out() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    assert len(set(targets.level.tolist())) > 1
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(literal_losses(outputs, targets), rel=1e-4)


def test_each_loss_teaches_its_own_part_alone() -> None:
    model, outputs = make(), said(3)
    losses = model.losses(outputs, model.assign(outputs, THREE))
    parts = {"focal": outputs.cls, "init": outputs.own["init"], "refine": outputs.box}
    for name, loss in losses.items():
        for part, leaves in parts.items():
            grads = torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)
            assert any(grad.any() for grad in grads) == (name == part), (name, part)


def part(outputs: Outputs, images: slice) -> Outputs:
    own = {name: [x[images] for x in levels] for name, levels in outputs.own.items()}
    return Outputs(*([x[images] for x in ls] for ls in (outputs.features, outputs.cls, outputs.box)), own=own)


def test_losses_of_two_workers_average_to_the_losses_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, outputs = make(), said(3)
    whole = model.losses(outputs, model.assign(outputs, THREE))
    parts = []
    for images in (slice(0, 1), slice(1, 3)):
        own = part(outputs, images)
        of = replace(THREE, boxes=THREE.boxes[images], labels=THREE.labels[images], sizes=THREE.sizes[images])
        parts.append((own, model.assign(own, of)))
    seen: list[Tensor] = []

    def remember(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.detach()

    monkeypatch.setattr(workers, "mean", remember)
    for own, targets in parts:
        model.losses(own, targets)
    monkeypatch.setattr(workers, "mean", lambda _: torch.stack(seen).mean(0))
    halves = [model.losses(own, targets) for own, targets in parts]
    for name, loss in whole.items():
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, loss)


def test_a_batch_without_boxes_has_gradients_of_zero_for_points_and_divides_by_its_images() -> None:
    model, outputs = make(), said(2)
    losses = model.losses(outputs, model.assign(outputs, truth([], [])))
    assert losses["init"].item() == losses["refine"].item() == 0
    z = torch.cat([c.detach().flatten() for c in outputs.cls])
    torch.testing.assert_close(losses["focal"], (0.75 * z.sigmoid() ** 2 * F.softplus(z)).sum() / 2)
    sum(losses.values()).backward()
    for x in outputs.box + outputs.own["init"]:
        assert x.grad is not None and not x.grad.any()
    assert not model.head.moment_transfer.grad.any()


def test_padding_carries_no_loss_and_is_never_detected() -> None:
    model, outputs = make(score_threshold=0.0, max_detections=10_000, nms_iou=1.0), said(1)
    size = (33, 20)
    targets = model.assign(outputs, truth([[2.0, 3, 18, 30]], size=size))
    sum(model.losses(outputs, targets).values()).backward()
    for level, (height, width) in enumerate([(9, 5), (5, 3), (3, 2)]):
        for x in (outputs.cls[level], outputs.box[level], outputs.own["init"][level]):
            assert x.grad is not None
            assert not x.grad[:, :, height:].any() and not x.grad[:, :, :, width:].any()
    (found,) = model.detect(outputs, [size])
    assert len(found.scores) == 3 * (9 * 5 + 5 * 3 + 3 * 2)


def test_a_certain_cell_is_decoded_to_its_box_around_the_refined_points() -> None:
    """Cell (5, 6) of stride 8 says: from 2 strides to the left and 3 above to 4 to the right and 1.5 below, class 2."""
    model, outputs = make(), said(1)
    cls = [torch.full_like(c, -9.0) for c in outputs.cls]
    box = [b.detach().clone() for b in outputs.box]
    cls[1][0, 2, 5, 6] = 3.0
    box[1][0, :, 5, 6] = torch.tensor([-2.0, -3, 4, 1.5])
    (found,) = model.detect(replace(outputs, cls=cls, box=box), [(64, 64)])
    torch.testing.assert_close(found.boxes, torch.tensor([[48.0 - 16, 40 - 24, 64, 40 + 12]]))
    assert found.labels.tolist() == [2]
    torch.testing.assert_close(found.scores, torch.tensor([3.0]).sigmoid())


def test_boxes_are_those_around_the_refined_points_which_start_where_the_guess_is() -> None:
    model = make()
    outputs = model(torch.rand(1, 3, 64, 64))
    for box, points, init in zip(outputs.box, outputs.own["points"], outputs.own["init"], strict=True):
        expected = literal_box(points[0, :, 1, 2].tolist())
        assert box[0, :, 1, 2].tolist() == pytest.approx(expected, abs=1e-5)
        assert points.shape == init.shape == (1, 18, *box.shape[2:])
    with torch.no_grad():
        model.head.refine_out.weight.zero_()
    outputs = model(torch.rand(1, 3, 64, 64))
    for points, init in zip(outputs.own["points"], outputs.own["init"], strict=True):
        assert torch.equal(points, init)


def test_under_autocast_points_boxes_and_losses_are_float32() -> None:
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.rand(3, 3, 64, 64))
        targets = model.assign(outputs, THREE)
        under = model.losses(outputs, targets)
    assert outputs.cls[0].dtype == torch.bfloat16
    assert {x.dtype for x in outputs.box + outputs.own["init"] + outputs.own["points"]} == {torch.float32}
    again = model.assign(outputs, THREE)
    assert torch.equal(targets.row, again.row) and torch.equal(targets.own["ignored"], again.own["ignored"])
    for name, loss in model.losses(outputs, targets).items():
        assert under[name].dtype == torch.float32
        assert torch.equal(under[name], loss)


def test_every_class_starts_at_a_score_of_one_in_a_hundred() -> None:
    for cls in make()(torch.rand(2, 3, 64, 64)).cls:
        torch.testing.assert_close(cls.sigmoid(), torch.full_like(cls, 0.01), atol=5e-3, rtol=0)


def test_parameters_and_names_are_those_of_the_published_network() -> None:
    with torch.device("meta"):
        model = RepPoints(ResNet(depth=50), 80)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    towers = 2 * 3 * (256 * 256 * 9 + 2 * 256)
    convs = 3 * 256 * 256 * 9 + 256  # one of them with a bias
    outs = 2 * (256 * 18 + 18) + 256 * 80 + 80
    assert sum(p.numel() for p in model.head.parameters()) == towers + convs + outs + 2
    assert sum(p.numel() for p in model.parameters()) == 36_849_078
    towerless = {name: tuple(x.shape) for name, x in model.head.state_dict().items() if "tower" not in name}
    assert towerless == {
        "moment_transfer": (2,),
        "init_conv.weight": (256, 256, 3, 3),
        "init_conv.bias": (256,),
        "init_out.weight": (18, 256, 1, 1),
        "init_out.bias": (18,),
        "cls_conv.weight": (256, 256, 3, 3),
        "cls_out.weight": (80, 256, 1, 1),
        "cls_out.bias": (80,),
        "refine_conv.weight": (256, 256, 3, 3),
        "refine_out.weight": (18, 256, 1, 1),
        "refine_out.bias": (18,),
    }
    assert model.strides == (8, 16, 32, 64, 128)
    assert [tuple(x.shape[2:]) for x in outputs.cls] == [
        (math.ceil(801 / s), math.ceil(1333 / s)) for s in model.strides
    ]
