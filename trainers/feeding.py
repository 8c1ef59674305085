"""The batches on which a worker trains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from trainers import build, workers
from trainers.data.batches import CPU, Batches
from trainers.order import Order
from trainers.outputs import Network

log = logging.getLogger(__name__)

# A loader process may hang twice until its stage fails, which is to be known before the stage itself counts as hung.
LOADERS = 3


def batches(
    order: Order,
    data: Any,
    student: Network,
    say: Callable[[str], None] = log.warning,
    *,
    device: torch.device = CPU,
) -> Batches:
    """The training batches of this worker, for a device."""
    recipe = order.stage.recipe
    return Batches(
        data.train,
        batch=recipe.batch,
        seed=order.stage.seed,
        flip=recipe.flip,
        resize=recipe.resize,
        crop=recipe.crop,
        group=recipe.group,
        divisor=build.divisor(student),
        rank=workers.rank(),
        world=workers.count(),
        loader_workers=order.loader_workers,
        patience=order.silence / LOADERS,
        masks=getattr(student, "needs_masks", False),
        ignore=recipe.ignore,
        bad_images=order.bad_images,
        say=say,
        device=device,
    )
