"""RetinaNet in torchvision's conventions: both of torchvision's own models say, learn and find the same."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.retinanet import RetinaNetHead

from tests.trainers.detectors.scenes import truth
from tests.trainers.torchvisions import drawn, learning, pyramid, renamed, restless
from trainers.backbones import ResNet
from trainers.detectors import RetinaNet
from trainers.norm import group_norm
from trainers.outputs import Truth

WIDTH = 32  # of the pyramid
KINDS: dict[str, dict[str, Any]] = {
    "v1": {"conventions": "torchvision", "extra_from": "output"},
    "v2": {"conventions": "torchvision", "tower_norm": "group", "box_loss": "giou"},
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@cache
def made(kind: str) -> tuple[detection.RetinaNet, RetinaNet]:
    """torchvision's model and ours, of the same weights: scores and statistics vary, and many scores are high."""
    torch.manual_seed(0)
    backbone = restless(pyramid(WIDTH, WIDTH if kind == "v1" else 512))
    head = RetinaNetHead(WIDTH, 9, 3, norm_layer=None if kind == "v1" else group_norm)
    head.regression_head._loss_type = "l1" if kind == "v1" else "giou"
    theirs = detection.RetinaNet(
        backbone,
        num_classes=3,
        head=head,
        score_thresh=0.3,
        topk_candidates=40,
        detections_per_img=60,
        _skip_resize=True,
    )
    for name, module in theirs.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith("head."):
            nn.init.kaiming_uniform_(module.weight, a=1)
        if isinstance(module, nn.Conv2d) and name.startswith("head.regression_head.bbox"):
            nn.init.normal_(module.weight, std=0.05)
    nn.init.constant_(theirs.head.classification_head.cls_logits.bias, -1.0)
    same = {"score_threshold": 0.3, "top_k": 40, "max_detections": 60}
    ours = RetinaNet(ResNet(depth=18), 3, channels=WIDTH, **KINDS[kind], **same)
    ours.load_state_dict(renamed(theirs.state_dict()))
    return theirs, ours.eval()


def pair(kind: str) -> tuple[detection.RetinaNet, RetinaNet]:
    return copy.deepcopy(made(kind))


SIZES = [(96, 160), (71, 120)]  # P7 of 96 by 160 pixels has one cell by two: not of 128 pixels each


def scene() -> tuple[list[Tensor], Tensor, Truth]:
    """Images as torchvision takes them, the same padded to a batch, and what is in them."""
    boxes = truth(
        [[3.0, 5, 40, 37], [10.0, 8, 150, 90], [60.0, 20, 67, 31], [61.0, 20, 69, 30]],
        [[20.0, 10, 100, 65], [4.0, 50, 30, 66]],
        sizes=SIZES,
    )
    return *drawn(SIZES, SIZES[0], seed=1), boxes


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
    boxes = [{"boxes": b, "labels": n} for b, n in zip(truth.boxes, truth.labels, strict=True)]
    expected = learning(theirs)(images, boxes)
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


@pytest.mark.parametrize(
    ("kind", "published"), [("v1", detection.retinanet_resnet50_fpn), ("v2", detection.retinanet_resnet50_fpn_v2)]
)
def test_the_published_networks_fit(kind: str, published: Any) -> None:
    with torch.device("meta"):
        theirs = published(weights=None, weights_backbone=None, num_classes=91)
        ours = RetinaNet(ResNet(depth=50), 91, **KINDS[kind])
    state = {name: value.shape for name, value in renamed(theirs.state_dict()).items()}
    assert state == {name: value.shape for name, value in ours.state_dict().items()}
    groups = {m.num_groups for m in ours.head.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {m.num_groups for m in theirs.head.modules() if isinstance(m, nn.GroupNorm)}
    assert ours.neck.relu
