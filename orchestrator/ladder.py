"""Backbones by short names, how large each is, where others have trained it, and which lie between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from trainers import backbones, build, detectors
from trainers.call import Call, Invalid, alternatives
from trainers.spec import Model

TORCHVISION = "https://download.pytorch.org/models"
OPENMMLAB = "https://download.openmmlab.com"
MMDETECTION = f"{OPENMMLAB}/mmdetection/v2.0"
MOST = 3  # assistants: with each there are twice as many paths
SMALL = "tiny"  # how the names begin of backbones for small images


class Rung(NamedTuple):
    """A backbone: as a study writes it, and ImageNet's weights for it; empty: it starts anew."""

    written: dict[str, Any]
    weights: str = ""

    @property
    def family(self) -> str:
        return next(iter(self.written))


def _tiny(width: int, blocks: int = 1) -> Rung:
    return Rung({"TinyResNet": {"width": width, "blocks": blocks}})


LADDER = {
    "r152": Rung({"ResNet": {"depth": 152}}, f"{TORCHVISION}/resnet152-394f9c45.pth"),
    "r101": Rung({"ResNet": {"depth": 101}}, f"{TORCHVISION}/resnet101-63fe2227.pth"),
    "r50": Rung({"ResNet": {"depth": 50}}, f"{TORCHVISION}/resnet50-0676ba61.pth"),
    "r34": Rung({"ResNet": {"depth": 34}}, f"{TORCHVISION}/resnet34-b627a593.pth"),
    "r18": Rung({"ResNet": {"depth": 18}}, f"{TORCHVISION}/resnet18-f37072fd.pth"),
    "r101dcn": Rung({"ResNet": {"depth": 101, "dcn": "v1"}}, f"{TORCHVISION}/resnet101-63fe2227.pth"),
    "x101_64x4d": Rung(
        {"ResNeXt": {"depth": 101, "cardinality": "64x4d"}}, f"{TORCHVISION}/resnext101_64x4d-173b62eb.pth"
    ),
    "x101_32x4d": Rung(
        {"ResNeXt": {"depth": 101, "cardinality": "32x4d"}},
        f"{OPENMMLAB}/pretrain/third_party/resnext101_32x4d-a5af3160.pth",
    ),
    "swin_b": Rung({"Swin": {"size": "base"}}, f"{TORCHVISION}/swin_b-68c6b09e.pth"),
    "swin_s": Rung({"Swin": {"size": "small"}}, f"{TORCHVISION}/swin_s-5e29d889.pth"),
    "swin_t": Rung({"Swin": {"size": "tiny"}}, f"{TORCHVISION}/swin_t-704ceda3.pth"),
    "vgg16": Rung({"VGG": {"depth": 16}}, f"{TORCHVISION}/vgg16-397923af.pth"),
    "vgg11": Rung({"VGG": {"depth": 11}}, f"{TORCHVISION}/vgg11-8a719046.pth"),
    "mobilenet_v3_large": Rung({"MobileNetV3": {"size": "large"}}, f"{TORCHVISION}/mobilenet_v3_large-8738ca79.pth"),
    "mobilenet_v3_small": Rung({"MobileNetV3": {"size": "small"}}, f"{TORCHVISION}/mobilenet_v3_small-047dcff4.pth"),
    "mobilenet_v2": Rung({"MobileNetV2": {"width": 1.0}}, f"{TORCHVISION}/mobilenet_v2-b0353104.pth"),
    "tiny24": _tiny(24, 2),
    "tiny16": _tiny(16),
    "tiny8": _tiny(8),
    "tiny5": _tiny(5),
}

# Whole detectors that mmdetection has trained on COCO, by detector and backbone.
TRAINED = {
    ("GFL", "r101"): f"{MMDETECTION}/gfl/gfl_r101_fpn_mstrain_2x_coco/"
    "gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth",
    ("GFL", "r101dcn"): f"{MMDETECTION}/gfl/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco/"
    "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20200630_102002-134b07df.pth",
    ("ATSS", "r101"): f"{MMDETECTION}/atss/atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825-dfcadd6f.pth",
    ("RetinaNet", "r101"): f"{MMDETECTION}/retinanet/retinanet_r101_fpn_2x_coco/"
    "retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth",
    ("RetinaNet", "x101_64x4d"): f"{MMDETECTION}/retinanet/retinanet_x101_64x4d_fpn_1x_coco/"
    "retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth",
    ("FasterRCNN", "r101"): f"{MMDETECTION}/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/"
    "faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth",
}


def rung(name: str, option: str) -> Rung:
    """What a name stands for. Raises `Invalid` at the option that says it."""
    if name not in LADDER:
        raise Invalid(alternatives(name, LADDER), (option,))
    return LADDER[name]


def size(name: str, detector: dict[str, Any] | str, image: tuple[int, int], classes: int) -> build.Size:
    """How large a detector is on this backbone; `image`: height and width in pixels. Raises `Invalid`."""
    head = Call.model_validate(detector).complete(detectors)
    body = Call.model_validate(LADDER[name].written).complete(backbones)
    return build.size_of(Model(detector=head, backbone=body), classes, image)


def between(
    teacher: str, student: str, detector: dict[str, Any] | str, image: tuple[int, int], classes: int
) -> dict[str, build.Size]:
    """Teacher, proposed assistants and student with their sizes, largest first.

    Proposed is what is of a family of the two, has fewer parameters and fewer FLOPs than the teacher and more of both
    than the student; of more than three, those that leave the most even steps. Raises `Invalid` for a student that is
    no smaller than its teacher.
    """
    ends = {name: size(name, detector, image, classes) for name in (teacher, student)}
    large, little = ends[teacher], ends[student]
    if not little.flops < large.flops:
        message = f"{student} takes {little.flops / 1e9:.3g} GFLOPs an image, no less than {teacher}'s"
        raise Invalid(f"{message} {large.flops / 1e9:.3g}; name a smaller one", ("--student",))
    families = {LADDER[name].family for name in ends}
    like = [name for name, one in LADDER.items() if one.family in families and name not in ends]
    sizes = {name: size(name, detector, image, classes) for name in like}
    inside = {
        name: one
        for name, one in sizes.items()
        if little.flops < one.flops < large.flops and little.parameters < one.parameters < large.parameters
    }
    chosen = _even([large.flops, *(one.flops for one in inside.values()), little.flops], MOST)
    kept = {name: one for name, one in inside.items() if one.flops in chosen}
    return {teacher: large, **dict(sorted(kept.items(), key=lambda item: -item[1].flops)), student: little}


def _even(flops: Sequence[int], most: int) -> list[int]:
    """At most so many of those between the first and the last: again and again the one goes that is nearest to the
    next larger."""
    left = sorted(flops, reverse=True)
    while len(left) - 2 > most:
        closest = min(range(1, len(left) - 1), key=lambda i: left[i - 1] / left[i])
        del left[closest]
    return left[1:-1]
