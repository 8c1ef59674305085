"""FCOS: torchvision's own model and the whole assignment and loss written out are matched."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainers import workers
from trainers.backbones import ResNet, TinyResNet
from trainers.detectors import FCOS
from trainers.norm import MEAN
from trainers.outputs import Outputs, Targets, Truth
from trainers.spec import Invalid

STRIDES = (4, 8, 16)
BINS = 9
SIDE = 128
CELLS = [(SIDE // s) ** 2 for s in STRIDES]
KINDS: list[dict[str, Any]] = [{}, {"conventions": "paper"}, {"reg_max": BINS - 1}]
EVERY_KIND = pytest.mark.parametrize("knobs", KINDS, ids=["mmdetection", "paper", "distributions"])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(**knobs: Any) -> FCOS:
    torch.manual_seed(0)
    small: dict[str, Any] = {"channels": 16, "convs": 1, "extra": 0}
    return FCOS(TinyResNet(width=8), 3, **{**small, **knobs})


def truth(*boxes: list[list[float]], size: tuple[int, int] = (SIDE, SIDE)) -> Truth:
    """Images with boxes of class 0, 1, 2, 0, ... each."""
    return Truth(
        boxes=[torch.tensor(b).view(-1, 4) for b in boxes],
        labels=[torch.arange(len(b)) % 3 for b in boxes],
        sizes=[size] * len(boxes),
        ids=list(range(len(boxes))),
        scales=[(1.0, 1.0)] * len(boxes),
    )


# Some lie within others; the first answers on all levels where centres are not sampled.
MANY = truth(
    [[3.3, 5.1, 120.2, 118.4], [10.1, 8.2, 22.3, 21.4], [40.3, 50.2, 79.1, 80.3]],
    [],
    [[30.2, 20.1, 61.3, 60.2], [2.1, 40.3, 20.2, 63.1], [28.3, 22.2, 58.1, 95.4], [1.1, 1.2, 100.3, 90.1]],
)


def said(images: int, bins: int = 0, *, seed: int = 0) -> Outputs:
    """Outputs that are leaves: random logits, and distances that are not negative."""
    generator = torch.Generator().manual_seed(seed)

    def levels(channels: int) -> list[Tensor]:
        shapes = [(images, channels, SIDE // s, SIDE // s) for s in STRIDES]
        return [torch.randn(shape, generator=generator) for shape in shapes]

    box = levels(4 * bins) if bins else [2 * x.abs() + 0.1 for x in levels(4)]
    outputs = Outputs(levels(16), levels(3), box, own={"centerness": levels(1)})
    for level in (*outputs.cls, *outputs.box, *outputs.own["centerness"]):
        level.requires_grad_()
    return outputs


def part(outputs: Outputs, images: slice) -> Outputs:
    features, cls, box, centred = (
        [x[images] for x in levels]
        for levels in (outputs.features, outputs.cls, outputs.box, outputs.own["centerness"])
    )
    return Outputs(features, cls, box, own={"centerness": centred})


# The words of mmdetection, number by number.


def answers(x: float, y: float, level: int, boxes: list[list[float]], *, sampled: bool) -> int | None:
    """The smallest box that a point lies in and that its level is for."""
    stride, best, found = STRIDES[level], math.inf, None
    low = 8 * STRIDES[level - 1] if level else -1
    high = math.inf if level == len(STRIDES) - 1 else 8 * stride
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        distance = (x - x1, y - y1, x2 - x, y2 - y)
        inside = min(distance) > 0
        if sampled:
            reach, cx, cy = 1.5 * stride, (x1 + x2) / 2, (y1 + y2) / 2
            left, top = max(cx - reach, x1), max(cy - reach, y1)
            right, bottom = min(cx + reach, x2), min(cy + reach, y2)
            inside = min(x - left, y - top, right - x, bottom - y) > 0
        area = (x2 - x1) * (y2 - y1)
        if inside and low <= max(distance) <= high and area < best:
            best, found = area, number
    return found


def overlap(a: list[float], b: list[float]) -> tuple[float, float]:
    """IoU and GIoU."""
    width, height = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    hull = math.prod(max(a[k + 2], b[k + 2]) - min(a[k], b[k]) for k in (0, 1))
    return width * height / union, width * height / union - (hull - union) / hull


def softmax(z: list[float]) -> list[float]:
    e = [math.exp(v) for v in z]
    return [v / sum(e) for v in e]


def literal(
    outputs: Outputs, truth: Truth, *, conventions: str = "mmdetection", reg_max: int = 0
) -> tuple[dict[str, float], dict[int, tuple[int, list[float]]]]:
    """The losses, and the label and box that each positive row answers for."""
    paper, owned = conventions == "paper", {}
    sums = dict.fromkeys(("cls", "centerness", "box", "dfl", "weight"), 0.0)
    for image, (boxes, labels) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
        for level, stride in enumerate(STRIDES):
            side = SIDE // stride
            cls, box, centred = (
                maps[level][image].permute(1, 2, 0).tolist()
                for maps in (outputs.cls, outputs.box, outputs.own["centerness"])
            )
            for i in range(side):
                for j in range(side):
                    x, y = j * stride + stride // 2, i * stride + stride // 2
                    owner = answers(x, y, level, boxes.tolist(), sampled=not paper)
                    for k, z in enumerate(cls[i][j]):
                        p = 1 / (1 + math.exp(-z))
                        if owner is not None and k == labels[owner]:
                            sums["cls"] -= 0.25 * (1 - p) ** 2 * math.log(p)
                        else:
                            sums["cls"] -= 0.75 * p**2 * math.log(1 - p)
                    if owner is None:
                        continue
                    real = boxes[owner].tolist()
                    owned[image * sum(CELLS) + sum(CELLS[:level]) + i * side + j] = (labels[owner].item(), real)
                    le, to, ri, bo = x - real[0], y - real[1], real[2] - x, real[3] - y
                    target = math.sqrt(min(le, ri) / max(le, ri) * min(to, bo) / max(to, bo))
                    q = 1 / (1 + math.exp(-centred[i][j][0]))
                    sums["centerness"] -= target * math.log(q) + (1 - target) * math.log(1 - q)
                    edges = [v * (1 if paper else stride) for v in box[i][j]]
                    if reg_max:
                        bins = [softmax(box[i][j][e * BINS : (e + 1) * BINS]) for e in range(4)]
                        edges = [stride * sum(k * v for k, v in enumerate(one)) for one in bins]
                        for one, d in zip(bins, (le, to, ri, bo), strict=True):
                            d = min(d / stride, reg_max - 0.1)
                            k = math.floor(d)
                            loss = (k + 1 - d) * math.log(one[k]) + (d - k) * math.log(one[k + 1])
                            sums["dfl"] -= target * loss / 4
                    iou, giou = overlap([x - edges[0], y - edges[1], x + edges[2], y + edges[3]], real)
                    sums["box"] += target * (-math.log(iou) if paper else 1 - giou)
                    sums["weight"] += target
    found = {"cls": sums["cls"] / len(owned), "centerness": sums["centerness"] / len(owned)}
    found["box"] = sums["box"] / sums["weight"]
    if reg_max:
        found["dfl"] = 0.25 * sums["dfl"] / sums["weight"]
    return found, owned


@EVERY_KIND
def test_assignment_and_losses_are_those_of_mmdetection_written_out(knobs: dict[str, Any]) -> None:
    model, outputs = make(**knobs), said(3, BINS if "reg_max" in knobs else 0)
    targets = model.assign(outputs, MANY)
    losses, owned = literal(outputs, MANY, **knobs)
    assert targets.row.tolist() == sorted(owned)
    assert targets.label.tolist() == [owned[row][0] for row in sorted(owned)]
    assert targets.box.tolist() == [owned[row][1] for row in sorted(owned)]
    assert set(targets.level.tolist()) == {0, 1, 2}
    found = {name: loss.item() for name, loss in model.losses(outputs, targets).items()}
    assert found == pytest.approx(losses, rel=1e-4)


@pytest.mark.parametrize(
    ("conventions", "middle", "both"), [("mmdetection", 0.5, True), ("paper", 0.5, True), ("torchvision", 0.0, False)]
)
def test_where_the_range_of_one_level_ends_that_of_the_next_begins(conventions: str, middle: float, both: bool) -> None:
    """In the middle of a box of 64 pixels the farthest edge is 32 away: to both levels, but to none in torchvision."""
    model, outputs = make(conventions=conventions), said(1)
    for level, stride in ((0, 4), (1, 8)):
        column = 48 // stride
        x = (column + middle) * stride
        targets = model.assign(outputs, truth([[x - 32, 56, x + 32, 76]]))
        cell = targets.row[targets.level == level] - sum(CELLS[:level])
        assert (cell % (SIDE // stride) == column).any() == both


def test_an_image_without_boxes_has_no_positives_and_shifts_no_numbers() -> None:
    model, outputs = make(), said(2)
    targets = model.assign(outputs, truth([], [[3.0, 5, 60, 58], [70.0, 80, 90, 99]]))
    assert (targets.row >= sum(CELLS)).all()
    assert set(targets.label.tolist()) == {0, 1}


# torchvision's own model.

SIZES = [(150, 260), (160, 130), (96, 90)]  # padded to 160 by 288, which 3 rows and 5 columns do not divide
TRUE = [  # the two of 320 and 321.6 square pixels are equal to torchvision, which takes the first
    [[5.0, 4, 198, 149], [20.0, 30, 60, 75], [100.0, 20, 131, 140], [25.0, 33, 58, 71]],
    [[3.0, 10, 120, 158], [40.0, 50, 60.1, 66], [41.0, 50, 61, 66], [1.0, 2, 128, 157]],
    [],
]


def ours_and_theirs() -> tuple[FCOS, nn.Module]:
    from torchvision.models import detection, resnet18
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    blocks = LastLevelP6P7(256, 256)
    backbone = _resnet_fpn_extractor(resnet18(weights=None), 5, returned_layers=[2, 3, 4], extra_blocks=blocks)
    theirs = detection.FCOS(backbone, 5)
    theirs.transform.resize = lambda image, target=None: (image, target)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    head = theirs.head
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.03)
    nn.init.constant_(head.classification_head.cls_logits.bias, -2.0)
    nn.init.normal_(head.regression_head.bbox_ctrness.weight, std=0.03)
    nn.init.constant_(head.regression_head.bbox_reg.bias, 0.5)
    ours = FCOS(ResNet(depth=18), 5, conventions="torchvision", score_threshold=0.2)
    extras = {f"backbone.fpn.extra_blocks.p{6 + i}": f"neck.extras.{i}" for i in (0, 1)}
    blocks = {
        f"backbone.fpn.{a}_blocks.{i}.0": f"neck.{b}.{i}"
        for a, b in (("inner", "laterals"), ("layer", "outputs"))
        for i in range(3)
    }
    state = {}
    for name, value in theirs.state_dict().items():
        for old, new in {**extras, **blocks, "backbone.body": "backbone"}.items():
            name = name.replace(old + ".", new + ".")
        state[name] = value
    ours.load_state_dict(state)
    return ours.eval(), theirs.eval()


def the_same_images() -> tuple[list[Tensor], Tensor, Truth]:
    """Images as torchvision takes them, and as a batch: the padding is the mean colour, 0 for the network."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) for size in SIZES]
    batch = torch.tensor(MEAN).view(1, 3, 1, 1).repeat(3, 1, 160, 288)
    for one, image in zip(batch, images, strict=True):
        one[:, : image.shape[1], : image.shape[2]] = image
    return images, batch, replace(truth(*TRUE), sizes=SIZES)


def test_in_torchvisions_conventions_it_says_what_torchvisions_model_says() -> None:
    ours, theirs = ours_and_theirs()
    images, batch, _ = the_same_images()
    with torch.no_grad():
        padded = theirs.transform(images)[0].tensors
        assert padded.shape == batch.shape
        outputs = ours(batch)
        real = theirs.head(list(theirs.backbone(padded).values()))
    cells = [tuple(x.shape[2:]) for x in outputs.cls]
    assert cells == [(20, 36), (10, 18), (5, 9), (3, 5), (2, 3)]
    found = {
        "cls_logits": outputs.class_rows().unflatten(0, (3, -1)),
        "bbox_regression": torch.cat([x.flatten(2).transpose(1, 2) for x in outputs.box], 1),
        "bbox_ctrness": torch.cat([x.flatten(2).transpose(1, 2) for x in outputs.own["centerness"]], 1),
    }
    assert (real["bbox_regression"] > 0).float().mean() > 0.5
    for name, value in real.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)


def test_in_torchvisions_conventions_losses_and_gradients_are_those_of_torchvision() -> None:
    ours, theirs = ours_and_theirs()
    images, batch, real = the_same_images()
    theirs.train()
    theirs.backbone.eval()
    boxes = zip(real.boxes, real.labels, strict=True)
    expected = theirs(images, [{"boxes": b, "labels": n} for b, n in boxes])
    outputs = ours(batch)
    targets = ours.assign(outputs, real)
    assert {0, 1, 2} <= set(targets.level.tolist())
    losses = ours.losses(outputs, targets)
    names = {"cls": "classification", "box": "bbox_regression", "centerness": "bbox_ctrness"}
    assert set(losses) == set(names)
    for name, theirs_name in names.items():
        torch.testing.assert_close(losses[name], expected[theirs_name], rtol=1e-5, atol=1e-5)
    sum(expected.values()).backward()
    sum(losses.values()).backward()
    for a, b in (
        (ours.head.classification_head.cls_logits, theirs.head.classification_head.cls_logits),
        (ours.head.regression_head.bbox_reg, theirs.head.regression_head.bbox_reg),
        (ours.head.regression_head.bbox_ctrness, theirs.head.regression_head.bbox_ctrness),
        (ours.backbone.conv1, theirs.backbone.body.conv1),
    ):
        torch.testing.assert_close(a.weight.grad, b.weight.grad, rtol=1e-3, atol=1e-5)


def test_in_torchvisions_conventions_a_batch_without_boxes_costs_what_it_costs_in_torchvision() -> None:
    ours, theirs = ours_and_theirs()
    images, batch, real = the_same_images()
    theirs.train()
    theirs.backbone.eval()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    empty = replace(real, boxes=[torch.zeros(0, 4)] * 3, labels=[torch.zeros(0, dtype=torch.long)] * 3)
    with torch.no_grad():
        expected = theirs(images, [dict(nothing) for _ in images])
        outputs = ours(batch)
        losses = ours.losses(outputs, ours.assign(outputs, empty))
    torch.testing.assert_close(losses["cls"], expected["classification"], rtol=1e-5, atol=1e-5)
    assert losses["box"] == losses["centerness"] == expected["bbox_regression"] == expected["bbox_ctrness"] == 0


@pytest.mark.parametrize("first", [0, 3])
def test_in_torchvisions_conventions_it_finds_what_torchvision_finds(first: int) -> None:
    """On all levels, and when the three finest say nothing."""
    ours, theirs = ours_and_theirs()
    images, batch, _ = the_same_images()
    silent = sum(h * w for h, w in [(20, 36), (10, 18), (5, 9)][:first])

    def silence(module: nn.Module, images: Any, said: dict[str, Tensor]) -> None:
        said["cls_logits"][:, :silent] = -20

    theirs.head.register_forward_hook(silence)
    with torch.no_grad():
        expected = theirs(images)
        outputs = ours(batch)
        for level in outputs.cls[:first]:
            level.fill_(-20)
        found = ours.detect(outputs, SIZES)
    for a, b in zip(found, expected, strict=True):
        assert len(b["scores"]) > 10
        torch.testing.assert_close(a.scores, b["scores"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(a.boxes, b["boxes"], rtol=1e-5, atol=1e-4)
        assert torch.equal(a.labels, b["labels"])


# Decoding.


@pytest.mark.parametrize(
    ("conventions", "box"),
    [
        ("mmdetection", [52.0 - 16, 44 - 24, 52 + 32, 44 + 12]),
        ("torchvision", [48.0 - 16, 40 - 24, 48 + 32, 40 + 12]),
        ("paper", [52.0 - 2, 44 - 3, 52 + 4, 44 + 1.5]),
    ],
)
def test_a_certain_point_is_decoded_to_its_box(conventions: str, box: list[float]) -> None:
    """Cell (5, 6) of stride 8 says 2, 3, 4 and 1.5, class 2."""
    model, outputs = make(conventions=conventions), said(1)
    cls = [torch.full_like(c, -20.0) for c in outputs.cls]
    cls[1][0, 2, 5, 6] = 3.0
    distances = [torch.zeros_like(b) for b in outputs.box]
    distances[1][0, :, 5, 6] = torch.tensor([2, 3, 4, 1.5])
    centred = [torch.full_like(c, 1.0) for c in outputs.own["centerness"]]
    (found,) = model.detect(Outputs([], cls, distances, own={"centerness": centred}), [(SIDE, SIDE)])
    torch.testing.assert_close(found.boxes, torch.tensor([box]))
    assert found.labels.tolist() == [2]
    score = torch.tensor([3.0]).sigmoid() * torch.tensor([1.0]).sigmoid()
    torch.testing.assert_close(found.scores, score.sqrt() if conventions == "torchvision" else score)


def test_distributions_are_decoded_from_the_middle_of_the_cell_in_strides() -> None:
    model, outputs = make(reg_max=BINS - 1), said(1, BINS)
    cls = [torch.full_like(c, -20.0) for c in outputs.cls]
    cls[1][0, 2, 5, 6] = 3.0
    box = [torch.zeros_like(b) for b in outputs.box]
    edges = torch.full((4, BINS), -50.0)
    edges[[0, 1, 2], [2, 3, 4]] = 50
    edges[3, 1:3] = 50
    box[1][0, :, 5, 6] = edges.flatten()
    (found,) = model.detect(replace(outputs, cls=cls, box=box), [(SIDE, SIDE)])
    torch.testing.assert_close(found.boxes, torch.tensor([[52.0 - 16, 44 - 24, 52 + 32, 44 + 12]]))


def test_the_threshold_is_for_classes_alone_and_the_centerness_orders_what_overlaps() -> None:
    model, outputs = make(score_threshold=0.3), said(1)
    cls = [torch.full_like(c, -20.0) for c in outputs.cls]
    cls[1][0, 0, 5, 5:8] = torch.tensor([0.8, 0.6, 0.29]).logit()
    centred = [torch.zeros_like(c) for c in outputs.own["centerness"]]
    centred[1][0, 0, 5, 5:8] = torch.tensor([0.1, 0.4, 1.0]).logit().clamp(max=20)
    box = [torch.zeros_like(b) for b in outputs.box]
    for cell, x in ((5, 0), (6, 1), (7, 2)):  # all three say (20, 20, 84, 84)
        point = torch.tensor([44.0 + 8 * x, 44])
        box[1][0, :, 5, cell] = torch.cat([point - 20, 84 - point]) / 8
    (found,) = model.detect(Outputs([], cls, box, own={"centerness": centred}), [(SIDE, SIDE)])
    torch.testing.assert_close(found.scores, torch.tensor([0.6 * 0.4]))
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 20, 84, 84]]))


# Padding, workers, precision, sizes.


def test_the_padding_learns_to_be_background_and_is_never_detected() -> None:
    model, outputs = make(score_threshold=0.0, max_detections=10_000, nms_iou=1.0, top_k=10_000), said(1)
    size = (33, 20)  # 9 by 5, 5 by 3 and 3 by 2 cells
    targets = model.assign(outputs, truth([[2.0, 3, 18, 30]], size=size))
    assert targets.valid.sum() == 45 + 15 + 6
    sum(model.losses(outputs, targets).values()).backward()
    for cls, (height, width) in zip(outputs.cls, [(9, 5), (5, 3), (3, 2)], strict=True):
        assert cls.grad is not None
        assert (cls.grad[:, :, height:] > 0).all() and (cls.grad[:, :, :, width:] > 0).all()
    (found,) = model.detect(outputs, [size])
    assert len(found.scores) == 3 * (45 + 15 + 6)


@pytest.mark.parametrize("knobs", [*KINDS, {"conventions": "torchvision"}])
def test_losses_of_two_workers_average_to_the_losses_of_one(
    knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, outputs = make(**knobs), said(3, BINS if "reg_max" in knobs else 0)
    whole = model.losses(outputs, model.assign(outputs, MANY))

    def half(images: slice) -> tuple[Outputs, Targets]:
        own = part(outputs, images)
        own_truth = replace(MANY, boxes=MANY.boxes[images], labels=MANY.labels[images], sizes=MANY.sizes[images])
        return own, model.assign(own, own_truth)

    halves = [half(slice(0, 1)), half(slice(1, 3))]
    seen: list[Tensor] = []

    def remember(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.detach()

    monkeypatch.setattr(workers, "mean", remember)
    for own, targets in halves:
        model.losses(own, targets)
    monkeypatch.setattr(workers, "mean", lambda _: torch.stack(seen).mean(0))
    found = [model.losses(own, targets) for own, targets in halves]
    for name, loss in whole.items():
        torch.testing.assert_close((found[0][name] + found[1][name]) / 2, loss)


def test_each_loss_teaches_its_own_output_alone() -> None:
    model, outputs = make(), said(3)
    losses = model.losses(outputs, model.assign(outputs, MANY))
    maps = {"cls": outputs.cls, "box": outputs.box, "centerness": outputs.own["centerness"]}
    for name, loss in losses.items():
        for other, levels in maps.items():
            grads = torch.autograd.grad(loss, levels, retain_graph=True, materialize_grads=True)
            assert any(grad.any() for grad in grads) == (name == other), (name, other)


@pytest.mark.parametrize("knobs", [*KINDS, {"conventions": "torchvision"}])
def test_losses_are_float32_under_autocast_and_equal_those_of_the_same_outputs_without(knobs: dict[str, Any]) -> None:
    model = make(**knobs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.rand(3, 3, SIDE, SIDE))
        targets = model.assign(outputs, MANY)
        inside = model.losses(outputs, targets)
    assert outputs.cls[0].dtype == torch.bfloat16
    for name, loss in model.losses(outputs, targets).items():
        assert inside[name].dtype == torch.float32
        assert torch.equal(inside[name], loss)


def test_centerness_is_read_from_the_tower_of_boxes_but_in_the_paper_from_that_of_classes() -> None:
    for conventions, name in (("mmdetection", "regression_head"), ("paper", "classification_head")):
        model = make(conventions=conventions)
        sum(x.sum() for x in model(torch.rand(1, 3, 64, 64)).own["centerness"]).backward()
        taught = {n for n, p in model.head.named_parameters() if p.grad is not None and "conv" in n}
        assert taught and all(n.startswith(name) for n in taught)


def test_a_level_scales_its_distances_before_they_lose_their_sign() -> None:
    images = torch.rand(1, 3, 64, 64)
    for conventions in ("mmdetection", "paper"):
        model = make(conventions=conventions).eval()
        with torch.no_grad():
            once = model(images).box
            model.head.scales.copy_(torch.tensor([1.0, 3.0, -1.0]))
            scaled = model(images).box
        if conventions == "paper":
            expected = [once[0], once[1] ** 3, 1 / once[2]]
        else:
            expected = [once[0], 3 * once[1], torch.zeros_like(once[2])]  # all of them were positive
            assert (once[2] > 0).all()
        for x, y in zip(scaled, expected, strict=True):
            torch.testing.assert_close(x, y)


def test_torchvisions_conventions_have_no_distributions() -> None:
    with pytest.raises(Invalid, match="reg_max must be 0"):
        make(conventions="torchvision", reg_max=16)


TOWER = 4 * (256 * 256 * 9 + 2 * 256)  # without the convolutions' biases
OUT = 256 * 9 + 1  # of one channel
BODY = 32_440_537 - 5_063_833  # ResNet-50 and FPN, as GFL's


@pytest.mark.parametrize(
    ("knobs", "head"),
    [
        ({}, 2 * (TOWER + 4 * 256) + (80 + 4 + 1) * OUT + 5),
        ({"conventions": "torchvision"}, 2 * (TOWER + 4 * 256) + (80 + 4 + 1) * OUT),
        ({"conventions": "paper"}, 2 * TOWER + (80 + 4 + 1) * OUT + 5),
        ({"reg_max": 16}, 2 * (TOWER + 4 * 256) + (80 + 68 + 1) * OUT + 5),
    ],
)
def test_parameters_are_those_of_the_published_networks(knobs: dict[str, Any], head: int) -> None:
    """mmdetection counts 225,344 fewer, which it freezes; torchvision's 32,269,600 have 91 classes and no norms."""
    with torch.device("meta"):
        model = FCOS(ResNet(depth=50), 80, **knobs)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    assert sum(p.numel() for p in model.head.parameters()) == head
    assert sum(p.numel() for p in model.parameters()) == BODY + head
    if not knobs:
        assert BODY + head - 225_344 == 32_072_026
    if knobs == {"conventions": "torchvision"}:
        norms = sum(
            p.numel() for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()
        )
        assert BODY + head + 11 * OUT - norms == 32_269_600
    assert model.strides == (8, 16, 32, 64, 128)
    assert [tuple(c.shape[1:]) for c in outputs.own["centerness"]] == [
        (1, math.ceil(801 / s), math.ceil(1333 / s)) for s in model.strides
    ]


def test_its_state_has_torchvisions_names() -> None:
    from torchvision.models.detection.fcos import FCOSHead

    theirs = set(FCOSHead(256, 1, 80).state_dict())
    assert set(make(convs=4, conventions="torchvision").head.state_dict()) == theirs
    assert set(make(convs=4).head.state_dict()) == theirs | {"scales"}
    without = {f"{tower}_head.conv.{i}.bias" for tower in ("classification", "regression") for i in (0, 3, 6, 9)}
    assert set(make(convs=4, conventions="paper").head.state_dict()) == (theirs | {"scales"}) - without
