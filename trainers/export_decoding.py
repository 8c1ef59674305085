"""What a detector's raw predictions mean, in words that JSON can hold: what `export_runner` decodes them by."""

from __future__ import annotations

from typing import Any

import torch

from trainers.detectors import anchors, mimicdet_refinement, regions
from trainers.detectors.atss_detector import DELTAS
from trainers.detectors.nine import rounded, unrounded
from trainers.outputs import Network

Rule = dict[str, Any]


def decoding(detector: Network) -> Rule:
    """How the raw predictions of a detector become boxes, scores and classes."""
    return {**RULES[type(detector).__name__](detector), "strides": list(detector.strides)}


def dense(detector: Network, *, score: str = "class", box: str = "bins", **more: Any) -> Rule:
    """Of a detector of one stage. `score`: how the class's is made; `box`: what the head says of one."""
    shared: Rule = {
        "kind": "dense",
        "laid_on": "cls",
        "anchors": [square(stride, anchors.SIDE) for stride in detector.strides],
        "measured": False,  # whether the steps of cells are the canvas by the cells, as torchvision has it
        "padding_counts": False,
        "score": score,
        "box": box,
        "from_middle": False,  # where in a cell distances start
        "in_pixels": False,  # distances; else in strides
        "deltas": [1.0, 1.0],
    }
    return {**shared, **limits(detector), **more}


def limits(detector: Network) -> Rule:
    names = ("score_threshold", "nms_iou", "top_k", "max_detections")
    return {name: getattr(detector, name) for name in names}


def square(stride: int, side: int) -> list[list[float]]:
    """One anchor with a side of so many strides around its cell."""
    half = stride * side / 2
    return [[-half, -half, half, half]]


def atss(detector: Network) -> Rule:
    return dense(detector, score="centerness", box="bins" if detector.bins else "deltas", deltas=list(DELTAS))


def retinanet(detector: Network) -> Rule:
    theirs = detector.conventions == "torchvision"
    return dense(
        detector,
        box="bins" if detector.bins else "deltas",
        anchors=[(rounded if theirs else unrounded)(stride).tolist() for stride in detector.strides],
        measured=theirs,
        padding_counts=theirs,
        deltas=list(detector.coder),
    )


def fcos(detector: Network) -> Rule:
    theirs = detector.conventions == "torchvision"
    return dense(
        detector,
        score="joint" if theirs else "centerness",
        box="bins" if detector.bins else "distances",
        measured=theirs,
        padding_counts=theirs,
        from_middle=not theirs,
        in_pixels=detector.conventions == "paper" and not detector.bins,
    )


def mimicdet(detector: Network) -> Rule:
    """The anchors are refined before the S-head's deltas count."""
    return {
        "kind": "mimic",
        "laid_on": "score",
        "anchors": [square(stride, mimicdet_refinement.SIDE) for stride in detector.strides],
        "measured": False,
        "padding_counts": False,
        "deltas": list(detector.coder),
        **limits(detector),
    }


def two_stages(detector: Network) -> Rule:
    """Proposals, how they are read from the pyramid, and what the second graph says of them."""
    rpn, heads, pooler = detector.rpn, detector.roi_heads, detector.roi_heads.box_roi_pool
    rpn.anchor_generator.set_cell_anchors(torch.float32, torch.device("cpu"))
    exact = detector.convention.exact
    return {
        "kind": "regions",
        "laid_on": "objectness",
        "anchors": [shapes.tolist() for shapes in rpn.anchor_generator.cell_anchors],
        "measured": not exact,
        "padding_counts": not exact,
        "top_k": rpn.pre_nms_top_n(),
        "proposals": rpn.post_nms_top_n(),
        "proposal_iou": rpn.nms_thresh,
        "smallest_proposal": rpn.min_size,
        "pool_strides": list(pooler.strides),
        "pool_side": regions.SIDE,
        "pooled": pooler.size,
        "sampling": pooler.sampling,
        "aligned": pooler.aligned,
        "deltas": list(heads.box_coder.weights[1:3]),
        "score_threshold": heads.score_thresh,
        "nms_iou": heads.nms_thresh,
        "max_detections": heads.detections_per_img,
        "smallest": SMALLEST,
    }


SMALLEST = 1e-2  # pixels a side, of what torchvision's second stage keeps

RULES = {
    "GFL": dense,
    "GFLv2": lambda detector: dense(detector, score="quality"),
    "ATSS": atss,
    "RetinaNet": retinanet,
    "FCOS": fcos,
    "RepPoints": lambda detector: dense(detector, box="points"),
    "MimicDet": mimicdet,
    "FasterRCNN": two_stages,
    "MaskRCNN": two_stages,
}
