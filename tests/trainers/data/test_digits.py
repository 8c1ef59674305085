"""The demo set is drawn the same everywhere, its boxes are tight, and it can be written as a COCO folder."""

from pathlib import Path

import numpy as np
import pytest
import torch

import trainers.data
from trainers.call import Call, Invalid
from trainers.data import COCO, Digits
from trainers.data import digits as drawing
from trainers.data.digits import write


def pixels(split: trainers.data.split.Split) -> torch.Tensor:
    return torch.stack([split.read(index) for index in range(len(split))])


def test_a_study_can_ask_for_it_by_name_and_gets_every_default() -> None:
    call = Call(name="Digits").complete(trainers.data)
    assert call.args == {
        "classes": 3,
        "train": 600,
        "val": 200,
        "size": 64,
        "seed": 0,
        "test": 0,
        "metric": {"CocoAP": {"score": "AP"}},
    }


@pytest.mark.parametrize("wrong", [{"classes": 11}, {"classes": 0}, {"train": 0}, {"size": 16}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(Invalid, match=next(iter(wrong))):
        Call(name="Digits", args=wrong).complete(trainers.data)


def test_the_default_set_has_the_stated_size_and_only_its_classes() -> None:
    digits = Digits()
    assert (len(digits.train), len(digits.val), digits.classes) == (600, 200, ("zero", "one", "two"))
    image = digits.train.read(0)
    assert image.shape == (3, 64, 64) and image.dtype == torch.uint8
    counts = torch.bincount(torch.cat([digits.train.labels(index) for index in range(600)]))
    assert counts.shape == (3,) and counts.min() > 250


def test_the_same_arguments_draw_the_same_scenes_even_in_a_fresh_process() -> None:
    one = Digits(train=5, val=3)
    drawing._draw.cache_clear()
    two = Digits(train=5, val=3)
    assert one.train is not two.train and one.fingerprint == two.fingerprint
    assert torch.equal(pixels(one.train), pixels(two.train)) and torch.equal(pixels(one.val), pixels(two.val))


def test_a_scene_does_not_depend_on_how_many_there_are() -> None:
    few, many = Digits(train=3, val=2), Digits(train=9, val=4)
    assert torch.equal(pixels(few.train), pixels(many.train)[:3])
    assert torch.equal(pixels(few.val), pixels(many.val)[:2])
    assert all(torch.equal(few.train.boxes(index), many.train.boxes(index)) for index in range(3))


def test_seed_size_classes_and_drawing_are_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [{}, {"seed": 1}, {"size": 96}, {"classes": 4}, {"train": 5}, {"val": 3}]
    prints = [Digits(**{"train": 4, "val": 2, **more}).fingerprint for more in settings]
    drawing._draw.cache_clear()
    monkeypatch.setattr(drawing, "VERSION", 2)
    prints.append(Digits(train=4, val=2).fingerprint)
    drawing._draw.cache_clear()
    assert len(set(prints)) == len(settings) + 1


def test_training_and_validation_share_no_handwriting() -> None:
    for train, val in drawing._handwriting(10, 0):
        assert len(val) >= 40 and len(train) >= 130
        # Two people can write the very same 8 x 8 pixels, so samples are told apart by their number.
        assert len(train) + len(val) in range(174, 184)
        assert {sample.tobytes() for sample in train}.isdisjoint({sample.tobytes() for sample in val})


def test_training_and_validation_are_different_scenes() -> None:
    digits = Digits(train=5, val=5)
    assert not any(torch.equal(a, b) for a in pixels(digits.train) for b in pixels(digits.val))


@pytest.mark.parametrize("size", [32, 64, 256])
def test_the_box_holds_all_ink_that_is_seen_and_touches_it_on_every_side(size: int) -> None:
    (train, _), rng = drawing._handwriting(1, 0)[0], np.random.default_rng(0)
    for _ in range(50):
        ink, (x1, y1, x2, y2) = drawing._digit(rng, train, size)
        seen = ink >= drawing.INK
        inside = seen[y1:y2, x1:x2]
        assert inside.sum() == seen.sum()
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        assert 14 / 64 * size * 0.7 < y2 - y1 < 38 / 64 * size * 1.15


def test_a_box_stands_out_from_its_background() -> None:
    digits = Digits(train=50, val=1)
    for index in range(50):
        image = digits.train.read(index).float().mean(0)
        covered = torch.zeros(64, 64, dtype=torch.bool)
        for x1, y1, x2, y2 in digits.train.boxes(index).int().tolist():
            covered[y1:y2, x1:x2] = True
        assert image[covered].max() > image[~covered].median() + 40


def test_scenes_hold_one_to_three_digits_that_hardly_overlap_and_lie_inside() -> None:
    digits = Digits(train=100, val=1)
    for index in range(100):
        boxes = digits.train.boxes(index).tolist()
        assert 1 <= len(boxes) <= 3
        assert all(0 <= x1 < x2 <= 64 and 0 <= y1 < y2 <= 64 for x1, y1, x2, y2 in boxes)
        pairs = [(a, b) for a in boxes for b in boxes if a != b]
        assert all(drawing._shared(a, b) <= drawing.OVERLAP for a, b in pairs)


def masks(split: trainers.data.split.Split, index: int) -> torch.Tensor:
    found = split.masks(index)
    assert found is not None
    return found


def test_a_mask_touches_its_box_on_every_side_and_lies_on_bright_pixels() -> None:
    digits = Digits(train=60, val=1)
    inside, outside = [], []
    for index in range(60):
        image = digits.train.read(index).float().mean(0)
        for mask, (x1, y1, x2, y2) in zip(
            masks(digits.train, index), digits.train.boxes(index).int().tolist(), strict=True
        ):
            assert drawing._around(mask.numpy()) == (x1, y1, x2, y2)
            hole = ~mask[y1:y2, x1:x2]
            window = image[y1:y2, x1:x2]
            inside.append(window[~hole].mean())
            outside.append(window[hole].mean())
    assert torch.tensor(inside).mean() > torch.tensor(outside).mean() + 50


def test_masks_change_neither_scenes_nor_fingerprint() -> None:
    digits = Digits(train=5, val=3)
    for split in (digits.train, digits.val):
        areas = split.rows.bbox[:, 2] * split.rows.bbox[:, 3]
        assert np.array_equal(split.rows.area, areas)
    # As it was before there were masks: results that lie in a store are found by it.
    assert Digits().fingerprint == "c54a873f057fe38a6b3a919c437e9a1ad87b2140b39b48c03860a1c3142a5fe4"


def test_written_as_a_folder_it_is_the_same_data(tmp_path: Path) -> None:
    digits = Digits(train=12, val=5)
    write(digits, tmp_path / "digits")
    folder = COCO(root=str(tmp_path / "digits"))
    assert folder.fingerprint == digits.fingerprint and folder.classes == digits.classes
    for ours, theirs in ((digits.train, folder.train), (digits.val, folder.val)):
        assert ours.ids == theirs.ids and ours.sizes == theirs.sizes
        for index in range(len(ours)):
            assert torch.equal(ours.read(index), theirs.read(index))
            assert torch.equal(ours.boxes(index), theirs.boxes(index))
            assert torch.equal(ours.labels(index), theirs.labels(index))
            assert torch.equal(masks(ours, index), masks(theirs, index))


def test_writing_never_mixes_with_what_lies_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Invalid, match="not empty"):
        write(Digits(train=1, val=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
