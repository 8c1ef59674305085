"""Detections and objects as columns, in an order that is the same for every order of the images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from trainers.data.split import Split
from trainers.outputs import Detections


class Found(NamedTuple):
    """All N detections, image after image by rising id, in each the best first; equal ones as they were handed in."""

    group: np.ndarray  # (N,) int64: image and class, K * position + label
    label: np.ndarray  # (N,) int64, 0..K-1
    box: np.ndarray  # (N, 4) float64: x, y, width, height in pixels
    score: np.ndarray  # (N,) float64

    def take(self, kept: np.ndarray) -> Found:
        """Those of a mask or of indices."""
        return Found(*(column[kept] for column in self))


class Objects(NamedTuple):
    """All M objects and regions, by rising group."""

    group: np.ndarray  # (M,) int64, as of `Found`
    label: np.ndarray  # (M,) int64, 0..K-1
    box: np.ndarray  # (M, 4) float64: x, y, width, height in pixels
    ignored: np.ndarray  # (M,) bool: neither to be found nor a mistake


def found_in(split: Split, found: Mapping[int, Detections]) -> Found:
    """The detections in the images of a split; those of other images are left out."""
    position = {identity: place for place, identity in enumerate(split.ids)}
    here = sorted(image for image in found if image in position)
    parts = [found[image] for image in here]
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return Found(nothing, nothing, np.zeros((0, 4)), np.zeros(0))
    corners = torch.cat([part.boxes for part in parts]).double().numpy()
    score = torch.cat([part.scores for part in parts]).double().numpy()
    label = torch.cat([part.labels for part in parts]).long().numpy()
    counts = [len(part.scores) for part in parts]
    order = np.lexsort((-score, np.repeat(np.arange(len(here)), counts)))
    image = np.repeat([position[identity] for identity in here], counts)
    box = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return Found(image * len(split.classes) + label, label, box, score).take(order)


def objects_of(split: Split) -> Objects:
    """What is annotated in a split."""
    rows = split.rows
    label = np.searchsorted(np.array(split.categories, dtype=np.int64), rows.category)
    return Objects(rows.image * len(split.classes) + label, label, rows.bbox, rows.crowd | rows.ignore)


def ranks(group: np.ndarray) -> np.ndarray:
    """The how manieth of its group each is, from 0. (N,) -> (N,) int64."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered)
    return rank


def by_label(found: Found, classes: int) -> list[np.ndarray]:
    """Of each class where its detections are, the best of all images first; equal ones by image id."""
    order = np.lexsort((-found.score, found.label))
    ends = np.searchsorted(found.label[order], np.arange(classes + 1))
    return [order[start:end] for start, end in pairwise(ends)]
