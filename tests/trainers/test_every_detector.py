"""What holds for every detector that `trainers.detectors` offers, whichever they are."""

import copy
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from trainers import backbones, detectors, spec
from trainers.outputs import Truth

OFFERED = spec.offers(detectors)
EVERY = pytest.mark.parametrize("name", sorted(OFFERED))
SMALL = {"channels": 16, "convs": 1, "extra": 0, "reg_max": 8}  # those of them that a detector has


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name: str, num_classes: int = 3, **args: Any) -> Any:
    torch.manual_seed(0)
    call = spec.Call(name=name)
    knobs = call.knobs(detectors)
    small = {key: value for key, value in SMALL.items() if key in knobs}
    call = spec.Call(name=name, args={**small, **args}).complete(detectors)
    return call.of(detectors, backbones.TinyResNet(width=8), num_classes)


def batch(
    *sizes: tuple[int, int], padded: tuple[int, int] | None = None, num_classes: int = 3, boxes: int = 2
) -> tuple[Tensor, Truth]:
    """Noise with boxes in it."""
    generator = torch.Generator().manual_seed(0)
    padded = padded or sizes[0]
    all_boxes = []
    for height, width in sizes:
        side = torch.tensor([width, height])
        low = torch.rand(boxes, 2, generator=generator) * side * 0.4
        all_boxes.append(torch.cat([low, low + side * (0.3 + 0.2 * torch.rand(boxes, 2, generator=generator))], 1))
    labels = [torch.randint(0, num_classes, (boxes,), generator=generator) for _ in sizes]
    images = torch.rand(len(sizes), 3, *padded, generator=generator)
    return images, Truth(all_boxes, labels, list(sizes), list(range(len(sizes))), [(1.0, 1.0)] * len(sizes))


def step(model: Any, images: Tensor, truth: Truth) -> dict[str, Tensor]:
    """Losses of a batch, with gradients in place."""
    model.zero_grad()
    outputs = model(images)
    losses: dict[str, Tensor] = model.losses(outputs, model.assign(outputs, truth))
    torch.stack(list(losses.values())).sum().backward()
    return losses


def check_step(model: Any, images: Tensor, truth: Truth) -> None:
    """All is finite, and nothing that wants a gradient goes without one."""
    for loss_name, loss in step(model, images, truth).items():
        assert loss.shape == () and loss.isfinite(), loss_name
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


def check_detections(model: Any, images: Tensor, truth: Truth) -> None:
    with torch.no_grad():
        found = model.detect(model(images), truth.sizes)
    assert len(found) == len(truth.sizes)
    for detections, (height, width) in zip(found, truth.sizes, strict=True):
        x1, y1, x2, y2 = detections.boxes.unbind(1)
        assert len(detections.boxes) == len(detections.scores) == len(detections.labels) > 0
        assert (x1 >= 0).all() and (x1 <= x2).all() and (x2 <= width).all()
        assert (y1 >= 0).all() and (y1 <= y2).all() and (y2 <= height).all()
        assert (detections.scores.diff() <= 0).all()
        assert ((detections.scores > 0) & (detections.scores <= 1)).all()
        assert ((detections.labels >= 0) & (detections.labels < model.num_classes)).all()


@EVERY
def test_it_learns_one_image(name: str) -> None:
    image = torch.full((1, 3, 64, 64), 0.2)
    image[:, :, 14:46, 20:44] = 0.9
    real = torch.tensor([[20.0, 14, 44, 46]])
    truth = Truth([real], [torch.tensor([1])], [(64, 64)], [0], [(1.0, 1.0)])
    model = make(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first = torch.stack(list(step(model, image, truth).values())).sum().item()
    for _ in range(100):
        losses = step(model, image, truth)
        optimizer.step()
    assert torch.stack(list(losses.values())).sum().item() < first / 3
    (found,) = model.eval().detect(model(image), truth.sizes)
    assert found.labels[0] == 1
    assert found.scores[0] > 0.5
    assert box_iou(found.boxes[:1], real).item() > 0.8


@EVERY
@pytest.mark.parametrize("num_classes", [1, 80])
def test_one_class_and_eighty_train_and_detect(name: str, num_classes: int) -> None:
    images, truth = batch((64, 64), (64, 64), num_classes=num_classes)
    check_step(make(name, num_classes), images, truth)
    check_detections(make(name, num_classes, score_threshold=0.001), images, truth)


@EVERY
@pytest.mark.parametrize("size", [(65, 91), (33, 64), (17, 130)])
def test_odd_sizes_train_and_detect(name: str, size: tuple[int, int]) -> None:
    images, truth = batch(size)
    check_step(make(name), images, truth)
    check_detections(make(name, score_threshold=0.001), images, truth)


@EVERY
def test_images_of_mixed_sizes_train_and_detect(name: str) -> None:
    images, truth = batch((64, 64), (33, 50), (64, 20), padded=(64, 64))
    check_step(make(name), images, truth)
    check_detections(make(name, score_threshold=0.001), images, truth)


@EVERY
def test_a_batch_without_boxes_trains(name: str) -> None:
    images, truth = batch((64, 64), (64, 64), boxes=0)
    check_step(make(name), images, truth)


@EVERY
def test_every_parameter_gets_a_gradient_that_is_not_zero_from_boxes_on_all_levels(name: str) -> None:
    images, truth = batch((128, 128))
    boxes = torch.tensor([[10.0, 11, 31, 30], [40.0, 30, 82, 75], [3.0, 2, 121, 118]])
    truth = Truth([boxes], [torch.tensor([0, 1, 2])], truth.sizes, truth.ids, truth.scales)
    model = make(name)
    step(model, images, truth)
    assert not [n for n, p in model.named_parameters() if not p.grad.any()]


@EVERY
def test_targets_are_in_range_and_the_same_each_time_and_carry_no_gradient(name: str) -> None:
    images, truth = batch((64, 64), (40, 50), padded=(64, 64))
    model = make(name)
    outputs = model(images)
    targets, again = model.assign(outputs, truth), model.assign(outputs, truth)
    locations = sum(level[0, 0].numel() for level in outputs.cls)
    assert targets.valid.shape == (2 * locations,)
    assert targets.valid[targets.row].all()
    assert len(targets.row) == len(targets.level) == len(targets.label) == len(targets.box) > 0
    assert targets.row.unique().numel() == len(targets.row)
    assert set(targets.level.tolist()) <= set(range(targets.levels))
    assert targets.levels == len(model.strides)
    assert torch.equal(targets.row, again.row) and torch.equal(targets.box, again.box)
    assert not targets.box.requires_grad


@EVERY
def test_it_says_what_it_is(name: str) -> None:
    model = make(name, 5)
    outputs = model(torch.rand(2, 3, 64, 64))
    assert model.num_classes == 5
    cells = [(64 // stride, 64 // stride) for stride in model.strides]
    assert [tuple(x.shape) for x in outputs.features] == [(2, model.channels, *c) for c in cells]
    assert [x.shape[1] for x in outputs.cls] == [5] * len(cells)
    assert [x.shape[1] for x in outputs.box] == [4 * max(1, model.bins)] * len(cells)


@EVERY
def test_its_state_depends_on_no_image_and_a_copy_of_it_computes_the_same(name: str) -> None:
    model = make(name)
    before = {key: value.shape for key, value in model.state_dict().items()}
    for size in ((64, 64), (96, 32)):
        images, truth = batch(size)
        step(model, images, truth)
        model.detect(model(images), truth.sizes)
    assert {key: value.shape for key, value in model.state_dict().items()} == before
    twin = make(name)
    twin.load_state_dict(model.state_dict())
    for other in (twin, copy.deepcopy(model)):
        assert torch.equal(other(images).cls[0], model(images).cls[0])


@EVERY
def test_with_group_norm_an_image_is_judged_alone_in_training_and_in_evaluation(name: str) -> None:
    images, _ = batch((64, 64), (64, 64), (64, 64))
    model = make(name).train()
    together, alone = model(images), model.eval()(images[1:2])
    for x, y in zip(together.cls + together.box, alone.cls + alone.box, strict=True):
        torch.testing.assert_close(x[1:2], y, rtol=1e-4, atol=1e-5)


@EVERY
def test_with_its_defaults_it_builds_and_runs_without_numbers(name: str) -> None:
    call = spec.Call(name=name).complete(detectors)
    with torch.device("meta"):
        model = call.of(detectors, backbones.ResNet(depth=18), 80)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    assert len(outputs.cls) == len(outputs.box) == len(model.strides)


@EVERY
def test_its_file_names_its_paper(name: str) -> None:
    assert re.search(r"https://arxiv\.org/abs/\d{4}\.\d+", sys.modules[OFFERED[name].__module__].__doc__ or "")
