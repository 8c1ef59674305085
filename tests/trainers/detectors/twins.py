"""torchvision's detectors of two stages and ours with the same weights, and what both say of the same batch."""

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection import MaskRCNN as TheirMaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from tests.trainers.torchvisions import our_name, renamed
from trainers import detectors
from trainers.backbones import ResNet
from trainers.outputs import Truth

CLASSES = 3
WIDTH = 64  # of the pyramid
# Padded to multiples of 32 as torchvision pads: the coarsest level has 2 by 3 cells, 48 pixels apart and not 64.
PADDED, SIZES = (96, 160), [(90, 160), (96, 131)]
LOSSES = {
    "loss_objectness": "rpn_cls",
    "loss_rpn_box_reg": "rpn_box",
    "loss_classifier": "cls",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


THEIRS = {"FasterRCNN": TheirFasterRCNN, "MaskRCNN": TheirMaskRCNN}


@cache
def made(kind: str) -> tuple[Any, Any]:
    """Theirs and ours, with weights large enough that the anchors and classes are not all alike."""
    torch.manual_seed(0)
    layers = {f"layer{i + 1}": str(i) for i in range(4)}
    theirs: Any = THEIRS[kind](BackboneWithFPN(resnet18(), layers, [64, 128, 256, 512], WIDTH), CLASSES + 1)
    if kind == "MaskRCNN":
        theirs.roi_heads.mask_head = MaskRCNNHeads(WIDTH, (WIDTH,) * 4, 1)
        theirs.roi_heads.mask_predictor = MaskRCNNPredictor(WIDTH, WIDTH, CLASSES + 1)
    for module in (theirs.rpn.head.cls_logits, theirs.rpn.head.bbox_pred, theirs.roi_heads.box_predictor.cls_score):
        nn.init.normal_(module.weight, std=0.1)
    ours = getattr(detectors, kind)(ResNet(depth=18), CLASSES, channels=WIDTH, conventions="torchvision")
    ours.load_state_dict(renamed(theirs.state_dict()))
    for stage in ("rpn", "roi_heads"):
        one, two = (getattr(model, stage) for model in (theirs, ours))
        assert settings(one) == settings(two)
        for sampler in (one.fg_bg_sampler, two.fg_bg_sampler):
            sampler.batch_size_per_image = 64  # enough to be drawn at random, and fast
    return theirs, ours


def twins(kind: str) -> tuple[Any, Any]:
    return copy.deepcopy(made(kind))


def settings(stage: Any) -> list[dict[str, Any]]:
    """The numbers of a stage, such as thresholds, and those of its box coder, matcher and sampler."""
    parts = [vars(one) for one in (stage, stage.box_coder, stage.proposal_matcher, stage.fg_bg_sampler)]
    return [
        {name: x for name, x in part.items() if isinstance(x, int | float | tuple) or name.endswith("top_n")}
        for part in parts
    ]


def batch() -> tuple[Tensor, Truth]:
    """Noise, boxes of several sizes, and masks that are ellipses."""
    generator = torch.Generator().manual_seed(1)
    boxes = [
        torch.tensor([[10.0, 8, 52, 45], [60.0, 5, 150, 88], [100.5, 40.25, 118, 66]]),
        torch.tensor([[3.0, 20, 125, 95]]),
    ]
    y, x = torch.arange(PADDED[0])[:, None], torch.arange(PADDED[1])
    masks = []
    for box in boxes:
        centre, half = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]) / 2
        (cx, cy), (rx, ry) = centre[:, :, None, None].unbind(1), half[:, :, None, None].unbind(1)
        masks.append(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)
    labels = [torch.tensor([2, 0, 1]), torch.tensor([1])]
    truth = Truth(boxes, labels, SIZES, [0, 1], [(1.0, 1.0)] * 2, masks)
    return torch.rand(2, 3, *PADDED, generator=generator), truth


def run_theirs(theirs: Any, ours: Any, images: Tensor, truth: Truth) -> tuple[list[Tensor], Any]:
    """What their first stage says, and their losses in training or their detections in evaluation."""
    features = theirs.backbone(ours.backbone.colours(images))
    objectness, deltas = theirs.rpn.head(list(features.values()))
    assert truth.masks is not None
    targets = [
        {"boxes": box, "labels": label + 1, "masks": mask.byte()}
        for box, label, mask in zip(truth.boxes, truth.labels, truth.masks, strict=True)
    ]
    torch.manual_seed(5)
    proposals, first = theirs.rpn(ImageList(images, truth.sizes), features, targets)
    found, second = theirs.roi_heads(features, proposals, truth.sizes, targets if theirs.training else None)
    said = [*features.values(), *objectness, *deltas]
    return said, {LOSSES[name]: loss for name, loss in {**first, **second}.items()} if theirs.training else found


def same_training(kind: str) -> None:
    """Raw outputs, losses and gradients are torchvision's."""
    theirs, ours = twins(kind)
    images, truth = batch()
    said, losses = run_theirs(theirs.train(), ours, images, truth)
    torch.stack(list(losses.values())).sum().backward()
    outputs = ours.train()(images)
    for x, y in zip([*outputs.features, *outputs.own["objectness"], *outputs.own["deltas"]], said, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
    targets = ours.assign(outputs, truth)
    torch.manual_seed(5)
    found = ours.losses(outputs, targets)
    assert set(found) == set(losses)
    for name, loss in losses.items():
        assert loss.item() > 0
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=1e-5)
    torch.stack(list(found.values())).sum().backward()
    ours_by_name = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        mine = ours_by_name[our_name(name)].grad
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def same_detections(kind: str) -> None:
    theirs, ours = twins(kind)
    images, truth = batch()
    theirs.roi_heads.mask_roi_pool = None  # slow, and draws nothing that we have
    with torch.no_grad():
        _, theirs_found = run_theirs(theirs.eval(), ours, images, truth)
        found = ours.eval().detect(ours(images), truth.sizes)
    for mine, other in zip(found, theirs_found, strict=True):
        assert len(mine.scores) > 20
        assert torch.equal(mine.labels, other["labels"] - 1)
        torch.testing.assert_close(mine.scores, other["scores"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine.boxes, other["boxes"], rtol=1e-5, atol=1e-5)


def same_parameters(kind: str) -> int:
    """ResNet-50 and 80 classes: the names and shapes are torchvision's. -> how many numbers."""
    with torch.device("meta"):
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d)
        theirs = THEIRS[kind](backbone, num_classes=81)
        ours = getattr(detectors, kind)(ResNet(depth=50), 80, conventions="torchvision")
    shapes = {name: value.shape for name, value in renamed(theirs.state_dict()).items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == shapes
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters())
    return count
