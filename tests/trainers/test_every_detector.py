"""What holds for every detector that `trainers.detectors` offers, whichever they are."""

import copy
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import box_iou

from tests.trainers import pretend_device
from tests.trainers.detectors.scenes import masked, noise, small
from tests.trainers.two_workers import together
from trainers import backbones, detectors
from trainers.call import Call, offers
from trainers.export import Raw, graph, second_graph
from trainers.outputs import Outputs, Truth
from trainers.task import Task
from trainers.within import tensors

OFFERED = offers(detectors)
SMALL = {"channels": 16, "convs": 1, "extra": 0}  # those of them that a detector has
CASES: list[tuple[str, dict[str, Any]]] = [  # every detector, with what makes it small
    ("GFL", {"reg_max": 8}),
    ("GFLv2", {"reg_max": 8}),
    ("RepPoints", {}),
    ("ATSS", {}),
    ("ATSS", {"reg_max": 8}),
    ("FasterRCNN", {"extra": 1, "hidden": 64, "pooled": 5}),
    ("FasterRCNN", {"conventions": "torchvision", "hidden": 64, "pooled": 5}),
    ("MaskRCNN", {"extra": 1, "hidden": 64, "pooled": 5}),
    ("FCOS", {}),
    ("FCOS", {"conventions": "paper"}),
    ("FCOS", {"conventions": "torchvision"}),
    ("FCOS", {"reg_max": 8}),
    ("MimicDet", {"channels": 32, "hidden": 64, "mined": 16, "sampled": 16, "mimicked": 8}),
    (
        "MimicDet",
        {"channels": 32, "hidden": 64, "mined": 16, "sampled": 16, "mimicked": 8, "extra": 1, "separate": True},
    ),
    ("RetinaNet", {}),
    ("RetinaNet", {"reg_max": 8}),
    ("RetinaNet", {"conventions": "torchvision", "tower_norm": "group", "box_loss": "giou"}),
]


def over(cases: Iterable[tuple[str, dict[str, Any]]]) -> pytest.MarkDecorator:
    """A test for each of these cases."""
    return pytest.mark.parametrize(("name", "own"), list(cases), ids=lambda value: str(value) if value else "")


EVERY = over(CASES)
ONCE = over({name: (name, own) for name, own in reversed(CASES)}.values())  # one case of each
TWO_STAGES = over(case for case in CASES if hasattr(OFFERED[case[0]], "second_network"))
DEVICES = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))],
)


def make(name: str, own: dict[str, Any], num_classes: int = 3, *, width: int = 8, **args: Any) -> Any:
    call = Call(name=name)
    known = call.knobs(detectors)
    knobs = {key: value for key, value in SMALL.items() if key in known}
    call = Call(name=name, args={**knobs, **own, **args}).complete(detectors)
    return small(lambda backbone, classes: call.of(detectors, backbone, classes), num_classes, width=width)


def part_of(images: Sequence[int], boxes: Sequence[int]) -> tuple[Tensor, Truth]:
    """These of three images, with so many boxes in each."""
    every, truth = noise((64, 64), (64, 64), (64, 64))
    assert truth.masks is not None
    parts = [[x[i][: boxes[i]] for i in images] for x in (truth.boxes, truth.labels, truth.masks)]
    sizes, ids, scales = ([x[i] for i in images] for x in (truth.sizes, truth.ids, truth.scales))
    return every[list(images)], Truth(parts[0], parts[1], sizes, ids, scales, parts[2])


def said(model: Any, images: Tensor) -> Iterator[Tensor]:
    outputs = model(images)
    return tensors([outputs.features, outputs.cls, outputs.box, outputs.own])


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
def test_it_learns_one_image(name: str, own: dict[str, Any]) -> None:
    image = torch.full((1, 3, 64, 64), 0.2)
    image[:, :, 14:46, 20:44] = 0.9
    real = torch.tensor([[20.0, 14, 44, 46]])
    truth = masked([real], [torch.tensor([1])], [(64, 64)], (64, 64))
    model = make(name, own)
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
def test_one_class_and_eighty_train_and_detect(name: str, own: dict[str, Any], num_classes: int) -> None:
    images, truth = noise((64, 64), (64, 64), num_classes=num_classes)
    check_step(make(name, own, num_classes), images, truth)
    check_detections(make(name, own, num_classes, score_threshold=0.001), images, truth)


@EVERY
@pytest.mark.parametrize("size", [(65, 91), (33, 64), (17, 130)])
def test_odd_sizes_train_and_detect(name: str, own: dict[str, Any], size: tuple[int, int]) -> None:
    images, truth = noise(size)
    check_step(make(name, own), images, truth)
    check_detections(make(name, own, score_threshold=0.001), images, truth)


@EVERY
def test_images_of_mixed_sizes_train_and_detect(name: str, own: dict[str, Any]) -> None:
    images, truth = noise((64, 64), (33, 50), (64, 20), padded=(64, 64))
    check_step(make(name, own), images, truth)
    check_detections(make(name, own, score_threshold=0.001), images, truth)


@EVERY
def test_a_batch_without_boxes_trains(name: str, own: dict[str, Any]) -> None:
    images, truth = noise((64, 64), (64, 64), boxes=0)
    check_step(make(name, own), images, truth)


@EVERY
def test_an_image_that_is_a_crowd_all_over_teaches_nothing(name: str, own: dict[str, Any]) -> None:
    images, truth = noise((64, 64), (64, 64), boxes=0)
    crowd = torch.tensor([[0.0, 0, 64, 64]])
    model = make(name, own)
    assert sum(step(model, images, truth).values()) > 0
    assert sum(step(model, images, replace(truth, ignored=[crowd, crowd])).values()) == 0


@EVERY
def test_a_small_thing_to_be_ignored_is_no_background_where_it_is(name: str, own: dict[str, Any]) -> None:
    images, truth = noise((128, 128), boxes=0)
    small = torch.tensor([[40.0, 30, 62, 79]])
    model = make(name, own)
    targets = model.assign(model(images), replace(truth, ignored=[small]))
    assert targets.ignored is not None and targets.ignored.sum() >= 3 and not targets.ignored.all()


@EVERY
def test_objects_in_a_crowd_are_learnt_as_without_it_and_only_background_is_left_out(
    name: str, own: dict[str, Any]
) -> None:
    images, truth = noise((64, 64), (64, 64))
    crowded = replace(truth, ignored=[torch.tensor([[0.0, 0, 64, 64]]), torch.zeros(0, 4)])
    model = make(name, own)
    outputs = model(images)
    alone, among = model.assign(outputs, truth), model.assign(outputs, crowded)
    assert torch.equal(alone.row, among.row) and torch.equal(alone.box, among.box)
    assert among.ignored is not None and not among.ignored[among.row].any()
    first, second = (among.learnt & ~torch.zeros_like(among.valid).index_fill(0, among.row, True)).chunk(2)
    assert not first.any() and second.any()
    check_step(model, images, crowded)


@EVERY
def test_every_parameter_gets_a_gradient_that_is_not_zero_from_boxes_on_all_levels(
    name: str, own: dict[str, Any]
) -> None:
    images, truth = noise((128, 128))
    boxes = torch.tensor([[10.0, 11, 31, 30], [40.0, 30, 82, 75], [3.0, 2, 121, 118]])
    truth = masked([boxes], [torch.tensor([0, 1, 2])], truth.sizes, (128, 128))
    model = make(name, own)
    step(model, images, truth)
    assert not [n for n, p in model.named_parameters() if not p.grad.any()]


@EVERY
def test_targets_are_in_range_and_the_same_each_time_and_carry_no_gradient(name: str, own: dict[str, Any]) -> None:
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    model = make(name, own)
    outputs = model(images)
    targets, again = model.assign(outputs, truth), model.assign(outputs, truth)
    if model.anchors:
        assert targets.valid.shape == outputs.class_rows().shape[:1]
    assert targets.valid[targets.row].all()
    assert len(targets.row) == len(targets.level) == len(targets.label) == len(targets.box) > 0
    assert targets.row.unique().numel() == len(targets.row)
    assert set(targets.level.tolist()) <= set(range(targets.levels))
    assert targets.levels == len(model.strides)
    assert torch.equal(targets.row, again.row) and torch.equal(targets.box, again.box)
    assert not targets.box.requires_grad


@EVERY
def test_it_says_what_it_is(name: str, own: dict[str, Any]) -> None:
    model = make(name, own, 5)
    outputs = model(torch.rand(2, 3, 64, 64))
    assert model.num_classes == 5
    cells = [(64 // stride, 64 // stride) for stride in model.strides]
    assert [tuple(x.shape) for x in outputs.features] == [(2, model.channels, *c) for c in cells]
    assert len(outputs.maps) == len(model.backbone.strides)
    if model.anchors:
        assert outputs.class_rows().shape == (2 * model.anchors * sum(h * w for h, w in cells), 5)
    if model.bins:
        assert outputs.edge_rows(model.bins).shape == (len(outputs.class_rows()), 4, model.bins)


@EVERY
def test_its_state_depends_on_no_image_and_a_copy_of_it_computes_the_same(name: str, own: dict[str, Any]) -> None:
    model = make(name, own)
    before = {key: value.shape for key, value in model.state_dict().items()}
    for size in ((64, 64), (96, 32)):
        images, truth = noise(size)
        step(model, images, truth)
        model.detect(model(images), truth.sizes)
    assert {key: value.shape for key, value in model.state_dict().items()} == before
    twin = make(name, own)
    twin.load_state_dict(model.state_dict())
    model.eval()
    for other in (twin.eval(), copy.deepcopy(model)):
        for x, y in zip(said(other, images), said(model, images), strict=True):
            assert torch.equal(x, y)


@EVERY
def test_with_group_norm_an_image_is_judged_alone_in_training_and_in_evaluation(name: str, own: dict[str, Any]) -> None:
    images, _ = noise((64, 64), (64, 64), (64, 64))
    model = make(name, own).train()
    together, alone = model(images), model.eval()(images[1:2])
    for x, y in zip(together.features + together.cls, alone.features + alone.cls, strict=True):
        torch.testing.assert_close(x[1:2], y, rtol=1e-4, atol=1e-5)


@EVERY
def test_with_its_defaults_it_builds_and_runs_without_numbers(name: str, own: dict[str, Any]) -> None:
    call = Call(name=name).complete(detectors)
    with torch.device("meta"):
        model = call.of(detectors, backbones.ResNet(depth=18), 80)
        outputs = model(torch.zeros(1, 3, 801, 1333))
    assert len(outputs.features) == len(model.strides)


@EVERY
@DEVICES
def test_it_trains_and_detects_in_bfloat16(name: str, own: dict[str, Any], device: str) -> None:
    images, truth = noise((64, 64), (64, 64))
    model = make(name, own, score_threshold=0.001).to(device)
    images, truth = images.to(device), truth.to(torch.device(device))
    with torch.autocast(device, dtype=torch.bfloat16):
        check_step(model, images, truth)
        check_detections(model.eval(), images, truth)


@EVERY
def test_losses_under_autocast_are_float32_and_those_of_the_same_outputs_without(
    name: str, own: dict[str, Any]
) -> None:
    images, truth = part_of((0, 1, 2), boxes=(2, 0, 1))
    model = make(name, own)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images)
        targets = model.assign(outputs, truth)
        inside = model.losses(outputs, targets)
    assert torch.bfloat16 in {x.dtype for x in tensors([outputs.cls, outputs.box, outputs.own])}
    assert {loss.dtype for loss in inside.values()} == {torch.float32}
    if model.anchors:  # the losses of two stages run a network of their own
        for loss_name, loss in model.losses(outputs, targets).items():
            assert torch.equal(inside[loss_name], loss), loss_name


def check_twin_on_another_device(name: str, own: dict[str, Any]) -> None:
    images, truth = noise((64, 64), (33, 50), (64, 64), padded=(64, 64))
    truth.boxes[2], truth.labels[2] = truth.boxes[2][:0], truth.labels[2][:0]
    model = make(name, own, score_threshold=0.001)
    there = copy.deepcopy(model).to(pretend_device.device())
    torch.manual_seed(0)
    expected = step(model, images, truth)
    torch.manual_seed(0)
    found = step(there, images.to(pretend_device.device()), truth.to(pretend_device.device()))
    for loss_name, loss in expected.items():
        torch.testing.assert_close(found[loss_name].cpu(), loss, msg=loss_name)
    for parameter, twin in zip(there.parameters(), model.parameters(), strict=True):
        assert parameter.grad.device.type == pretend_device.NAME
        torch.testing.assert_close(parameter.grad.cpu(), twin.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        twins = model.eval().detect(model(images), truth.sizes)
        detections = there.eval().detect(there(images.to(pretend_device.device())), truth.sizes)
    for one, other in zip(detections, twins, strict=True):
        assert len(one.boxes) > 0 and one.boxes.device.type == pretend_device.NAME
        torch.testing.assert_close(one.boxes.cpu(), other.boxes)
        assert torch.equal(one.labels.cpu(), other.labels)


@EVERY
def test_on_another_device_it_mixes_no_tensor_with_the_cpus_and_computes_the_same(
    elsewhere: Callable[..., None], name: str, own: dict[str, Any]
) -> None:
    elsewhere(check_twin_on_another_device, name, own)


@ONCE
def test_its_raw_predictions_are_a_graph_for_batches_of_any_length(name: str, own: dict[str, Any]) -> None:
    model = make(name, own).eval()
    exported = graph(model, (64, 64)).module()
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        for x, y in zip(exported(images), Raw(model)(images), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


@TWO_STAGES
def test_its_second_stage_is_a_graph_for_any_number_of_regions_with_no_other_weights(
    name: str, own: dict[str, Any]
) -> None:
    model = make(name, own).eval()
    program = second_graph(model)
    judge = program.module()
    for count in (1, 2, 7):
        pooled = torch.rand(count, model.channels, model.pooled, model.pooled)
        with torch.no_grad():
            for x, y in zip(judge(pooled), model.second_stage(pooled), strict=True):
                torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)
    weights = [*program.state_dict.values(), *graph(model, (64, 64)).state_dict.values()]
    evaluated = [x for key, x in model.state_dict().items() if ".mask_" not in key]
    assert sum(x.numel() for x in weights) == sum(x.numel() for x in evaluated), "both graphs share the weights out"


@TWO_STAGES
def test_both_graphs_with_the_rest_between_them_find_what_the_detector_finds(name: str, own: dict[str, Any]) -> None:
    model = make(name, own, score_threshold=0.001).eval()
    first, second = graph(model, (64, 64)).module(), second_graph(model).module()
    images, sizes = torch.rand(3, 3, 64, 64), [(64, 64), (50, 64), (64, 33)]
    with torch.no_grad():
        expected = model.detect(model(images), sizes)
        said = list(first(images))
        levels = len(model.strides)
        predicted = {"objectness": said[levels : 2 * levels], "deltas": said[2 * levels :]}
        outputs = Outputs(said[:levels], own=predicted, anchors=0)
        model.second_stage = second  # and nothing else of what learns is left
        model.neck = model.backbone = model.rpn.head = None
        found = model.detect(outputs, sizes)
    for x, y in zip(found, expected, strict=True):
        assert len(x.boxes) > 0
        torch.testing.assert_close(x.boxes, y.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(x.scores, y.scores, rtol=1e-4, atol=1e-5)
        assert torch.equal(x.labels, y.labels)


def test_the_cases_cover_every_detector() -> None:
    assert {name for name, _ in CASES} == set(OFFERED)


@EVERY
def test_its_file_names_its_paper(name: str, own: dict[str, Any]) -> None:
    assert re.search(r"https://arxiv\.org/abs/\d{4}\.\d+", sys.modules[OFFERED[name].__module__].__doc__ or "")


# Two workers


SPLIT = ((0,), (1, 2))  # the images of each of two workers
BATCHES = {"boxes on both": (2, 2, 2), "boxes on one only": (2, 0, 0), "boxes on neither": (0, 0, 0)}  # by image


def certain(model: Any) -> Any:
    """Takes all that it would draw from, so that nothing is left to chance."""
    for sampler in (m.fg_bg_sampler for m in model.modules() if hasattr(m, "fg_bg_sampler")):
        sampler.batch_size_per_image = 10**6
    for knob in vars(model).keys() & {"sampled", "mimicked"}:
        setattr(model, knob, 10**6)
    return model


def learn(images: Sequence[int], wrap: Callable[[nn.Module], nn.Module] = lambda task: task) -> list[dict[str, Any]]:
    """Of each detector the losses and gradients in each batch, and what it is after a step with each but the first."""
    found = []
    for name, own in CASES:
        task = Task(certain(make(name, own)), {}).train()
        trained, optimizer = wrap(task), torch.optim.SGD(task.parameters(), lr=0.01)
        losses, gradients = {}, {}
        try:
            for batch, boxes in BATCHES.items():
                task.zero_grad()
                said = trained(*part_of(images, boxes), None)
                said.total.backward()
                assert not [key for key, p in task.named_parameters() if p.grad is None], batch
                losses[batch] = {key: value.detach() for key, value in said.by_name.items()}
                gradients[batch] = {key: p.grad.clone() for key, p in task.student.named_parameters()}
                if batch != "boxes on both":  # so that the first two see the same weights
                    optimizer.step()
        except Exception as error:
            raise AssertionError(f"{name} {own}") from error
        found.append({"losses": losses, "gradients": gradients, "state": task.student.state_dict()})
    return found


def learn_together(rank: int) -> list[dict[str, Any]]:
    return learn(SPLIT[rank], DistributedDataParallel)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two workers learnt, detector by detector. Of a parameter that is not used DDP would complain."""
    return list(zip(*together(learn_together, tmp_path_factory.mktemp("workers")), strict=True))


@pytest.fixture(scope="module")
def one() -> list[dict[str, Any]]:
    return learn((0, 1, 2))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{name} {own or ''}".strip() for name, own in CASES])
def test_two_workers_learn_what_one_learns_and_stay_alike(one: list[Any], two: list[Any], number: int) -> None:
    left, right = two[number]
    for batch in BATCHES:
        for name, loss in one[number]["losses"][batch].items():
            mean = (left["losses"][batch][name] + right["losses"][batch][name]) / 2
            torch.testing.assert_close(mean, loss, rtol=1e-4, atol=0, msg=name)
        every = one[number]["gradients"][batch]
        rounding = 1e-6 * max(gradient.abs().max().item() for gradient in every.values())
        for name, gradient in every.items():
            atol = max(1e-5 * gradient.abs().max().item(), rounding)
            torch.testing.assert_close(left["gradients"][batch][name], gradient, rtol=1e-4, atol=atol, msg=name)
    assert left["state"].keys() == right["state"].keys()
    for name, value in left["state"].items():
        assert value.isfinite().all() and torch.equal(value, right["state"][name]), name
