"""Batches depend on seed and epoch alone, not on who makes them, and boxes stay on their pixels."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainers.augment import Resize
from trainers.call import Invalid
from trainers.data import Digits
from trainers.data.assemble import COLOUR
from trainers.data.batches import Batches, in_order
from trainers.data.masks import encode, packed
from trainers.data.split import Split, classes_of
from trainers.data.views import resized
from trainers.outputs import Truth

SIZES = [(40, 30), (30, 40), (64, 64), (33, 20), (10, 90), (40, 30), (50, 50)]  # height, width


def read(index: int) -> Tensor:
    """The index in red, the column in green, the row in blue."""
    height, width = SIZES[index]
    red = torch.full((height, width), index)
    green = torch.arange(width).expand(height, width)
    return torch.stack([red, green, torch.arange(height)[:, None].expand(height, width)]).to(torch.uint8)


def mixed(reader: Callable[[int], Tensor] = read) -> Split:
    """Images of several sizes; the first has no box, the others have one of 8 x 6 at (4, 2)."""
    images = [{"id": 100 + i, "file_name": f"{i}.png", "width": w, "height": h} for i, (h, w) in enumerate(SIZES)]
    rows = [{"id": i, "image_id": 100 + i, "category_id": 1, "bbox": [4, 2, 8, 6]} for i in range(1, len(SIZES))]
    coco = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}
    return Split(coco, classes_of(coco), reader)


def same(one: list[tuple[Tensor, Truth]], two: list[tuple[Tensor, Truth]]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a, b)
        and all(torch.equal(x, y) for x, y in zip(s.boxes + s.labels, t.boxes + t.labels, strict=True))
        and (s.ids, s.sizes, s.scales) == (t.ids, t.sizes, t.scales)
        for (a, s), (b, t) in zip(one, two, strict=True)
    )


def ids(batches: Batches, epoch: int) -> list[list[int]]:
    return [truth.ids for _, truth in batches.epoch(epoch)]


def test_an_epoch_comes_out_the_same_every_time_and_in_any_order_of_epochs() -> None:
    one = Batches(mixed(), batch=3, seed=5, flip=0.5)
    later = list(one.epoch(4))
    assert same(later, list(Batches(mixed(), batch=3, seed=5, flip=0.5).epoch(4)))
    assert same(list(one.epoch(0)), list(Batches(mixed(), batch=3, seed=5, flip=0.5).epoch(0)))


def test_epochs_and_seeds_differ_in_order_and_in_mirroring() -> None:
    digits = Digits(train=40, val=1).train
    epochs = [list(Batches(digits, batch=40, seed=seed, flip=0.5).epoch(n)) for seed in (0, 1) for n in (0, 1)]
    assert len({tuple(truth.ids) for ((_, truth),) in epochs}) == 4

    def mirrored(batch: tuple[Tensor, Truth]) -> tuple[bool, ...]:
        images, truth = batch
        by_id = dict(zip(truth.ids, images, strict=True))
        return tuple(not torch.equal(by_id[i], digits.read(i - 1) / 255) for i in sorted(by_id))

    flips = [mirrored(batch) for (batch,) in epochs]
    assert len(set(flips)) == 4 and all(5 < sum(each) < 35 for each in flips)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_workers_of_a_stage_share_the_batches_of_one(world: int) -> None:
    options = {"batch": 4, "seed": 1, "flip": 0.5, "resize": Resize(short=24, long=40)}
    whole = list(Batches(mixed(), **options).epoch(2))
    parts = [list(Batches(mixed(), **options, rank=rank, world=world).epoch(2)) for rank in range(world)]
    for step, (images, truth) in enumerate(whole):
        for rank in range(world):
            mine, said = parts[rank][step]
            assert torch.equal(mine, images[rank::world])
            assert said.ids == truth.ids[rank::world] and said.sizes == truth.sizes[rank::world]
            assert all(torch.equal(a, b) for a, b in zip(said.boxes, truth.boxes[rank::world], strict=True))


@pytest.mark.parametrize("loader_workers", [1, 2])
def test_loader_processes_make_the_same_batches(loader_workers: int) -> None:
    options = {"batch": 2, "seed": 1, "flip": 0.5, "resize": Resize(short=24, long=40)}
    here = list(Batches(mixed(), **options).epoch(3))
    assert same(here, list(Batches(mixed(), **options, loader_workers=loader_workers).epoch(3)))
    measured = list(in_order(mixed(), batch=2))
    assert same(measured, list(in_order(mixed(), batch=2, loader_workers=loader_workers)))


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 16])
def test_every_batch_is_full_and_every_image_is_seen(batch: int) -> None:
    batches = Batches(mixed(), batch=batch, seed=0)
    epoch = ids(batches, 0)
    assert len(epoch) == batches.steps == -(-7 // batch)
    assert all(len(each) == batch for each in epoch)
    flat = [i for each in epoch for i in each]
    assert set(flat[:7]) == set(range(100, 107))
    assert all(flat[n] == flat[n % 7] for n in range(len(flat)))  # filled from the beginning


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(Invalid, match="a batch of 2 cannot be shared by 3 workers"):
        Batches(mixed(), batch=2, seed=0, world=3)


def test_in_order_shows_each_image_once_unmirrored_whoever_looks() -> None:
    assert [truth.ids for _, truth in in_order(mixed(), batch=3)] == [[100, 101, 102], [103, 104, 105], [106]]
    seen = [list(in_order(mixed(), batch=3, rank=rank, world=2)) for rank in range(2)]
    assert [[t.ids for _, t in part] for part in seen] == [[[100, 102], [103, 105], [106]], [[101], [104]]]
    for images, truth in in_order(mixed(), batch=3):
        for image, identity, (height, width) in zip(images, truth.ids, truth.sizes, strict=True):
            assert torch.equal(image[:, :height, :width], read(identity - 100) / 255)


def test_padding_is_the_mean_colour_at_the_right_and_bottom_to_a_multiple() -> None:
    ((images, truth),) = in_order(mixed(), batch=7, divisor=32)
    assert images.shape == (7, 3, 64, 96) and images.dtype == torch.float32
    for image, (height, width) in zip(images, truth.sizes, strict=True):
        outside = torch.ones(64, 96, dtype=torch.bool)
        outside[:height, :width] = False
        assert torch.equal(image[:, outside], torch.tensor(COLOUR)[:, None].expand(3, int(outside.sum())))
    ((images, _),) = in_order(mixed(), batch=7, divisor=1)
    assert images.shape == (7, 3, 64, 90)


def test_an_image_without_boxes_is_kept() -> None:
    ((_, truth),) = Batches(mixed(), batch=7, seed=0).epoch(0)
    empty = truth.ids.index(100)
    assert truth.boxes[empty].shape == (0, 4) and truth.labels[empty].shape == (0,)
    assert sum(len(boxes) for boxes in truth.boxes) == 6


def test_mirroring_moves_boxes_with_their_pixels() -> None:
    ((images, truth),) = Batches(mixed(), batch=7, seed=0, flip=1.0).epoch(0)
    for image, boxes, identity, (_, width) in zip(images, truth.boxes, truth.ids, truth.sizes, strict=True):
        green = (image[1, 0, :width] * 255).round().int().tolist()
        assert green == list(range(width))[::-1]
        if identity != 100:
            assert boxes.tolist() == [[width - 12, 2, width - 4, 8]]
            # The pixels inside the box are the same ones as before.
            assert green[width - 12 : width - 4] == [11, 10, 9, 8, 7, 6, 5, 4]


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.integers(1, 1000), st.integers(1000, 2000))
def test_resizing_keeps_the_ratio_within_short_and_long_side(size: tuple[int, int], short: int, most: int) -> None:
    new = resized(size, short, most)
    scale = min(short / min(size), most / max(size))
    assert all(abs(a - b * scale) <= 0.5 + 1e-6 or a == 1 for a, b in zip(new, size, strict=True))
    assert min(new) <= max(1, short) and max(new) <= max(1, most)


def test_the_fields_usual_resize_gives_its_usual_sizes() -> None:
    assert resized((480, 640), 800, 1333) == (800, 1067)
    assert resized((427, 640), 800, 1333) == (800, 1199)
    assert resized((200, 640), 800, 1333) == (417, 1333)


def test_resizing_scales_boxes_and_says_by_how_much() -> None:
    ((images, truth),) = in_order(mixed(), batch=7, resize=Resize(short=60, long=100))
    for index, (boxes, (x, y), size) in enumerate(zip(truth.boxes, truth.scales, truth.sizes, strict=True)):
        height, width = SIZES[index]
        assert size == resized((height, width), 60, 100)
        assert (x * width, y * height) == pytest.approx((size[1], size[0]))
        assert torch.allclose(boxes / torch.tensor([x, y, x, y]), mixed().boxes(index))
        inside = images[index, 0, : size[0], : size[1]]
        assert torch.allclose(inside, torch.full_like(inside, index / 255))


def test_a_resized_and_mirrored_box_still_holds_its_object() -> None:
    digits = Digits(train=8, val=1).train
    ((images, truth),) = Batches(digits, batch=8, seed=0, flip=1.0, resize=Resize(short=128, long=128)).epoch(0)
    for image, boxes, identity in zip(images, truth.boxes, truth.ids, strict=True):
        small = digits.read(identity - 1).float() / 255
        for box, old in zip(boxes.int().tolist(), digits.boxes(identity - 1).int().tolist(), strict=True):
            new_mean = image[:, box[1] : box[3], box[0] : box[2]].mean((1, 2))
            old_mean = small[:, old[1] : old[3], old[0] : old[2]].mean((1, 2))
            assert torch.allclose(new_mean, old_mean, atol=0.02)


def outlined() -> Split:
    """The images of `mixed`, each object with the mask of the lower left half of its box."""
    coco = mixed().coco
    for row in coco["annotations"]:
        height, width = SIZES[row["id"]]
        mask = torch.zeros(height, width, dtype=torch.bool)
        x, y, w, h = row["bbox"]
        mask[y : y + h, x : x + w] = torch.ones(h, w).tril().bool()
        row["segmentation"] = encode(mask.numpy())
    return Split(coco, classes_of(coco), read, lambda: packed(coco["annotations"]))


def test_masks_are_there_only_if_wanted_and_if_the_data_has_them() -> None:
    for batches in (Batches(outlined(), batch=7, seed=0), Batches(mixed(), batch=7, seed=0, masks=True)):
        ((_, truth),) = batches.epoch(0)
        assert truth.masks is None
    ((_, truth),) = in_order(outlined(), batch=7)
    assert truth.masks is None


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_masks_are_mirrored_and_padded_with_their_image(flip: float) -> None:
    ((images, truth),) = Batches(outlined(), batch=7, seed=0, flip=flip, masks=True).epoch(0)
    assert truth.masks is not None and len(truth.masks) == 7
    for masks, image, boxes, identity, (_, width) in zip(
        truth.masks, images, truth.boxes, truth.ids, truth.sizes, strict=True
    ):
        assert masks.shape == (len(boxes), 64, 96) and masks.dtype == torch.bool
        for mask in masks:
            wanted = {(2 + i, 4 + j) for i in range(6) for j in range(8) if j <= i}
            # Green says which column a pixel came from.
            came_from = (image[1] * 255).round().int()
            assert {(y, int(came_from[y, x])) for y, x in mask.nonzero().tolist()} == wanted
            assert mask.nonzero()[:, 1].max() < width
        assert identity != 100 or len(masks) == 0


@pytest.mark.parametrize("resize", [(60, 100), (20, 30), (10, 13)])
def test_masks_are_resized_to_what_the_image_shows_at_the_middle_of_each_pixel(resize: tuple[int, int]) -> None:
    split = outlined()
    ((images, truth),) = Batches(
        split, batch=7, seed=0, flip=1.0, resize=Resize(short=resize[0], long=resize[1]), masks=True
    ).epoch(0)
    assert truth.masks is not None
    for masks, identity, (height, width) in zip(truth.masks, truth.ids, truth.sizes, strict=True):
        before = split.masks(identity - 100)
        assert before is not None and len(before) == len(masks)
        assert masks.shape[1:] == images.shape[2:]
        for old, new in zip(before, masks, strict=True):
            for y in range(height):
                for x in range(width):
                    from_y, from_x = (y + 0.5) * old.shape[0] / height, (x + 0.5) * old.shape[1] / width
                    if min(abs(from_y - round(from_y)), abs(from_x - round(from_x))) > 1e-4:  # else rounding decides
                        assert new[y, width - 1 - x] == old[int(from_y), int(from_x)]
            assert new.sum() == new[:height, :width].sum()


def test_workers_and_loader_processes_see_the_same_masks() -> None:
    options = {"batch": 4, "seed": 1, "flip": 0.5, "resize": Resize(short=24, long=40), "masks": True}
    whole = list(Batches(outlined(), **options).epoch(2))
    for rank in range(2):
        mine = list(Batches(outlined(), **options, rank=rank, world=2, loader_workers=1).epoch(2))
        for (_, one), (_, other) in zip(whole, mine, strict=True):
            assert one.masks is not None and other.masks is not None
            assert all(torch.equal(a, b) for a, b in zip(one.masks[rank::2], other.masks, strict=True))


def broken(index: int) -> Tensor:
    raise Invalid("cannot read the image broken.png")


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_a_broken_image_is_a_mistake_of_the_users_in_any_process(loader_workers: int) -> None:
    with pytest.raises(Invalid, match=r"broken\.png"):
        list(in_order(mixed(broken), batch=1, loader_workers=loader_workers))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 10_000))
def test_any_seed_and_epoch_give_a_permutation(seed: int, epoch: int) -> None:
    (only,) = ids(Batches(mixed(), batch=7, seed=seed), epoch)
    assert sorted(only) == list(range(100, 107))
