"""With every augmentation at once a batch is the same whoever makes it, and a training goes on as it was."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.trainers.data.test_batches import SIZES, mixed, outlined, read, same
from tests.trainers.stages import CPU, model
from tests.trainers.trainings import identical
from trainers import build
from trainers.augment import Crop, OneOf, Resize
from trainers.data.batches import Batches, in_order
from trainers.data.canvases import Canvases
from trainers.data.split import Split
from trainers.loop import Training
from trainers.spec import Recipe
from trainers.task import Task
from trainers.teaching import no_lesson

EVERYTHING: dict[str, Any] = {
    "flip": 0.5,
    "resize": Resize(short=OneOf(one_of=[24, 32, 40]), long=90),
    "crop": Crop(short=(20, 40), size=(12, 30)),
    "group": True,
}


def batches(split: Split | None = None, **changes: Any) -> Batches:
    options = {"batch": 3, "seed": 4, "masks": True, "divisor": 16, **EVERYTHING, **changes}
    return Batches(split or outlined(), **options)


def masked(one: Batches, epoch: int) -> list[Any]:
    return [(images, truth.masks) for images, truth in one.epoch(epoch)]


@pytest.mark.parametrize("loader_workers", [1, 2, 3])
def test_any_number_of_loader_processes_makes_the_same_batches(loader_workers: int) -> None:
    here, there = batches(), batches(loader_workers=loader_workers)
    for epoch in (0, 5):
        assert same(list(here.epoch(epoch)), list(there.epoch(epoch)))
        assert identical(masked(here, epoch), masked(there, epoch))


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_workers_shares_the_same_batches(world: int) -> None:
    whole = list(batches().epoch(1))
    for rank in range(world):
        for (images, truth), (mine, said) in zip(
            whole, batches(rank=rank, world=world, loader_workers=rank).epoch(1), strict=True
        ):
            assert torch.equal(mine, images[rank::world]) and said.ids == truth.ids[rank::world]
            assert said.scales == truth.scales[rank::world] and said.sizes == truth.sizes[rank::world]
            assert identical(said.boxes, truth.boxes[rank::world]) and identical(said.masks, truth.masks[rank::world])


def crowded() -> Split:
    """As `outlined`, and in each image but the first a crowd of 8 x 10 right below the object."""
    split = outlined()
    rows = [dict(row) for row in split.coco["annotations"]]
    crowds = [{**row, "id": 100 + row["id"], "bbox": [4, 8, 8, 10], "iscrowd": 1} for row in rows]
    return replace(split, coco=split.coco | {"annotations": crowds + rows})


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_what_is_to_be_ignored_goes_through_the_view_with_its_image_whoever_makes_the_batch(
    loader_workers: int,
) -> None:
    plain, made = batches(), batches(crowded(), ignore=True, loader_workers=loader_workers)
    found = 0
    for epoch in range(3):
        for (images, truth), (same_images, more) in zip(plain.epoch(epoch), made.epoch(epoch), strict=True):
            assert torch.equal(images, same_images) and identical(truth.boxes, more.boxes)
            assert identical(truth.masks, more.masks) and more.ignored is not None
            for boxes, crowds in zip(more.boxes, more.ignored, strict=True):
                if len(boxes) and len(crowds):
                    found += 1
                    # Its upper edge is the object's lower one, and a cut never moves what it leaves.
                    torch.testing.assert_close(crowds[0, [0, 2, 1]], boxes[0, [0, 2, 3]], rtol=0, atol=1e-3)
    assert found > 10


def test_nothing_is_ignored_unless_the_recipe_and_the_data_have_it() -> None:
    assert all(truth.ignored is None for _, truth in batches(crowded(), ignore=False).epoch(0))
    assert all(truth.ignored is None for _, truth in batches(outlined(), ignore=True).epoch(0))


@pytest.mark.parametrize("world", [2])
def test_the_workers_of_a_stage_share_what_is_to_be_ignored(world: int) -> None:
    whole = list(batches(crowded(), ignore=True).epoch(1))
    for rank in range(world):
        mine = batches(crowded(), ignore=True, rank=rank, world=world).epoch(1)
        for (_, truth), (_, part) in zip(whole, mine, strict=True):
            assert truth.ignored is not None and identical(part.ignored, truth.ignored[rank::world])


def test_augmentations_do_what_they_say_over_many_epochs() -> None:
    one = batches()
    shorts, cuts = set(), 0
    for epoch in range(30):
        for images, truth in one.epoch(epoch):
            assert images.shape[2] % 16 == 0 and images.shape[3] % 16 == 0
            wide = {SIZES[identity - 100][1] > SIZES[identity - 100][0] for identity in truth.ids}
            assert len(wide) == 1
            for image, size, identity, scale in zip(images, truth.sizes, truth.ids, truth.scales, strict=True):
                shorts.add(min(size))
                cuts += abs(scale[0] * SIZES[identity - 100][1] - size[1]) > 1
                # Red says which image it is.
                assert (image[0, : size[0], : size[1]] * 255).round().unique().tolist() == [identity - 100]
    assert {24, 32, 40} <= shorts
    assert cuts > 50


def test_what_is_drawn_changes_with_the_epoch_and_with_the_seed() -> None:
    drawn = {str([truth.sizes for _, truth in batches(seed=seed).epoch(n)]) for seed in (0, 1) for n in (0, 1)}
    assert len(drawn) == 4


def test_measuring_sees_whole_images_of_the_largest_size() -> None:
    alone = Resize(short=40, long=90)
    assert same(
        list(in_order(mixed(), batch=3, resize=EVERYTHING["resize"])), list(in_order(mixed(), batch=3, resize=alone))
    )


def test_a_box_that_is_cut_away_leaves_neither_label_nor_mask() -> None:
    fewer = 0
    for epoch in range(20):
        for _, truth in batches().epoch(epoch):
            assert truth.masks is not None
            for boxes, labels, masks, identity in zip(truth.boxes, truth.labels, truth.masks, truth.ids, strict=True):
                assert len(boxes) == len(labels) == len(masks)
                fewer += identity != 100 and not len(boxes)
    assert fewer > 0


def test_a_training_that_was_interrupted_draws_what_it_would_have_drawn() -> None:
    recipe = Recipe(epochs=3, batch=3, warmup=0, **EVERYTHING)

    def fresh() -> Training:
        torch.manual_seed(0)
        data = mixed(lambda index: read(index).float().mul(2).clamp(max=255).to(torch.uint8))
        return Training(Task(build.network(model(), 1), {}), recipe, batches(data), device=CPU)

    straight = fresh()
    metrics = [epoch.metrics["train/loss"] for epoch in straight.epochs(no_lesson)]
    first = fresh()
    state = next(first.epochs(no_lesson)).state
    second = fresh()
    second.restore(state)
    assert [epoch.metrics["train/loss"] for epoch in second.epochs(no_lesson)] == metrics[1:]
    assert identical(second.task.state_dict(), straight.task.state_dict())


def test_batches_that_are_kept_keep_what_is_in_them() -> None:
    kept, copies = [], []
    for images, _ in batches().epoch(0):
        kept.append(images)
        copies.append(images.clone())
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_the_memory_of_a_batch_is_used_again_once_nobody_holds_it_or_a_part_of_it() -> None:
    canvases = Canvases()
    first = canvases.empty((2, 3, 4, 4))
    place, part = first.data_ptr(), first[1, :, 2:]
    part.fill_(7)
    del first
    second = canvases.empty((2, 3, 4, 4))
    second.fill_(0)
    assert second.data_ptr() != place and (part == 7).all()
    del part
    again = canvases.empty((1, 3, 4, 4))
    assert again.data_ptr() == place and again.shape == (1, 3, 4, 4)
    larger = canvases.empty((3, 3, 4, 4))
    assert larger.data_ptr() not in (place, second.data_ptr()) and len(canvases.kept) == 2
