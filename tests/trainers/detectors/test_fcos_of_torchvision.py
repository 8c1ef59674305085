"""FCOS in torchvision's conventions: torchvision's own model says, learns and finds the same."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from tests.trainers.detectors.scenes import truth
from tests.trainers.torchvisions import drawn, learning, pyramid, renamed, restless
from trainers.backbones import ResNet
from trainers.detectors import FCOS
from trainers.norm import group_norm
from trainers.outputs import Truth

WIDTH = 32  # of the pyramid
SIZES = [(150, 260), (160, 130), (96, 90)]  # padded to 160 by 288, which 3 rows and 5 columns do not divide
TRUE = [  # the two of 320 and 321.6 square pixels are equal to torchvision, which takes the first
    [[5.0, 4, 198, 149], [20.0, 30, 60, 75], [100.0, 20, 131, 140], [25.0, 33, 58, 71]],
    [[3.0, 10, 120, 158], [40.0, 50, 60.1, 66], [41.0, 50, 61, 66], [1.0, 2, 128, 157]],
    [],
]


@pytest.fixture(scope="module")
def pair() -> tuple[FCOS, detection.FCOS]:
    """Ours and theirs, of the same weights: statistics vary, scores are not all low, and boxes are large."""
    torch.manual_seed(0)
    theirs = detection.FCOS(restless(pyramid(WIDTH, WIDTH)), 5)
    theirs.transform.resize = lambda image, target=None: (image, target)
    head = theirs.head
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)  # of 0.01, so narrow a tower says nothing
        if isinstance(module, nn.GroupNorm):
            module.num_groups = group_norm(WIDTH).num_groups  # torchvision's 32 are for 256 channels
    for conv in (head.classification_head.cls_logits, head.regression_head.bbox_ctrness):
        nn.init.normal_(conv.weight, std=0.1)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.02)
    nn.init.constant_(head.classification_head.cls_logits.bias, -2.0)
    nn.init.constant_(head.regression_head.bbox_reg.bias, 0.5)
    ours = FCOS(ResNet(depth=18), 5, channels=WIDTH, conventions="torchvision", score_threshold=0.2)
    ours.load_state_dict(renamed(theirs.state_dict()))
    return ours.eval(), theirs.eval()


@pytest.fixture
def ours_and_theirs(pair: tuple[FCOS, detection.FCOS]) -> tuple[FCOS, detection.FCOS]:
    return copy.deepcopy(pair)


def the_same_images() -> tuple[list[Tensor], Tensor, Truth]:
    return *drawn(SIZES, (160, 288)), truth(*TRUE, sizes=SIZES)


def test_it_says_what_torchvisions_model_says(ours_and_theirs: tuple[FCOS, detection.FCOS]) -> None:
    ours, theirs = ours_and_theirs
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


def test_losses_and_gradients_are_those_of_torchvision(ours_and_theirs: tuple[FCOS, detection.FCOS]) -> None:
    ours, theirs = ours_and_theirs
    images, batch, real = the_same_images()
    boxes = zip(real.boxes, real.labels, strict=True)
    expected = learning(theirs)(images, [{"boxes": b, "labels": n} for b, n in boxes])
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


def test_a_batch_without_boxes_costs_what_it_costs_in_torchvision(ours_and_theirs: tuple[FCOS, detection.FCOS]) -> None:
    ours, theirs = ours_and_theirs
    images, batch, real = the_same_images()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    empty = replace(real, boxes=[torch.zeros(0, 4)] * 3, labels=[torch.zeros(0, dtype=torch.long)] * 3)
    with torch.no_grad():
        expected = learning(theirs)(images, [dict(nothing) for _ in images])
        outputs = ours(batch)
        losses = ours.losses(outputs, ours.assign(outputs, empty))
    torch.testing.assert_close(losses["cls"], expected["classification"], rtol=1e-5, atol=1e-5)
    assert losses["box"] == losses["centerness"] == expected["bbox_regression"] == expected["bbox_ctrness"] == 0


@pytest.mark.parametrize("first", [0, 3])
def test_it_finds_what_torchvision_finds(ours_and_theirs: tuple[FCOS, detection.FCOS], first: int) -> None:
    """On all levels, and when the three finest say nothing."""
    ours, theirs = ours_and_theirs
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
