"""Under which terms the weights that a model began from were published, as far as their address tells."""

from __future__ import annotations

from urllib.parse import urlsplit

UNKNOWN = "unknown: ask whoever made them"
TORCHVISION = (
    "torchvision's, BSD-3-Clause; they were trained on ImageNet or COCO, whose own terms may reach what learns from "
    "them (ImageNet's allow research that is not commercial)"
)
MMDETECTION = "mmdetection's, Apache-2.0; they were trained on ImageNet and mostly COCO, whose own terms may reach them"
HOSTS = {"download.pytorch.org": TORCHVISION, "download.openmmlab.com": MMDETECTION}
EXAMPLES = "drawn from scikit-learn's digits, which are the UCI machine learning repository's, CC BY 4.0"
DATA = {
    "Digits": EXAMPLES,
    "COCO": "those of its owner; of COCO itself annotations are CC BY 4.0, images under the terms of Flickr",
}


def of_weights(source: str) -> str:
    """Of weights by the path or URL that they came from; who says nothing of them is not guessed at."""
    return HOSTS.get(urlsplit(source).hostname or "", UNKNOWN)


def of_data(name: str) -> str:
    """Of a data set by its kind."""
    return DATA.get(name, UNKNOWN)
