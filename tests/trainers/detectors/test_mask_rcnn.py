"""Mask R-CNN is torchvision's in its conventions, learns masks, and says so when there are none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from tests.trainers import stages
from tests.trainers.detectors import twins
from tests.trainers.detectors.scenes import small
from trainers import detectors, workers
from trainers.backbones import TinyResNet
from trainers.call import Call, Invalid
from trainers.detectors import FasterRCNN, MaskRCNN
from trainers.outputs import Regions, Truth
from trainers.spec import Model
from trainers.worker import work

BOXES = [torch.tensor([[3.0, 5, 33, 40], [30.0, 3, 61, 62]]), torch.tensor([[10.0, 8, 42, 41]]), torch.empty(0, 4)]


def make(**knobs: Any) -> MaskRCNN:
    return small(MaskRCNN, **{"channels": 8, "hidden": 16, "pooled": 3, **knobs})


def truth() -> Truth:
    """Three images: two objects, one, none; masks of noise."""
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(len(box), 64, 64, generator=generator) > 0.5 for box in BOXES]
    labels = [torch.tensor([2, 0]), torch.tensor([1]), torch.empty(0, dtype=torch.long)]
    return Truth(BOXES, labels, [(64, 64)] * 3, [0, 1, 2], [(1.0, 1.0)] * 3, masks)


def test_raw_outputs_losses_and_gradients_are_torchvisions_with_its_weights() -> None:
    twins.same_training("MaskRCNN")


def test_detections_are_torchvisions_with_its_weights() -> None:
    twins.same_detections("MaskRCNN")


def test_names_and_numbers_of_weights_are_torchvisions() -> None:
    twins.same_parameters("MaskRCNN")


def drawn() -> Regions:
    """Of the first image both objects and a background, of the second its object beside its box, twice."""
    boxes = [
        torch.tensor([[2.0, 4, 30, 41], [31.0, 5, 60, 60], [0.0, 0, 9, 9]]),
        torch.tensor([[11.0, 9, 44, 40], [9.0, 9, 40, 40]]),
        torch.tensor([[0.0, 0, 20, 20]]),
    ]
    matched = [torch.tensor([0, 1, 0]), torch.tensor([0, 0]), torch.tensor([0])]
    labels = [torch.tensor([3, 1, 0]), torch.tensor([2, 2]), torch.tensor([0])]
    return Regions(boxes, matched, labels, [torch.zeros(len(b), 4) for b in boxes])


def test_the_mask_loss_is_the_cross_entropy_of_the_right_class_inside_the_region() -> None:
    model, seen, here = make(), truth(), drawn()
    features = model(torch.rand(3, 3, 64, 64)).features
    loss = model.region_losses(features, here, seen)["mask"]
    heads, parts = model.roi_heads, []
    for image in range(3):
        for box, number, label in zip(here.boxes[image], here.matched[image], here.labels[image], strict=True):
            if label == 0:
                continue
            alone = [box[None] if i == image else torch.empty(0, 4) for i in range(3)]
            logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, alone, seen.sizes)))
            assert seen.masks is not None
            mask = seen.masks[image][number].float()[None, None]
            wanted = roi_align(mask, [box[None]], (28, 28))[0, 0]
            parts.append(F.binary_cross_entropy_with_logits(logits[0, label], wanted))
    assert len(parts) == 4
    torch.testing.assert_close(loss, torch.stack(parts).mean())


def test_regions_on_objects_are_counted_over_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, here = make(), drawn()
    features = model(torch.rand(3, 3, 64, 64)).features
    whole = model.region_losses(features, here, truth())["mask"]
    monkeypatch.setattr(workers, "mean", lambda number: torch.full_like(number, 16.0))
    torch.testing.assert_close(model.region_losses(features, here, truth())["mask"], whole * 4 / 16)


def test_one_region_on_an_object_among_two_workers_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """DDP takes the mean of both workers' losses, of which the other's is 0."""
    model, here = make(), drawn()
    for number, labels in enumerate(here.labels):
        labels[1 if number == 0 else 0 :] = 0
    features = model(torch.rand(3, 3, 64, 64)).features
    alone = model.region_losses(features, here, truth())["mask"]
    monkeypatch.setattr(workers, "count", lambda: 2)
    monkeypatch.setattr(workers, "mean", lambda number: number / 2)
    torch.testing.assert_close(model.region_losses(features, here, truth())["mask"] / 2, alone)


def test_without_regions_on_objects_the_mask_loss_is_zero_and_its_gradients_too() -> None:
    model, seen = make(), truth()
    nothing = Truth(
        [torch.empty(0, 4)] * 3,
        [torch.empty(0, dtype=torch.long)] * 3,
        seen.sizes,
        seen.ids,
        seen.scales,
        [torch.zeros(0, 64, 64, dtype=torch.bool)] * 3,
    )
    outputs = model(torch.rand(3, 3, 64, 64))
    losses = model.losses(outputs, model.assign(outputs, nothing))
    assert losses["mask"].item() == 0
    losses["mask"].backward()
    for name, parameter in model.roi_heads.named_parameters():
        if "mask" in name:
            assert parameter.grad is not None and not parameter.grad.any(), name


def test_data_without_masks_is_the_users_mistake_and_says_what_would_do() -> None:
    model = make()
    outputs = model(torch.rand(3, 3, 64, 64))
    with pytest.raises(Invalid, match=r"MaskRCNN needs masks.*take FasterRCNN"):
        model.assign(outputs, replace(truth(), masks=None))


def test_it_has_the_knobs_and_defaults_of_faster_rcnn() -> None:
    assert Call(name="MaskRCNN").complete(detectors).args == Call(name="FasterRCNN").complete(detectors).args
    assert not hasattr(FasterRCNN(TinyResNet(width=8), 3, hidden=8), "needs_masks")


def test_every_knob_reaches_the_first_two_branches() -> None:
    knobs = {"extra": 2, "score_threshold": 0.3, "nms_iou": 0.4, "max_detections": 7, "conventions": "torchvision"}
    model = make(**knobs)
    heads = model.roi_heads
    assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.3, 0.4, 7)
    assert heads.box_roi_pool.size == 3 and heads.mask_roi_pool.size == 14
    assert not heads.mask_roi_pool.aligned and make().roi_heads.mask_roi_pool.aligned
    assert model.strides == (4, 8, 16, 32, 64)


def test_a_stage_trains_on_the_masks_of_its_data_and_is_stored(tmp_path: Path) -> None:
    knobs = {"channels": 8, "hidden": 16, "pooled": 3}
    one = stages.stage(epochs=1)
    backbone = one.model.backbone
    model = Model(detector=Call(name="MaskRCNN", args=knobs).complete(detectors), backbone=backbone)
    result = work(stages.order(one.model_copy(update={"model": model}), tmp_path), device=stages.CPU)
    assert result.history[0]["train/loss_mask"] > 0
