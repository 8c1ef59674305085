"""The second stage: which level a region is read from and how, what is learnt from it, and by which loss."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign, box_iou, roi_align

from trainers import workers
from trainers.detectors.proposals import CONVENTIONS
from trainers.detectors.regions import Pooler, Regions, heads, losses, sample
from trainers.outputs import Truth

STRIDES = (4, 8, 16, 32)
ALIGNED, LEGACY = CONVENTIONS["mmdetection"], CONVENTIONS["torchvision"]


def pyramid(images: int = 2, *, size: int = 512) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(images, 3, size // s, size // s, generator=generator) for s in STRIDES]


BOXES = [
    torch.tensor([[3.0, 5, 33, 40], [10.5, 8, 140, 121], [0.0, 0, 512, 512], [300.25, 310, 300.75, 311]]),
    torch.tensor([[100.0, 100, 330, 350], [64.0, 0, 176, 112]]),
]


@pytest.mark.parametrize(
    ("strides", "sides"),
    [
        # Below, and from this side on, level by level: 56 pixels belong to a stride of 4.
        ((4, 8, 16, 32), [(111.9, 112), (223.9, 224), (447.9, 448)]),
        ((4, 8, 16), [(111.9, 112), (223.9, 224)]),
        ((8, 16, 32), [(223.9, 224), (447.9, 448)]),
    ],
)
def test_a_regions_level_is_the_one_whose_stride_fits_its_size(
    strides: tuple[int, ...], sides: list[tuple[float, float]]
) -> None:
    pooler = Pooler(strides, 7, ALIGNED)
    for level, (below, above) in enumerate(sides):
        # Tall and wide ones count by their area, wherever they are.
        boxes = torch.tensor(
            [[9.0, 7, 9 + below, 7 + below], [0.0, 0, above, above], [5.0, 0, 5 + above / 4, above * 4]]
        )
        assert pooler.level(boxes).tolist() == [level, level + 1, level + 1]
    ends = torch.tensor([[5.0, 5, 5, 9], [5.0, 5, 6, 6], [0.0, 0, 4000, 4000]])
    assert pooler.level(ends).tolist() == [0, 0, len(strides) - 1]


def test_regions_are_read_aligned_from_their_own_image_and_level() -> None:
    features = pyramid()
    pooled = Pooler(STRIDES, 7, ALIGNED)(features, BOXES, [])
    levels = [0, 1, 3, 0, 2, 1]
    images = [0, 0, 0, 0, 1, 1]
    for found, box, level, image in zip(pooled, torch.cat(BOXES), levels, images, strict=True):
        x = features[level][image][None]
        wanted = roi_align(x, [box[None]], 7, 1 / STRIDES[level], sampling_ratio=0, aligned=True)[0]
        torch.testing.assert_close(found, wanted)
    flat = Pooler((4,), 1, ALIGNED)([torch.arange(16.0).view(1, 1, 1, 16).expand(1, 1, 16, 16)], [BOXES[0][:1]], [])
    # From 3 to 33 pixels: the middle is at 18, which is cell 4.5 less the half that the middle of cell 0 is off.
    assert flat.item() == pytest.approx(18 / 4 - 0.5)


def test_in_torchvisions_conventions_it_is_torchvisions_pooler() -> None:
    features = pyramid()
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    wanted = theirs(dict(zip("0123", features, strict=True)), BOXES, [(512, 512)] * 2)
    torch.testing.assert_close(Pooler(STRIDES, 7, LEGACY)(features, BOXES, []), wanted)


def test_levels_beyond_the_strides_are_not_read_and_no_region_is_no_trouble() -> None:
    pooler, features = Pooler(STRIDES, 7, ALIGNED), pyramid()
    more = [*features, torch.full((2, 3, 8, 8), torch.nan)]
    assert torch.equal(pooler(more, BOXES, []), pooler(features, BOXES, []))
    assert pooler(features, [torch.empty(0, 4)] * 2, []).shape == (0, 3, 7, 7)
    one_sided = pooler(features, [torch.empty(0, 4), BOXES[1]], [])
    assert torch.equal(one_sided, pooler(features, BOXES, [])[4:])


def test_what_is_read_is_float32_and_passes_its_gradient_to_every_level_it_is_read_from() -> None:
    features = [x.bfloat16().requires_grad_() for x in pyramid()]
    pooled = Pooler(STRIDES, 7, ALIGNED)(features, BOXES, [])
    assert pooled.dtype == torch.float32
    pooled.square().sum().backward()
    for x in features:
        assert x.grad is not None and x.grad.any()


def stage(**knobs: Any) -> Any:
    small: dict[str, Any] = {
        "sampled": 512,
        "hidden": 8,
        "score_threshold": 0.05,
        "nms_iou": 0.5,
        "max_detections": 100,
    }
    return heads(3, 3, Pooler(STRIDES, 2, ALIGNED), **{**small, **knobs})


def truth(*boxes: list[list[float]]) -> Truth:
    many = [torch.tensor(box).view(-1, 4) for box in boxes]
    labels = [torch.arange(len(box)) % 3 for box in many]
    return Truth(many, labels, [(200, 200)] * len(many), list(range(len(many))), [(1.0, 1.0)] * len(many))


SEEN = truth([[3.0, 5, 93, 90], [40.0, 30, 181, 172]], [], [[10.0, 8, 142, 121]])


def scattered(count: int = 900, seed: int = 0) -> list[Tensor]:
    """Proposals around the boxes and elsewhere."""
    torch.manual_seed(seed)
    found = []
    for boxes in SEEN.boxes:
        low = torch.rand(count, 2) * 120
        anywhere = torch.cat([low, low + 10 + torch.rand(count, 2) * 70], 1)
        near = boxes.repeat_interleave(200, 0)
        found.append(torch.cat([anywhere, (near + torch.randn(near.shape) * 8).clamp(0, 200)]))
    return found


def test_regions_are_compared_with_the_box_that_they_overlap_most_as_written_out() -> None:
    torch.manual_seed(1)
    regions = sample(stage(), scattered(), SEEN)
    for image in range(3):
        boxes = SEEN.boxes[image]
        assert len(regions.boxes[image]) == 512
        assert (regions.labels[image] > 0).sum() == (0 if not len(boxes) else 128)
        for box, number, label, delta in zip(*(column[image] for column in regions), strict=True):
            overlap = box_iou(box[None], boxes)[0]
            if not len(boxes) or overlap.max() < 0.5:
                assert label == 0
                continue
            best = int(overlap.argmax())
            assert number == best and label == SEEN.labels[image][best] + 1
            x1, y1, x2, y2 = boxes[best].tolist()
            a1, b1, a2, b2 = box.tolist()
            w, h = a2 - a1, b2 - b1
            wanted = (
                ((x1 + x2 - a1 - a2) / 2 / w) / 0.1,
                ((y1 + y2 - b1 - b2) / 2 / h) / 0.1,
                math.log((x2 - x1) / w) / 0.2,
                math.log((y2 - y1) / h) / 0.2,
            )
            assert delta.tolist() == pytest.approx(wanted, abs=1e-3)


def test_real_boxes_are_among_the_regions_even_if_nothing_near_them_was_proposed() -> None:
    far = [torch.tensor([[150.0, 0, 199, 20]])] * 3
    given = [box.clone() for box in far]
    regions = sample(stage(), far, SEEN)
    for image in range(3):
        count = len(SEEN.boxes[image])
        assert regions.boxes[image].tolist() == [[150, 0, 199, 20], *SEEN.boxes[image].tolist()]
        assert regions.labels[image].tolist() == [0, *(SEEN.labels[image] + 1).tolist()]
        assert regions.deltas[image][1:].abs().max() < 1e-4 if count else True
        assert torch.equal(far[image], given[image])


def test_what_is_drawn_is_the_same_for_the_same_seed() -> None:
    proposals = scattered()

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat(sample(stage(), proposals, SEEN).boxes)

    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))


def few() -> Regions:
    """Five regions in two images, of which two show class 1 and one class 2."""
    labels = [torch.tensor([2, 0, 3]), torch.tensor([0, 2])]
    boxes = [torch.rand(len(n), 4) for n in labels]
    generator = torch.Generator().manual_seed(0)
    deltas = [torch.randn(len(n), 4, generator=generator) for n in labels]
    return Regions(boxes, [torch.zeros_like(n) for n in labels], labels, deltas)


@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_the_losses_are_those_of_the_paper_written_out(beta: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, deltas = torch.randn(5, 4, generator=generator), torch.randn(5, 16, generator=generator)
    here = few()
    labels, wanted = torch.cat(here.labels).tolist(), torch.cat(here.deltas).tolist()
    cls = box = 0.0
    for r, label in enumerate(labels):
        z = logits[r].tolist()
        cls += math.log(sum(map(math.exp, z))) - z[label]
        for d in range(4):
            far = abs(deltas[r, 4 * label + d].item() - wanted[r][d])
            if label:
                box += far * far / (2 * beta) if far < beta else far - beta / 2
    found = losses(logits, deltas, here, beta=beta)
    assert [x.item() for x in found] == pytest.approx([cls / 5, box / 5], rel=1e-5)


def test_regions_are_counted_over_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, deltas = torch.randn(5, 4), torch.randn(5, 16)
    whole = losses(logits, deltas, few(), beta=0.0)
    monkeypatch.setattr(workers, "mean", lambda number: number * 2)
    for one, two in zip(losses(logits, deltas, few(), beta=0.0), whole, strict=True):
        torch.testing.assert_close(one * 2, two)


def test_no_region_at_all_is_a_loss_of_zero() -> None:
    empty = Regions([torch.empty(0, 4)], [torch.empty(0)], [torch.empty(0, dtype=torch.long)], [torch.empty(0, 4)])
    logits = torch.empty(0, 4, requires_grad=True)
    cls, box = losses(logits, torch.empty(0, 16), empty, beta=0.0)
    assert cls.item() == box.item() == 0


def test_background_learns_no_box_and_a_box_only_from_its_own_class() -> None:
    deltas = torch.randn(5, 16, requires_grad=True)
    _, box = losses(torch.randn(5, 4), deltas, few(), beta=0.0)
    (grad,) = torch.autograd.grad(box, deltas)
    touched = (grad.view(5, 4, 4) != 0).all(2)
    assert (
        touched.tolist() == F.one_hot(torch.tensor([2, 0, 3, 0, 2]), 4).mul(torch.tensor([0, 1, 1, 1])).bool().tolist()
    )
