"""A COCO folder is read whatever its images are made of, and what is missing or hostile is refused."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.call import Invalid
from trainers.data import COCO, Digits
from trainers.data.images import read_image
from trainers.data.split import COCO_AP

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One training and one validation image in the layout of COCO 2017."""
    for part in ("train2017", "val2017"):
        (tmp_path / part).mkdir()
        Image.fromarray(RGB).save(tmp_path / part / "one.png")
        describe(tmp_path, part)
    return tmp_path


def describe(root: Path, part: str, **image: Any) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    coco = {
        "images": [{"id": 1, "file_name": "one.png", "width": 8, "height": 6, **image}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 4, "bbox": [1, 1, 4, 3]}],
        "categories": [{"id": 4, "name": "noise"}],
    }
    (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(coco))


def test_the_layout_of_coco_2017_needs_only_its_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = COCO(root=str(root))
    assert data.classes == ("noise",) and data.metric == COCO_AP
    assert torch.equal(data.val.read(0), torch.from_numpy(RGB).permute(2, 0, 1))
    assert data.train.boxes(0).tolist() == [[1, 1, 5, 4]]
    monkeypatch.chdir(root.parent)
    assert COCO(root=root.name).fingerprint == data.fingerprint


def test_other_names_can_be_given(root: Path) -> None:
    (root / "train2017").rename(root / "pictures")
    (root / "annotations/instances_train2017.json").rename(root / "learn.json")
    data = COCO(root=str(root), train="learn.json", train_images="pictures")
    assert len(data.train) == 1 and data.train.read(0).shape == (3, 6, 8)


def test_the_same_files_are_read_once_and_changed_ones_again(root: Path) -> None:
    one, two = COCO(root=str(root)), COCO(root=str(root))
    assert one.train is two.train
    describe(root, "train2017", license=3)
    assert COCO(root=str(root)).train is not one.train


def outlined(root: Path, segmentation: Any) -> Path:
    """The training annotations with masks."""
    path = root / "annotations/instances_train2017.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0]["segmentation"] = segmentation
    path.write_text(json.dumps(coco))
    return path


def test_masks_are_drawn_from_polygons_and_do_not_enter_the_fingerprint(root: Path) -> None:
    bare = COCO(root=str(root))
    assert bare.train.masks(0) is None
    outlined(root, [[1, 1, 5, 1, 5, 4, 1, 4]])
    data = COCO(root=str(root))
    masks = data.train.masks(0)
    assert masks is not None and masks.shape == (1, 6, 8)
    assert masks[0].nonzero().tolist() == [[y, x] for y in range(1, 4) for x in range(1, 5)]
    assert data.val.masks(0) is None
    assert "segmentation" not in data.train.coco["annotations"][0]
    assert data.fingerprint == bare.fingerprint


def test_masks_have_a_digest_of_their_own_and_broken_ones_are_listed(root: Path) -> None:
    square, corner = [[1, 1, 5, 1, 5, 4, 1, 4]], [[1, 1, 2, 1, 2, 2]]
    digests = []
    for segmentation in (square, corner, square):
        outlined(root, segmentation)
        digests.append(COCO(root=str(root)).train.masks_digest)
    assert digests[0] == digests[2] != digests[1] and len(digests[0]) == 64
    assert COCO(root=str(root)).val.masks_digest == ""
    outlined(root, [[1, 2, 3]])
    with pytest.raises(Invalid, match="annotation 1 of image 1: its segmentation is no mask of 8 x 6 pixels"):
        _ = COCO(root=str(root)).train.masks_digest


@pytest.mark.parametrize("change", [lambda path: path.write_text(path.read_text() + " "), Path.unlink])
def test_a_file_that_changed_before_its_masks_were_read_is_refused(root: Path, change: Any) -> None:
    path = outlined(root, [[1, 1, 5, 1, 5, 4, 1, 4]])
    data = COCO(root=str(root))
    change(path)
    with pytest.raises(Invalid, match=r"instances_train2017\.json changed while it was in use"):
        data.train.masks(0)


def test_what_is_missing_is_named_with_what_would_do(root: Path) -> None:
    with pytest.raises(Invalid, match=r"no folder .*nowhere"):
        COCO(root=str(root / "nowhere"))
    with pytest.raises(Invalid, match=r"no annotation file .*other\.json; name it by `val`"):
        COCO(root=str(root), val="other.json")
    with pytest.raises(Invalid, match=r"no folder of images .*elsewhere; name it by `train_images`"):
        COCO(root=str(root), train_images="elsewhere")


def test_images_that_do_not_exist_are_named_before_anything_starts(root: Path) -> None:
    describe(root, "train2017", file_name="sub/two.png")
    with pytest.raises(Invalid, match=r"instances_train2017\.json .*: sub/two\.png"):
        COCO(root=str(root))


def test_a_name_in_another_case_is_pointed_out(root: Path) -> None:
    describe(root, "train2017", file_name="ONE.png")
    with pytest.raises(Invalid, match=r"ONE\.png \(there is one\.png\)"):
        COCO(root=str(root))


def test_a_hostile_name_is_refused_even_if_the_file_exists(root: Path) -> None:
    for name in ("../val2017/one.png", str(root / "val2017" / "one.png")):
        describe(root, "train2017", file_name=name)
        with pytest.raises(Invalid, match=r"image 1: .*leaves the folder"):
            COCO(root=str(root))


def test_a_validation_set_with_nothing_to_find_is_refused(root: Path) -> None:
    path = root / "annotations/instances_val2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    with pytest.raises(Invalid, match="no object to measure on"):
        COCO(root=str(root))


def with_three_classes(root: Path) -> None:
    """Two images a split, the second without a plate; category ids fall while names rise."""
    for part in ("train2017", "val2017"):
        Image.fromarray(RGB[::-1]).save(root / part / "two.png")
        names = {3: "two", 1: "one"}
        images = [{"id": n, "file_name": f"{name}.png", "width": 8, "height": 6} for n, name in names.items()]
        boxes = [(1, 9, [1, 1, 4, 3]), (1, 5, [0, 0, 2, 2]), (1, 2, [2, 2, 3, 3]), (3, 9, [1, 2, 4, 3])]
        coco = {
            "images": images,
            "annotations": [
                {"id": n, "image_id": image, "category_id": category, "bbox": bbox, "segmentation": outline(bbox)}
                for n, (image, category, bbox) in enumerate(boxes, start=1)
            ],
            "categories": [{"id": 9, "name": "apple"}, {"id": 5, "name": "plate"}, {"id": 2, "name": "table"}],
        }
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(coco))


def outline(bbox: list[int]) -> list[list[int]]:
    x, y, w, h = bbox
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_some_classes_can_be_chosen_and_their_labels_follow_the_ids_of_the_categories(root: Path) -> None:
    with_three_classes(root)
    assert COCO(root=str(root)).classes == ("table", "plate", "apple")
    data = COCO(root=str(root), classes=["apple", "table"])
    assert data.classes == ("table", "apple")
    assert data.train.labels(0).tolist() == [0, 1] and data.train.labels(1).tolist() == [1]
    assert data.train.boxes(0).tolist() == [[2, 2, 5, 5], [1, 1, 5, 4]]
    assert data.train.masks(0)[1].nonzero().tolist() == [[y, x] for y in range(1, 4) for x in range(1, 5)]
    assert data.fingerprint == COCO(root=str(root), classes=["table", "apple"]).fingerprint
    assert data.fingerprint != COCO(root=str(root)).fingerprint


def test_a_class_that_is_not_there_is_refused_with_what_may_be_meant(root: Path) -> None:
    with_three_classes(root)
    with pytest.raises(Invalid, match=r"instances_train2017\.json: aple is not one of .*; did you mean apple\?"):
        COCO(root=str(root), classes=["aple"])
    for wrong in ([], ["apple", "apple"]):
        with pytest.raises(Invalid, match="one or more names, each once"):
            COCO(root=str(root), classes=wrong)


def test_training_images_without_objects_can_be_dropped_and_validation_keeps_them(root: Path) -> None:
    with_three_classes(root)
    kept = COCO(root=str(root), classes=["plate"])
    data = COCO(root=str(root), classes=["plate"], empty="drop")
    assert (len(kept.train), len(kept.val)) == (2, 2) and (data.train.ids, data.val.ids) == ([1], [1, 3])
    assert torch.equal(data.train.read(0), kept.train.read(0)) and torch.equal(data.train.boxes(0), kept.train.boxes(0))
    assert data.train.has_masks and torch.equal(data.train.masks(0), kept.train.masks(0))
    assert data.fingerprint != kept.fingerprint
    everywhere = COCO(root=str(root), classes=["apple"], empty="drop")
    assert everywhere.fingerprint == COCO(root=str(root), classes=["apple"]).fingerprint


def test_what_is_dropped_follows_the_second_image_too(root: Path) -> None:
    with_three_classes(root)
    path = root / "annotations/instances_train2017.json"
    coco = json.loads(path.read_text())
    coco["annotations"] = [row | {"iscrowd": int(row["image_id"] == 1)} for row in coco["annotations"]]
    path.write_text(json.dumps(coco))
    data = COCO(root=str(root), empty="drop")  # crowds are nothing to learn
    assert data.train.ids == [3] and torch.equal(data.train.read(0), COCO(root=str(root)).train.read(1))
    coco["annotations"] = []
    path.write_text(json.dumps(coco))
    with pytest.raises(Invalid, match="no training image has an object to learn"):
        COCO(root=str(root), empty="drop")


def test_the_classes_are_known_without_a_file() -> None:
    assert len(COCO.names()) == 80 and COCO.names()[0] == "person" and COCO.names()[79] == "toothbrush"
    assert COCO.names(root="/nowhere", classes=["mine", "dog", "person"]) == ("person", "dog", "mine")
    assert Digits.names(classes=2, train=5) == Digits(classes=2, train=1, val=1).classes


def saved(path: Path, image: Image.Image, **options: Any) -> torch.Tensor:
    image.save(path, **options)
    return read_image(path, size=image.size)


def test_grey_becomes_three_equal_colours(tmp_path: Path) -> None:
    grey = saved(tmp_path / "x.png", Image.fromarray(RGB[..., 0]))
    assert torch.equal(grey, torch.from_numpy(RGB[..., 0]).expand(3, 6, 8))


def test_whole_numbers_of_32_bits_that_would_fit_into_eight_are_read_as_these(tmp_path: Path) -> None:
    for most, seen in ((200, 200), (200 << 8, 200)):
        pixels = np.full((6, 8), most, dtype=np.int32)
        Image.fromarray(pixels).save(tmp_path / "x.tiff")
        assert read_image(tmp_path / "x.tiff", size=(8, 6)).unique().tolist() == [seen]


def test_a_pipe_in_place_of_an_image_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(Invalid, match=r"cannot read the image .*x\.png: it is no file"):
        read_image(tmp_path / "x.png", size=(8, 6))


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    deep = np.array([[0, 255, 256, 30_000, 65_535]], dtype=np.uint16)
    for suffix in ("png", "tif"):
        read = saved(tmp_path / f"x.{suffix}", Image.fromarray(deep))
        assert read[:, 0].tolist() == [[0, 0, 1, 117, 255]] * 3


def test_palettes_alpha_and_single_bits_are_drawn_in_colour(tmp_path: Path) -> None:
    few = Image.fromarray(RGB // 128 * 255)
    want = torch.from_numpy(np.array(few)).permute(2, 0, 1)
    assert torch.equal(saved(tmp_path / "p.png", few.quantize(8)), want)
    assert torch.equal(saved(tmp_path / "a.png", few.convert("RGBA")), want)
    assert set(saved(tmp_path / "1.png", few.convert("1")).unique().tolist()) <= {0, 255}


def test_cmyk_jpegs_come_out_in_their_own_colours(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 30))
    read = saved(tmp_path / "x.jpg", red.convert("CMYK"), quality=95).float().mean((1, 2))
    assert (read - torch.tensor([200.0, 30, 30])).abs().max() < 6


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    black, white = Image.new("L", (4, 4), 0), Image.new("L", (4, 4), 255)
    assert saved(tmp_path / "x.gif", black, save_all=True, append_images=[white]).max() == 0


def test_an_extension_that_lies_and_a_single_pixel_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (1, 1), (1, 2, 3)).save(path, format="PNG")
    assert read_image(path, size=(1, 1)).flatten().tolist() == [1, 2, 3]


def test_exif_turns_an_image_only_if_its_annotations_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a viewer turns the picture clockwise
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path, exif=exif)
    stored = torch.from_numpy(RGB).permute(2, 0, 1)
    assert torch.equal(read_image(path, size=(8, 6)), stored)
    assert torch.equal(read_image(path, size=(6, 8)), stored.rot90(-1, (1, 2)))


def test_another_size_than_annotated_is_refused_even_if_the_sides_are_swapped(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path)
    for size in ((9, 6), (6, 8)):
        with pytest.raises(Invalid, match=r"x\.png has 8 x 6 pixels, its annotations say"):
            read_image(path, size=size)


def png_with_bad_checksum() -> bytes:
    raw = io.BytesIO()
    Image.fromarray(RGB).save(raw, "PNG")
    data = bytearray(raw.getvalue())
    data[data.index(b"IDAT") + 6] ^= 0xFF
    return bytes(data)


def truncated_jpeg() -> bytes:
    raw = io.BytesIO()
    Image.fromarray(RGB).save(raw, "JPEG")
    return raw.getvalue()[:-20]


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in its header and none in its body."""
    raw = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(raw, "PNG")
    return raw.getvalue()[:200]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n",
        png_with_bad_checksum(),
        truncated_jpeg(),
        bomb(),
    ],
)
def test_a_broken_image_is_refused_by_name(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(raw)
    with pytest.raises(Invalid, match=r"broken\.png"):
        read_image(path, size=(8, 6))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm"])
def test_noise_in_a_file_never_ends_in_anything_but_pixels_or_a_refusal(tmp_path: Path, suffix: str) -> None:
    path, rng = tmp_path / f"x.{suffix}", np.random.default_rng(0)
    Image.fromarray(RGB).save(path)
    good = path.read_bytes()
    for _ in range(60):
        bad = np.frombuffer(good, dtype=np.uint8).copy()
        bad[rng.integers(0, len(bad), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(bad.tobytes()[: rng.integers(1, 2 * len(bad))])
        try:
            assert read_image(path, size=(8, 6)).shape == (3, 6, 8)
        except Invalid as error:
            assert path.name in str(error)


def test_a_file_without_permission_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    Image.fromarray(RGB).save(path)
    path.chmod(0)
    if not os.access(path, os.R_OK):  # the administrator may read everything
        with pytest.raises(Invalid, match=r"secret\.png"):
            read_image(path, size=(8, 6))
