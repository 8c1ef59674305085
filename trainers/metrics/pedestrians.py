"""Which pedestrians count in which setting of Caltech's benchmark and of CityPersons'.

Caltech's are those of `dbEval` in the benchmark's code, CityPersons' those of its evaluation script. All boxes, of
annotations and of detections, are counted from 0 here.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

import numpy as np

from trainers.data.split import Split
from trainers.metrics.columns import Objects


class Setting(NamedTuple):
    """Who is to be found, and by which overlap. Whoever else is there is ignored."""

    height: tuple[float, float]  # pixels, without the upper end at Caltech
    visible: tuple[float, float]  # the part of it that is seen, 0..1, both ends included; inf: nothing hides it
    aspect: float = 0.0  # a: width / height is nearer than this to .41; -a: further from it; 0: any
    overlap: float = 0.5
    expand: float = 1.25  # detections count whose height is in this many times the range


class Family(NamedTuple):
    """The conventions of a benchmark."""

    settings: Mapping[str, Setting]
    aspect: float | None  # width / height that boxes are given before they are compared; None: they stay as they are
    # Pixels within which nobody is to be found: from the upper and the left edge of the image, and from the lower and
    # the right one. -inf: the edges do not matter.
    margins: tuple[float, float]
    unsaid: float  # how much is seen of somebody whose visible part nobody says
    closed: bool  # whether a height's upper end is included
    most: float  # detections of one class that count in an image

    def ignored(self, split: Split, objects: Objects, setting: Setting) -> np.ndarray:
        """Who is not to be found in a setting. -> (M,) bool."""
        x, y, width, height = objects.box.T
        low, high = setting.height
        tall = (low <= height) & ((height <= high) if self.closed else (height < high))
        seen = self.seen(split, objects)
        counts = tall & (setting.visible[0] <= seen) & (seen <= setting.visible[1])
        if setting.aspect:
            odd = np.abs(np.divide(width, height, out=np.full_like(width, inf), where=height > 0) - ASPECT)
            counts &= odd < setting.aspect if setting.aspect > 0 else odd > -setting.aspect
        bottom, right = np.array(split.sizes, dtype=np.float64).reshape(-1, 2)[split.rows.image].T
        before, behind = self.margins
        counts &= (x >= before) & (x + width <= right - behind)
        counts &= (y >= before) & (y + height <= bottom - behind)
        return objects.ignored | ~counts

    def seen(self, split: Split, objects: Objects) -> np.ndarray:
        """How much of each is seen, as a part of its box. -> (M,), 0..1 or `unsaid`."""
        visible, whole = split.rows.visible, objects.box[:, 2] * objects.box[:, 3]
        said = ~np.isnan(visible).any(1) & (whole > 0)
        area = visible[:, 2] * visible[:, 3]
        return np.divide(area, whole, out=np.full(len(whole), self.unsaid), where=said)


ASPECT = 0.41  # width / height of the mean pedestrian
WHOLE = (inf, inf)

CALTECH = {
    "MR": Setting((50, inf), (0.65, inf)),
    "MR_all": Setting((20, inf), (0.2, inf)),
    "MR_large": Setting((100, inf), WHOLE),
    "MR_near": Setting((80, inf), WHOLE),
    "MR_medium": Setting((30, 80), WHOLE),
    "MR_far": Setting((20, 30), WHOLE),
    "MR_none": Setting((50, inf), WHOLE),
    "MR_partial": Setting((50, inf), (0.65, 1.0)),
    "MR_heavy": Setting((50, inf), (0.2, 0.65)),
    "MR_any_aspect": Setting((50, inf), WHOLE),
    "MR_typical": Setting((50, inf), WHOLE, aspect=0.1),
    "MR_atypical": Setting((50, inf), WHOLE, aspect=-0.1),
    "MR_overlap25": Setting((50, inf), (0.65, inf), overlap=0.25),
    "MR_overlap50": Setting((50, inf), (0.65, inf), overlap=0.5),
    "MR_overlap75": Setting((50, inf), (0.65, inf), overlap=0.75),
    "MR_expand100": Setting((50, inf), (0.65, inf), expand=1.0),
    "MR_expand125": Setting((50, inf), (0.65, inf), expand=1.25),
    "MR_expand150": Setting((50, inf), (0.65, inf), expand=1.5),
}

CITYPERSONS = {
    "MR": Setting((50, inf), (0.65, inf)),
    "MR_small": Setting((50, 75), (0.65, inf)),
    "MR_heavy": Setting((50, inf), (0.2, 0.65)),
    "MR_all": Setting((20, inf), (0.2, inf)),
}

# `dbEval` asks for x, y >= 5, x + w <= width - 5 and y + h <= height - 5 with the numbers of the files, which count
# pixels from 1. Counted from 0, each x and y is one less: 4 from the upper left, 6 from the lower right.
MARGINS = (4.0, 6.0)

FAMILIES = {
    "caltech": Family(CALTECH, aspect=ASPECT, margins=MARGINS, unsaid=inf, closed=False, most=inf),
    "citypersons": Family(CITYPERSONS, aspect=None, margins=(-inf, -inf), unsaid=1.0, closed=True, most=1000),
}
