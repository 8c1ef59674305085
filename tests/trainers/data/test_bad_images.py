"""In training a bad image is named once and replaced, up to a limit; in measuring it is an error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.trainers.data.test_augmented_batches import EVERYTHING
from tests.trainers.data.test_batches import SIZES, mixed, read, same
from tests.trainers.stages import CPU, stage
from trainers.call import Call, Invalid
from trainers.data import COCO, Digits, digits
from trainers.data.batches import Batches, in_order
from trainers.order import Order
from trainers.worker import work


def failing(*bad: int) -> Callable[[int], Tensor]:
    def reader(index: int) -> Tensor:
        if index in bad:
            raise Invalid(f"cannot read the image {index}.png")
        return read(index)

    return reader


def batches(*bad: int, said: list[str] | None = None, **options: Any) -> Batches:
    facts = {"batch": 3, "seed": 0, "bad_images": 3, "divisor": 16, **options}
    return Batches(mixed(failing(*bad)), say=[].append if said is None else said.append, **facts)


def test_a_bad_image_is_named_once_and_the_next_that_fits_takes_its_place() -> None:
    said: list[str] = []
    one = batches(0, said=said)
    good = Batches(mixed(), batch=3, seed=0, divisor=16)
    for epoch in range(3):
        for (images, truth), (whole, wanted) in zip(one.epoch(epoch), good.epoch(epoch), strict=True):
            assert images.shape == whole.shape  # the canvas is the one that it would have been
            for place, (identity, instead) in enumerate(zip(wanted.ids, truth.ids, strict=True)):
                if identity != 100:
                    assert instead == identity and torch.equal(images[place], whole[place])
                    continue
                # The next in the split's order, unless it is larger than the canvas.
                fits = [i for i in range(1, 7) if all(a <= b for a, b in zip(SIZES[i], images.shape[2:], strict=True))]
                assert instead == 100 + fits[0]
                height, width = truth.sizes[place]
                assert (height, width) == SIZES[fits[0]] and len(truth.boxes[place]) == 1
                assert torch.equal(images[place, :, :height, :width], read(fits[0]) / 255)
    assert len(said) == 1 and said[0].startswith("image 100 is left out, image 10")
    assert said[0].endswith("takes its place: cannot read the image 0.png")


@pytest.mark.parametrize("loader_workers", [1, 2, 3])
def test_the_number_of_loader_processes_changes_neither_the_replacement_nor_what_is_said(loader_workers: int) -> None:
    here: list[str] = []
    there: list[str] = []
    one = batches(1, 2, 5, said=here, **EVERYTHING)
    other = batches(1, 2, 5, said=there, loader_workers=loader_workers, **EVERYTHING)
    for epoch in range(2):
        assert same(list(one.epoch(epoch)), list(other.epoch(epoch)))
    assert here == there and len(here) == 3


def test_workers_replace_what_one_would_replace() -> None:
    whole = list(batches(2, 3, **EVERYTHING).epoch(1))
    for rank in range(2):
        mine = batches(2, 3, rank=rank, world=2, **EVERYTHING).epoch(1)
        for (images, truth), (part, said) in zip(whole, mine, strict=True):
            assert torch.equal(part, images[rank::2]) and said.ids == truth.ids[rank::2]


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_more_bad_images_than_the_limit_end_the_training_with_a_list(loader_workers: int) -> None:
    said: list[str] = []
    with pytest.raises(Invalid, match=r"3 training images cannot be read, and resources.bad_images is 2\. ") as caught:
        list(batches(1, 4, 6, said=said, bad_images=2, loader_workers=loader_workers).epoch(0))
    assert all(f"image {100 + i}: cannot read the image {i}.png" in str(caught.value) for i in (1, 4, 6))
    assert len(said) == len(set(said)) <= 3


def test_the_limit_counts_over_all_epochs_but_an_image_once() -> None:
    one = batches(1, 4, bad_images=2)
    for epoch in range(4):
        list(one.epoch(epoch))
    assert set(one.bad) == {101, 104}
    # An image that goes bad later is one too many.
    one.split = mixed(failing(1, 4, 6))
    with pytest.raises(Invalid, match="3 training images"):
        list(one.epoch(4))


def test_a_limit_of_none_makes_the_first_bad_image_an_error() -> None:
    with pytest.raises(Invalid, match=r"1 training image cannot be read.*image 103: cannot read the image 3\.png"):
        list(batches(3, bad_images=0).epoch(0))


def test_a_folder_without_any_image_ends_at_once_instead_of_looking_at_each() -> None:
    tried: list[int] = []

    def reader(index: int) -> Tensor:
        tried.append(index)
        raise Invalid(f"cannot read the image {index}.png")

    with pytest.raises(Invalid, match="3 training images"):
        list(Batches(mixed(reader), batch=1, seed=0, bad_images=2).epoch(0))
    assert len(tried) == 3


def test_a_bad_image_in_whose_place_no_other_fits_is_an_error_that_names_it() -> None:
    # Alone in its batch, the lowest of all has a canvas on which nothing else can lie.
    with pytest.raises(Invalid, match=r"cannot read the image 4\.png; no other image of the split fits in its place"):
        list(Batches(mixed(failing(4)), batch=1, seed=0, bad_images=3, divisor=1).epoch(0))


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_in_measuring_a_bad_image_is_an_error(loader_workers: int) -> None:
    with pytest.raises(Invalid, match=r"^cannot read the image 3\.png$"):
        list(in_order(mixed(failing(3)), batch=2, loader_workers=loader_workers))


def damaged(folder: Path) -> Call:
    """Digits as a COCO folder, of whose training images one is truncated, one is too small and one is gone.

    They go bad after the data set was opened: a file that is missing from the start is refused before training.
    """
    digits.write(Digits(classes=2, train=32, val=16, size=32), folder)
    found = COCO(root=str(folder))
    names = [folder / "train2017" / image["file_name"] for image in found.train.coco["images"]]
    names[3].write_bytes(names[3].read_bytes()[:200])
    Image.new("RGB", (16, 16)).save(names[7])
    names[11].unlink()
    return Call(name="COCO", args={"root": str(folder)})


def test_a_stage_says_which_images_it_left_out_and_ends_well(tmp_path: Path) -> None:
    data = damaged(tmp_path / "data")
    said: list[str] = []
    order = Order(stage=stage(resize=(24, 48)), data=data, store=str(tmp_path / "store"), loader_workers=1)
    result = work(order, device=CPU, say=said.append)
    assert result.score >= 0
    assert sorted(text.split(",")[0] for text in said) == [f"image {i} is left out" for i in (12, 4, 8)]
    reasons = " ".join(said)
    assert "has 16 x 16 pixels, its annotations say 32 x 32" in reasons and "No such file" in reasons
    assert "000004.png" in reasons
    strict = order.model_copy(update={"bad_images": 2, "store": str(tmp_path / "other")})
    with pytest.raises(Invalid, match=r"3 training images cannot be read, and resources\.bad_images is 2\."):
        work(strict, device=CPU)
