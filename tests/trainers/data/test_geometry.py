"""Boxes and masks stay on their pixels through any view."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.data.test_views import chances, looks
from trainers.data.geometry import seen
from trainers.data.views import Chance, Look, View, Window

WHOLE = View((30, 40))


def picture(size: tuple[int, int], box: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """A white rectangle on black, its box and its mask."""
    x1, y1, x2, y2 = box
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask.to(torch.uint8).mul(255).expand(3, *size), torch.tensor([box], dtype=torch.float32), mask[None]


@st.composite
def pictures(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    height, width = draw(st.integers(40, 120)), draw(st.integers(40, 120))
    x1, y1 = draw(st.integers(0, width - 20)), draw(st.integers(0, height - 20))
    return (height, width), (x1, y1, draw(st.integers(x1 + 20, width)), draw(st.integers(y1 + 20, height)))


@settings(max_examples=150, deadline=None)
@given(looks(), pictures(), chances)
def test_a_coloured_rectangle_is_found_at_its_box_after_any_view(
    look: Look, drawn: tuple[tuple[int, int], tuple[int, int, int, int]], chance: Chance
) -> None:
    size, box = drawn
    view = look.at(size, chance)
    image, boxes, masks, kept = seen(view, *picture(size, box))
    assert image.shape == (3, *view.size) and image.dtype == torch.uint8
    assert masks is not None and masks.shape == (len(boxes), *view.size) and masks.dtype == torch.bool
    assert len(boxes) == int(kept.sum()) and boxes.dtype == torch.float32
    if not len(boxes):
        assert image.float().mean(0).gt(200).sum() <= 3 * max(view.size) * max(view.scale(size))
        return
    (x1, y1, x2, y2) = boxes[0].tolist()
    assert 0 <= x1 < x2 <= view.size[1] and 0 <= y1 < y2 <= view.size[0]
    # Resizing blurs an edge over about as many pixels as one before became; cut in between, those of what is cut count.
    scales = torch.tensor(view.scale(size))
    if view.window is not None:
        height, width = view.window[2:]
        scales = scales.maximum(torch.tensor([view.size[1] / width, view.size[0] / height]))
    x_blur, y_blur = (2 + 2 * scales).tolist()
    rows, columns = torch.arange(view.size[0]) + 0.5, torch.arange(view.size[1]) + 0.5
    inside = ((rows > y1 + y_blur) & (rows < y2 - y_blur))[:, None] & (
        (columns > x1 + x_blur) & (columns < x2 - x_blur)
    )
    outside = ((rows < y1 - y_blur) | (rows > y2 + y_blur))[:, None] | (
        (columns < x1 - x_blur) | (columns > x2 + x_blur)
    )
    assert (image[:, inside] >= 250).all() and (image[:, outside] <= 5).all()
    assert masks[0][inside].all() and not masks[0][outside].any()


def test_a_view_that_changes_nothing_changes_nothing() -> None:
    image, boxes, masks = picture((30, 40), (4, 2, 12, 8))
    same = seen(WHOLE, image, boxes, masks)
    assert torch.equal(same[0], image) and torch.equal(same[1], boxes) and torch.equal(same[2], masks)
    assert same[3].tolist() == [True] and seen(WHOLE, image, boxes)[2] is None


@given(st.lists(st.tuples(st.integers(0, 320), st.integers(0, 320)), max_size=5), st.integers(1, 320))
def test_mirroring_twice_changes_nothing(spans: list[tuple[int, int]], width: int) -> None:
    corners = [[min(a, b, 8 * width) / 8, 0.0, min(max(a, b) / 8, width), 1.0] for a, b in spans]
    boxes, image = torch.tensor(corners).reshape(-1, 4), torch.arange(3 * width).view(3, 1, width).to(torch.uint8)
    mirrored = View((1, width), mirrored=True)
    once = seen(mirrored, image, boxes)
    twice = seen(mirrored, *once[:2])
    assert torch.equal(twice[0], image) and torch.equal(twice[1], boxes)
    assert (once[1][:, 0] <= once[1][:, 2]).all()


def cut(window: Window, *boxes: tuple[float, ...]) -> tuple[Tensor, list[bool]]:
    """What is left of boxes in an image of 30 x 40 of which a window is kept, as large as before."""
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    view = View(window[2:], first=(30, 40), window=window)
    masks = torch.ones(len(boxes), 30, 40, dtype=torch.bool)
    _, left, drawn, kept = seen(view, image, torch.tensor(boxes), masks)
    assert drawn is not None and drawn.shape == (len(left), *window[2:])
    return left, kept.tolist()


def test_boxes_are_cut_with_the_image_and_dropped_with_their_masks_when_nothing_is_left() -> None:
    left, kept = cut(Window(10, 20, 15, 10), (18.0, 5.0, 25.0, 20.0), (0.0, 0.0, 19.0, 9.0), (22.0, 11.0, 24.0, 13.0))
    assert left.tolist() == [[0, 0, 5, 10], [2, 1, 4, 3]] and kept == [True, False, True]


def test_less_than_a_pixel_of_a_cut_side_is_nothing_but_small_objects_stay() -> None:
    slivers = (10.0, 12.0, 20.9, 18.0), (20.5, 12.0, 20.9, 12.4), (29.5, 0.0, 40.0, 30.0)
    left, kept = cut(Window(10, 20, 15, 10), *slivers)
    assert kept == [False, True, False]
    torch.testing.assert_close(left, torch.tensor([[0.5, 2.0, 0.9, 2.4]]))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2999)])
@pytest.mark.parametrize("chance", [Chance(cut=0.9), Chance(top=0.999, left=0.999, height=0.5, width=0.5)])
def test_the_smallest_and_the_longest_images_go_through_any_recipe(size: tuple[int, int], chance: Chance) -> None:
    from trainers.augment import Crop, Resize

    look = Look(Resize(short=(480, 800), long=1333), Crop(short=(400, 600), size=(384, 600)), flip=0.5)
    view = look.at(size, chance)
    whole = torch.tensor([[0.0, 0.0, size[1], size[0]]])
    image, boxes, masks, kept = seen(
        view, torch.full((3, *size), 9, dtype=torch.uint8), whole, torch.ones(1, *size).bool()
    )
    assert image.shape[1:] == view.size and (image == 9).all() and max(view.size) <= 1333
    assert kept.all() and masks is not None and masks.all()
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0.0, view.size[1], view.size[0]]]))


def test_an_image_without_boxes_stays_one() -> None:
    view = View((20, 25), mirrored=True, first=(60, 80), window=Window(3, 4, 40, 50))
    none = torch.zeros(0, 4)
    image, boxes, masks, kept = seen(
        view, torch.zeros(3, 30, 40, dtype=torch.uint8), none, torch.zeros(0, 30, 40).bool()
    )
    assert image.shape == (3, 20, 25) and boxes.shape == (0, 4) and kept.shape == (0,)
    assert masks is not None and masks.shape == (0, 20, 25)


def test_the_order_of_colours_in_memory_makes_no_difference() -> None:
    pixels = torch.randint(0, 256, (3, 47, 61), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    together = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    boxes = torch.tensor([[5.0, 6.0, 30.0, 40.0]])
    for view in (View((80, 104)), View((20, 26), True), View((50, 40), True, (94, 122), Window(7, 9, 50, 40))):
        assert torch.equal(seen(view, pixels, boxes)[0], seen(view, together, boxes)[0])
