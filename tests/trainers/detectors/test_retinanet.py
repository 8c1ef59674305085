"""RetinaNet: torchvision's own model says the same, and mmdetection's losses are written out."""

import math
from collections.abc import Iterator
from dataclasses import replace
from operator import eq
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet as Theirs
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou, generalized_box_iou_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from trainers import workers
from trainers.backbones import ResNet, TinyResNet
from trainers.detectors import RetinaNet
from trainers.detectors.nine import nine_anchors
from trainers.norm import MEAN, group_norm
from trainers.outputs import Outputs, Targets, Truth

WIDTH = 32  # of the small pyramids that are compared with torchvision's
KINDS: dict[str, dict[str, Any]] = {
    "v1": {"conventions": "torchvision", "extra_from": "output"},
    "v2": {"conventions": "torchvision", "tower_norm": "group", "box_loss": "giou"},
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- against torchvision


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's state under our names."""
    names = {"backbone.body.": "backbone.", "inner_blocks.": "laterals.", "layer_blocks.": "outputs."}
    names |= {"backbone.fpn.": "neck.", "extra_blocks.p6.": "extras.0.", "extra_blocks.p7.": "extras.1."}
    found = {}
    for name, value in state.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        if name.startswith(("neck.laterals", "neck.outputs")):
            name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        found[name] = value
    return found


def pair(kind: str, **knobs: Any) -> tuple[Theirs, RetinaNet]:
    """torchvision's model and ours, of the same weights: scores and statistics vary, and many scores are high."""
    torch.manual_seed(0)
    layers = {f"layer{i}": str(i) for i in (2, 3, 4)}
    extra = LastLevelP6P7(WIDTH if kind == "v1" else 512, WIDTH)
    head = RetinaNetHead(WIDTH, 9, 3, norm_layer=None if kind == "v1" else group_norm)
    head.regression_head._loss_type = "l1" if kind == "v1" else "giou"
    theirs = Theirs(
        BackboneWithFPN(resnet18(), layers, [128, 256, 512], WIDTH, extra_blocks=extra),
        num_classes=3,
        head=head,
        score_thresh=0.3,
        topk_candidates=40,
        detections_per_img=60,
        _skip_resize=True,
    )
    for name, module in theirs.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.running_mean) * 0.1
            module.running_var = torch.rand_like(module.running_var) + 0.5
        if isinstance(module, nn.Conv2d) and name.startswith("head."):
            nn.init.kaiming_uniform_(module.weight, a=1)
        if isinstance(module, nn.Conv2d) and name.startswith("head.regression_head.bbox"):
            nn.init.normal_(module.weight, std=0.05)
    nn.init.constant_(theirs.head.classification_head.cls_logits.bias, -1.0)
    same = {"score_threshold": 0.3, "top_k": 40, "max_detections": 60}
    ours = RetinaNet(ResNet(depth=18), 3, channels=WIDTH, **KINDS[kind], **same, **knobs)
    ours.load_state_dict(renamed(theirs.state_dict()))
    return theirs, ours.eval()


SIZES = [(96, 160), (71, 120)]  # P7 of 96 by 160 pixels has one cell by two: not of 128 pixels each


def scene() -> tuple[list[Tensor], Tensor, Truth]:
    """Images as torchvision takes them, the same padded to a batch, and what is in them."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, *size, generator=generator) for size in SIZES]
    batch = torch.tensor(MEAN).view(1, 3, 1, 1).repeat(2, 1, *SIZES[0])
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    boxes = [
        torch.tensor([[3.0, 5, 40, 37], [10.0, 8, 150, 90], [60.0, 20, 67, 31], [61.0, 20, 69, 30]]),
        torch.tensor([[20.0, 10, 100, 65], [4.0, 50, 30, 66]]),
    ]
    labels = [torch.tensor([0, 2, 1, 0]), torch.tensor([1, 2])]
    return images, batch, Truth(boxes, labels, SIZES, [0, 1], [(1.0, 1.0)] * 2)


@EACH_KIND
def test_raw_predictions_are_torchvisions(kind: str) -> None:
    theirs, ours = pair(kind)
    _, batch, _ = scene()
    with torch.no_grad():
        outputs = ours(batch)
        expected = theirs.eval().head(list(theirs.backbone(ours.backbone.colours(batch)).values()))
    torch.testing.assert_close(outputs.class_rows().view(2, -1, 3), expected["cls_logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.cat([b.unflatten(1, (9, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for b in outputs.box], dim=1),
        expected["bbox_regression"],
        atol=1e-5,
        rtol=1e-5,
    )


@EACH_KIND
@pytest.mark.parametrize("empty", [(), (1,), (0, 1)], ids=["boxes", "one image without", "none"])
def test_losses_are_torchvisions(kind: str, empty: tuple[int, ...]) -> None:
    theirs, ours = pair(kind)
    images, batch, truth = scene()
    for image in empty:
        truth.boxes[image], truth.labels[image] = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    boxes = [{"boxes": b, "labels": n} for b, n in zip(truth.boxes, truth.labels, strict=True)]
    expected = theirs(images, boxes)
    outputs = ours(batch)
    losses = ours.losses(outputs, ours.assign(outputs, truth))
    torch.testing.assert_close(losses["focal"], expected["classification"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses["box"], expected["bbox_regression"], atol=1e-5, rtol=1e-5)
    assert (losses["box"] > 0) == (len(empty) < 2)


@EACH_KIND
def test_detections_are_torchvisions(kind: str) -> None:
    theirs, ours = pair(kind)
    images, batch, truth = scene()
    theirs.eval().transform.train()  # as in training it does not resize
    with torch.no_grad():
        expected = theirs(images)
        found = ours.detect(ours(batch), truth.sizes)
    for one, other in zip(found, expected, strict=True):
        assert len(one.boxes) > 20
        assert one.scores.unique().numel() == len(one.scores)  # so that there is one order only
        torch.testing.assert_close(one.scores, other["scores"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.boxes, other["boxes"], atol=1e-4, rtol=1e-5)
        assert torch.equal(one.labels, other["labels"])


@pytest.mark.parametrize(("kind", "published"), [("v1", retinanet_resnet50_fpn), ("v2", retinanet_resnet50_fpn_v2)])
def test_the_published_networks_fit(kind: str, published: Any) -> None:
    with torch.device("meta"):
        theirs = published(weights=None, weights_backbone=None, num_classes=91)
        ours = RetinaNet(ResNet(depth=50), 91, **KINDS[kind])
    state = {name: value.shape for name, value in renamed(theirs.state_dict()).items()}
    assert state == {name: value.shape for name, value in ours.state_dict().items()}
    groups = {m.num_groups for m in ours.head.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {m.num_groups for m in theirs.head.modules() if isinstance(m, nn.GroupNorm)}
    assert ours.neck.relu


# ---- against mmdetection


STRIDES = (4, 8, 16)
BINS = 9
CELLS = [(i, j, s) for s in STRIDES for i in range(32 // s) for j in range(32 // s)]
ANCHORS = 9 * len(CELLS)


def make(**knobs: Any) -> RetinaNet:
    torch.manual_seed(0)
    return RetinaNet(TinyResNet(width=8), 3, **{"channels": 16, "extra": 0, **knobs})


def truth(*boxes: list[list[float]], size: tuple[int, int] = (32, 32)) -> Truth:
    """Images with boxes of class 0, 1, 2, 0, ... each."""
    return Truth(
        boxes=[torch.tensor(b).view(-1, 4) for b in boxes],
        labels=[torch.arange(len(b)) % 3 for b in boxes],
        sizes=[size] * len(boxes),
        ids=list(range(len(boxes))),
        scales=[(1.0, 1.0)] * len(boxes),
    )


def said(images: int, *, bins: int = 0) -> Outputs:
    """Outputs that are leaves."""
    generator = torch.Generator().manual_seed(0)

    def levels(channels: int, size: float = 1.0) -> list[Tensor]:
        shapes = [(images, channels, 32 // s, 32 // s) for s in STRIDES]
        return [(torch.randn(shape, generator=generator) * size).requires_grad_() for shape in shapes]

    return Outputs(levels(16), levels(9 * 3), levels(9 * 4 * (bins or 1), 1.0 if bins else 0.3), anchors=9)


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
    table = overlaps(boxes)
    best = [max(row[n] for row in table) for n in range(len(boxes))]
    found: list[int | None] = []
    for row in table:
        number = max(range(len(row)), key=row.__getitem__) if row else -1
        most = max(row, default=0.0)
        found.append(number if most >= 0.5 or any(map(eq, row, best)) else None if most >= 0.4 else -1)
    return found


def of_box(
    kind: str, raw: Tensor, anchor: tuple[float, float, float, float, int], box: list[float]
) -> dict[str, float]:
    x, y, w, h, stride = anchor
    real = torch.tensor([box])
    if kind == "edges":
        edges = raw.view(4, BINS)
        d = (edges.softmax(1) * torch.arange(BINS)).sum(1).double() * stride
        predicted = torch.stack([x - d[0], y - d[1], x + d[2], y + d[3]])[None]
        dfl = 0.0
        for e, distance in enumerate((x - box[0], y - box[1], box[2] - x, box[3] - y)):
            t = min(max(distance / stride, 0), BINS - 1 - 0.1)
            k = math.floor(t)
            log_p = edges[e].log_softmax(0)
            dfl -= ((k + 1 - t) * log_p[k] + (t - k) * log_p[k + 1]).item() / 4
        return {"box": 2 * generalized_box_iou_loss(predicted, real).item(), "dfl": 0.25 * dfl}
    bw, bh = box[2] - box[0], box[3] - box[1]
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if kind == "l1":
        wanted = ((cx - x) / w, (cy - y) / h, math.log(bw / w), math.log(bh / h))
        return {"box": sum(abs(r - t) for r, t in zip(raw.tolist(), wanted, strict=True))}
    px, py, pw, ph = x + raw[0] * w, y + raw[1] * h, w * raw[2].exp(), h * raw[3].exp()
    predicted = torch.stack([px - pw / 2, py - ph / 2, px + pw / 2, py + ph / 2])[None]
    return {"box": generalized_box_iou_loss(predicted, real).item()}


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
            for k, z in enumerate(cls[row].tolist()):
                p = 1 / (1 + math.exp(-z))
                if number >= 0 and labels[number] == k:
                    sums["focal"] -= 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    sums["focal"] -= 0.75 * p**2 * math.log(1 - p)
            if number >= 0:
                for name, value in of_box(kind, box[row], anchor, boxes[number].tolist()).items():
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
    expected = of_box("edges", raw[0], anchors()[5], box)
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
    assert set(targets.own["ignored"].nonzero().flatten().tolist()) == ignored
    stride = [anchors()[row % ANCHORS][4] for row in targets.row.tolist()]
    assert [STRIDES[level] for level in targets.level.tolist()] == stride
    assert targets.valid.all()


def test_ignored_anchors_learn_no_class_and_all_others_do_and_only_positives_learn_boxes() -> None:
    model, outputs = make(), said(3)
    targets = model.assign(outputs, THREE)
    sum(model.losses(outputs, targets).values()).backward()
    grads = replace(outputs, cls=[x.grad for x in outputs.cls], box=[x.grad for x in outputs.box])
    assert torch.equal((grads.class_rows() == 0).all(1), targets.own["ignored"])
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
def test_losses_of_two_workers_average_to_the_losses_of_one(conventions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, outputs = make(conventions=conventions), said(3)
    whole = model.losses(outputs, model.assign(outputs, THREE))

    def part(images: slice) -> tuple[Outputs, Targets]:
        levels = ([x[images] for x in some] for some in (outputs.features, outputs.cls, outputs.box))
        own = Outputs(*levels, anchors=9)
        own_truth = replace(THREE, boxes=THREE.boxes[images], labels=THREE.labels[images], sizes=THREE.sizes[images])
        return own, model.assign(own, own_truth)

    parts = [part(slice(0, 1)), part(slice(1, 3))]
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


@BOTH
@pytest.mark.parametrize("reg_max", [0, BINS - 1])
def test_a_batch_without_boxes_learns_that_nothing_is_there(conventions: str, reg_max: int) -> None:
    model, outputs = make(conventions=conventions, reg_max=reg_max), said(2, bins=reg_max and BINS)
    losses = model.losses(outputs, model.assign(outputs, truth([], [])))
    z = torch.cat([c.detach().flatten() for c in outputs.cls])
    torch.testing.assert_close(losses.pop("focal"), 0.75 * (z.sigmoid() ** 2 * F.softplus(z)).sum() / 2)
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


@pytest.mark.parametrize("reg_max", [0, BINS - 1])
def test_losses_under_autocast_are_float32_and_those_of_the_same_outputs_in_float32(reg_max: int) -> None:
    model = make(reg_max=reg_max, box_loss="giou")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(torch.rand(3, 3, 32, 32))
        targets = model.assign(outputs, THREE)
        inside = model.losses(outputs, targets)
    assert outputs.cls[0].dtype == outputs.box[0].dtype == torch.bfloat16
    exact = replace(outputs, cls=[x.float() for x in outputs.cls], box=[x.float() for x in outputs.box])
    for name, loss in model.losses(exact, targets).items():
        assert inside[name].dtype == torch.float32
        assert torch.equal(inside[name], loss)


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
