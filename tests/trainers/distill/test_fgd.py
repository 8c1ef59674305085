"""FGD: masks of objects and of what is around them, the teacher's attention, and a global context."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainers.distill.figures import Figures, random_outputs, targets_at
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import FGD
from trainers.distill.attention import Context, attention, attention_difference, weighted_difference
from trainers.distill.fgd import ANCHOR_FREE, ANCHORS, DISTRIBUTIONS, TWO_STAGE, in_cells, masks, sizes_of
from trainers.outputs import Outputs, Targets, Truth

Pick = Callable[[Outputs, list[int]], Outputs]
NONE = {f"{part}_weight": 0.0 for part in ("foreground", "background", "attention", "relation")}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def targets(*boxes: list[list[float]], sizes: list[tuple[int, int]] | None = None) -> Targets:
    """Images, of 16 x 24 pixels if nothing else is said, with these boxes."""
    real = [torch.tensor(b).view(-1, 4) for b in boxes]
    labels = [torch.zeros(len(b), dtype=torch.long) for b in boxes]
    number = len(boxes)
    truth = Truth(real, labels, sizes or [(16, 24)] * number, list(range(number)), [(1.0, 1.0)] * number)
    return replace(targets_at(images=number), truth=truth)


def masks_of(boxes: list[list[float]], *, height: int = 2, width: int = 3) -> tuple[Tensor, Tensor]:
    """Of one image."""
    image = torch.zeros(len(boxes), dtype=torch.long)
    both = masks(torch.tensor(boxes).view(-1, 4), image, like=torch.zeros(1, height, width))
    return both[0][0], both[1][0]


def only(**weights: float) -> FGD:
    """With these parts and no others."""
    return FGD(Figures(), Figures(), **{**NONE, **weights}).double()


def test_a_box_covers_the_cells_from_the_one_it_starts_in_to_the_one_after_the_one_it_ends_in() -> None:
    foreground, background = masks_of([[1.2, 0.9, 2.1, 1.5]], height=4, width=5)
    # Columns 1 to ceil(2.1) = 3, rows 0 to ceil(1.5) = 2: nine cells.
    expected = torch.zeros(4, 5)
    expected[:3, 1:4] = 1 / 9
    torch.testing.assert_close(foreground, expected)
    torch.testing.assert_close(background, (expected == 0) / 11)


def test_a_box_that_ends_at_a_cell_takes_it_too_and_counts_the_cells_beyond_the_border() -> None:
    foreground, _ = masks_of([[1.0, 0.0, 3.0, 2.0]])  # columns 1 to 3 and rows 0 to 2, of which 2 x 2 are there
    torch.testing.assert_close(foreground, torch.tensor([[0, 1, 1], [0, 1, 1]]) / 9)


def test_where_boxes_overlap_the_smaller_one_counts() -> None:
    foreground, background = masks_of([[0.0, 0.0, 2.0, 1.0], [0.5, 0.2, 0.9, 0.7]])
    torch.testing.assert_close(foreground, torch.tensor([[1 / 4, 1 / 4, 1 / 6], [1 / 4, 1 / 4, 1 / 6]]))
    assert (background == 0).all()


def test_without_boxes_all_is_background() -> None:
    foreground, background = masks_of([])
    assert (foreground == 0).all()
    torch.testing.assert_close(background, torch.full((2, 3), 1 / 6))


def test_masks_belong_to_the_image_of_their_box() -> None:
    boxes, image = torch.tensor([[0.0, 0.0, 0.5, 0.5], [1.5, 0.0, 1.9, 0.5]]), torch.tensor([1, 2])
    foreground, _ = masks(boxes, image, like=torch.zeros(4, 2, 3))
    assert foreground.amax((1, 2)).tolist() == [0, 0.25, 0.25, 0]
    assert foreground[1, 0].tolist() == [0.25, 0.25, 0] and foreground[2, 0].tolist() == [0, 0.25, 0.25]


def test_boxes_become_cells_by_the_stride_or_as_if_the_image_filled_its_map() -> None:
    # Maps of 4 x 8 cells with stride 8, for images of 32 x 64 and 16 x 32 pixels.
    truth = targets([[8.0, 8, 16, 16]], [[8.0, 8, 16, 16]], sizes=[(32, 64), (16, 32)]).truth
    features = torch.zeros(2, 1, 4, 8)
    boxes, sizes = torch.cat(truth.boxes), sizes_of(truth)
    assert sizes.tolist() == [[64, 32], [32, 16]]
    assert in_cells(boxes, features, 8, None).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert in_cells(boxes, features, 8, sizes).tolist() == [[1, 1, 2, 2], [2, 2, 4, 4]]


def test_a_width_is_divided_by_the_width_and_a_height_by_the_height() -> None:
    # An image of 20 x 40 pixels on a map of 4 x 16 cells: 0.2 cells a pixel down, 0.4 across.
    found = in_cells(torch.tensor([[5.0, 10, 20, 20]]), torch.zeros(1, 1, 4, 16), 8, torch.tensor([[40.0, 20]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 2, 8, 4]]))


def test_both_scales_agree_unless_images_are_padded() -> None:
    student, teacher = random_outputs(1, images=1), random_outputs(2, images=1)
    for sizes, alike in (([(16, 24)], True), ([(10, 15)], False)):
        found = [
            FGD(Figures(), Figures(), levels=(0,), scale=scale, foreground_weight=1.0).double()
            for scale in ("padded", "image")
        ]
        padded, image = (loss(student, teacher, targets([[1.0, 1, 6, 5]], sizes=sizes)) for loss in found)
        assert torch.isclose(padded, image).item() == alike


def test_attention_by_hand() -> None:
    # Means of magnitudes: cells 1 and 2, channels 3 and 0.
    features = torch.tensor([[[[2.0, -4.0]], [[0.0, 0.0]]]])
    found = attention(features, temperature=0.5)
    spatial, channel = torch.tensor([[[2.0, 4.0]]]).softmax(2) * 2, torch.tensor([[6.0, 0.0]]).softmax(1) * 2
    torch.testing.assert_close(found.spatial, spatial)
    torch.testing.assert_close(found.channel, channel)


def test_attention_has_the_mean_one_in_each_image() -> None:
    found = attention(draw(3, 5, 4, 6, seed=0), temperature=0.5)
    torch.testing.assert_close(found.spatial.mean((1, 2)), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(found.channel.mean(1), torch.ones(3, dtype=torch.float64))


def test_differences_are_weighted_by_both_attentions_and_the_mask_cell_by_cell() -> None:
    student, teacher, mask = draw(2, 3, 2, 2, seed=0), draw(2, 3, 2, 2, seed=1), draw(2, 2, 2, seed=2).abs()
    theirs = attention(teacher, temperature=0.5)
    difference = (student - teacher) ** 2
    expected = sum(
        difference[b, c, y, x] * theirs.spatial[b, y, x] * theirs.channel[b, c] * mask[b, y, x]
        for b, c, y, x in itertools.product(range(2), range(3), range(2), range(2))
    )
    torch.testing.assert_close(weighted_difference(student, teacher, theirs, mask), expected)


@pytest.mark.parametrize("part", ["foreground", "background"])
def test_the_parts_are_sums_over_levels_and_means_over_images(part: str) -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    wanted = targets([[1.0, 2, 6, 7]], [[9.0, 3, 20, 6], [2.0, 2, 5, 5]])
    expected = torch.zeros((), dtype=torch.float64)
    for s, t, stride in zip(student.features, teacher.features, (8, 16), strict=True):
        image = torch.tensor([0, 1, 1])
        both = masks(torch.cat(wanted.truth.boxes) / stride, image, like=t[:, 0])
        mask = both[part == "background"].double()
        expected = expected + weighted_difference(s, t, attention(t, temperature=0.5), mask) / 2
    found = only(**{f"{part}_weight": 2.0})(student, teacher, wanted)
    torch.testing.assert_close(found, 2 * expected, rtol=1e-6, atol=0)


def test_the_attention_of_both_is_compared_and_the_students_learns() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    pairs = zip(student.features, teacher.features, strict=True)
    expected = sum(
        attention_difference(*(attention(x, temperature=0.5) for x in pair)) / 2  # images
        for pair in pairs
    )
    found = only(attention_weight=3.0)(student, teacher, targets([], []))
    torch.testing.assert_close(found, 3 * expected)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(found, student.features))


def test_at_first_the_relation_is_the_squared_difference_of_the_features() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    pairs = zip(student.features, teacher.features, strict=True)
    expected = sum((s - t).square().sum() / 2 for s, t in pairs)
    torch.testing.assert_close(only(relation_weight=3.0)(student, teacher, targets([], [])), 3 * expected)


def test_a_context_adds_one_vector_to_all_cells_made_of_a_weighted_mean_of_them() -> None:
    torch.manual_seed(0)
    block, features = Context(4).double(), draw(2, 4, 2, 3, seed=0)
    torch.nn.init.normal_(block.what[-1].weight)
    added = block(features) - features
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added))
    share = block.where(features).flatten(1).softmax(1).view(2, 1, 2, 3)
    mean = (features * share).sum((2, 3), keepdim=True)
    torch.testing.assert_close(added[:, :, :1, :1], block.what(mean))


def test_both_contexts_learn() -> None:
    loss = only(relation_weight=1.0)
    for context in loss.contexts:
        torch.nn.init.normal_(context.what[-1].weight)
    loss(random_outputs(1), random_outputs(2), targets([], [])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.parameters() if p.numel() > 2)


def test_without_a_relation_there_are_no_contexts() -> None:
    assert not list(only(foreground_weight=1.0).parameters())


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ({"anchors": 0, "bins": 0}, TWO_STAGE),
        ({"anchors": 9, "bins": 0}, ANCHORS),
        ({"anchors": 9, "bins": 17}, ANCHORS),
        ({"anchors": 1, "bins": 17}, DISTRIBUTIONS),
        ({"anchors": 1, "bins": 0}, ANCHOR_FREE),
    ],
)
def test_weights_that_are_left_out_are_the_published_ones_of_the_students_kind(
    kind: dict[str, int], weights: tuple[float, ...]
) -> None:
    student = Figures(**kind)
    assert FGD(student, student).parts == weights
    own = FGD(student, student, background_weight=7.0, relation_weight=0.0).parts
    assert own == (weights[0], 7.0, weights[2], 0.0)


@pytest.mark.parametrize(("anchors", "count"), [(1, 5), (9, 5), (0, 4)])
def test_a_student_of_one_stage_learns_all_levels_and_one_of_two_stages_the_first_four(
    anchors: int, count: int
) -> None:
    pair = [Figures(strides=(4, 8, 16, 32, 64), anchors=anchors)] * 2
    assert FGD(*pair).levels == tuple(range(count))


def test_without_any_part_it_is_refused_unless_it_is_meant_to_be_silent() -> None:
    with pytest.raises(Invalid, match="every part of FGD has the weight 0"):
        only()
    student = random_outputs(1)
    found = only(weight=0.0)(student, random_outputs(2), targets([], []))
    assert found.item() == 0 and found.requires_grad


def test_a_teacher_that_agrees_asks_for_nothing() -> None:
    student, loss = random_outputs(1), FGD(Figures(), Figures()).double()
    found = loss(student, random_outputs(1), targets([[1.0, 1, 9, 9]], []))
    assert found.item() == 0
    for gradient in torch.autograd.grad(found, student.features):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


@pytest.mark.parametrize("boxes", [[], [[0.0, 0, 24, 16]], [[0.0, 0, 0, 0]], [[23.5, 15.5, 24, 16]]])
def test_no_box_a_box_of_the_whole_image_and_boxes_at_its_corners_do_no_harm(boxes: list[list[float]]) -> None:
    student = random_outputs(1)
    found = FGD(Figures(), Figures()).double()(student, random_outputs(2), targets(boxes, []))
    assert found.isfinite() and found > 0
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found, student.features))


def test_the_batch_may_be_doubled(of_images: Pick) -> None:
    student, teacher, loss = random_outputs(1), random_outputs(2), FGD(Figures(), Figures()).double()
    boxes: tuple[Any, Any] = ([[1.0, 2, 6, 7]], [[9.0, 3, 20, 6]])
    twice = loss(of_images(student, [0, 1, 0, 1]), of_images(teacher, [0, 1, 0, 1]), targets(*boxes, *boxes))
    torch.testing.assert_close(twice, loss(student, teacher, targets(*boxes)))


def test_the_gradient_agrees_with_finite_differences() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    weights = dict.fromkeys(NONE, 1.0)
    loss, wanted = FGD(Figures(), Figures(), **weights).double(), targets([[1.0, 2, 6, 7]], [[9.0, 3, 20, 6]])
    for context in loss.contexts:
        torch.nn.init.normal_(context.what[-1].weight)

    def of(*features: Tensor) -> Tensor:
        value: Tensor = loss(replace(student, features=list(features)), teacher, wanted)
        return value

    assert torch.autograd.gradcheck(of, student.features, fast_mode=True)


def test_a_narrower_student_is_made_as_wide() -> None:
    loss = FGD(Figures(channels=4), Figures(channels=6)).double()
    teacher = Outputs([draw(2, 6, 2, 3, seed=0), draw(2, 6, 1, 2, seed=1)])
    found = loss(random_outputs(1), teacher, targets([[1.0, 1, 9, 9]], []))
    found.backward()
    assert all(p.grad is not None for p in loss.parameters())


def test_it_computes_in_full_precision_under_autocast() -> None:
    loss, wanted = FGD(Figures(), Figures()), targets([[1.0, 1, 9, 9]], [])
    student, teacher = (
        Outputs([x.detach().bfloat16() for x in o.features]) for o in (random_outputs(1), random_outputs(2))
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher, wanted)
    exact = loss(*(Outputs([x.float() for x in o.features]) for o in (student, teacher)), wanted)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)


def test_maps_of_cells_of_another_size_are_refused() -> None:
    with pytest.raises(Invalid, match=r"strides of the levels.*\(4, 8\).*\(8, 16\)"):
        FGD(Figures(strides=(4, 8)), Figures())


@pytest.mark.parametrize("args", [{"temperature": 0}, {"attention_weight": -1}, {"scale": "batch"}, {"levels": ["P3"]}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="FGD", args=args).complete(distill)
    assert refusal.value.where == ("FGD", *args)
