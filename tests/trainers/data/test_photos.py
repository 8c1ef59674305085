"""Images in use are upright, as their cameras noted, or as they are stored; by pixels, for every orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tests.trainers.data.folders import turned
from trainers.call import Invalid
from trainers.data.images import TURNS, read_photo

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
ORIENTATIONS = range(1, 9)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_a_photograph_is_read_as_a_viewer_shows_it_or_as_it_is_stored(
    orientation: int, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RGB).save(path, exif=turned(orientation))
    stored, shown = pixels(Image.open(path)), pixels(ImageOps.exif_transpose(Image.open(path)))
    assert shown.shape == ((3, 8, 6) if orientation > 4 else (3, 6, 8))
    assert orientation == 1 or not torch.equal(shown, stored)
    assert torch.equal(read_photo(path), shown)
    assert torch.equal(read_photo(path, as_stored=True), stored)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_tiff_which_pillow_turns_is_turned_once_and_right(orientation: int, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    stored = Image.fromarray(RGB).convert(mode)
    stored.save(path, tiffinfo={0x0112: orientation})
    method = TURNS.get(orientation)
    assert torch.equal(read_photo(path), pixels(stored if method is None else stored.transpose(method)))
    assert read_photo(path).shape == ((3, 8, 6) if orientation > 4 else (3, 6, 8))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_sixteen_bits_are_turned_too(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(RGB[..., 0].astype(np.uint16) << 8).save(path, exif=turned(orientation))
    grey = Image.fromarray(RGB[..., 0])
    grey.getexif()[0x0112] = orientation
    assert torch.equal(read_photo(path), pixels(ImageOps.exif_transpose(grey)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0no such thing", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_a_note_that_cannot_be_read_is_none(exif: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(RGB).save(path, exif=exif)
    assert read_photo(path).shape == (3, 6, 8)


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path, exif=turned(orientation))
    assert torch.equal(read_photo(path), torch.from_numpy(RGB).permute(2, 0, 1))


def test_what_is_no_image_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(Invalid, match=r"cannot read the image .*x\.png"):
        read_photo(tmp_path / "x.png")
    with pytest.raises(Invalid, match="cannot read the image iVBOR"):
        read_photo(tmp_path / "x.png", source="iVBOR")
    Image.fromarray(RGB).save(tmp_path / "y.png")
    monkeypatch.setattr("trainers.data.images.PIXELS", 47)
    with pytest.raises(Invalid, match=r"y\.png: 8 x 6 pixels are more than 47"):
        read_photo(tmp_path / "y.png")
