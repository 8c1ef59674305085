"""An exported detector finds what the detector itself finds: the same boxes, and so the same AP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from tests.trainers.data.folders import turned
from tests.trainers.stages import CPU, DIGITS, stage
from tests.trainers.works import run
from trainers import backbones, build, detectors, export_files, export_runner, teacher
from trainers.augment import Resize
from trainers.call import Call, Invalid, offers
from trainers.data.images import FORMATS, read_image, read_photo
from trainers.data.split import Split
from trainers.evaluate import find
from trainers.export_decoding import RULES
from trainers.export_runner import Detector, read, reading, resized, sides, unlike
from trainers.metrics.coco import coco_ap
from trainers.outputs import Detections, Network
from trainers.spec import Recipe
from trainers.store import Store

torch.set_num_threads(1)
CASES: list[tuple[str, dict[str, Any]]] = [  # every detector, and every way to decode it
    ("GFL", {"reg_max": 4}),
    ("GFLv2", {"reg_max": 4, "hidden": 8}),
    ("ATSS", {}),
    ("RetinaNet", {}),
    ("RetinaNet", {"conventions": "torchvision"}),
    ("FCOS", {"reg_max": 4}),
    ("FCOS", {"conventions": "paper"}),
    ("FCOS", {"conventions": "torchvision", "score_threshold": 0.05}),
    ("RepPoints", {}),
    ("MimicDet", {"hidden": 16}),
    ("FasterRCNN", {"extra": 1, "hidden": 16, "pooled": 3}),
    ("FasterRCNN", {"extra": 1, "hidden": 16, "pooled": 3, "conventions": "torchvision"}),
    ("MaskRCNN", {"extra": 1, "hidden": 16, "pooled": 3}),
]
ONCE = list({name: (name, own) for name, own in reversed(CASES)}.values())
SMALL = {"channels": 8, "convs": 1, "extra": 0}
CLASSES = ("zero", "one")


def make(name: str, own: dict[str, Any]) -> Network:
    """A detector without training that finds many things, some of them sure."""
    torch.manual_seed(3)
    call = Call(name=name).complete(detectors)
    call = Call(name=name, args={**call.args, **{k: v for k, v in SMALL.items() if k in call.args}, **own})
    built = call.complete(detectors).of(detectors, Call(name="TinyResNet", args={"width": 8}).of(backbones), 2)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() > 1:
                parameter.mul_(1.5)
            parameter.add_(0.05 * torch.randn_like(parameter))
        for key, parameter in built.named_parameters():
            if key.endswith(("cls.bias", "cls_out.bias", "cls_logits.bias", "score.bias")) and "s_head" not in key:
                parameter.fill_(-1.0)
    return built.eval()


def images() -> Split:
    """The digits of the demo, and one that no stride divides."""
    split: Split = build.dataset(DIGITS).val
    odd = functional.resize(split.read(1), [45, 61])
    coco = {
        **split.coco,
        "images": [*split.coco["images"][:4], {"id": 99, "height": 45, "width": 61, "file_name": "o"}],
    }
    coco["annotations"] = [
        row for row in split.coco["annotations"] if row["image_id"] in [i["id"] for i in coco["images"]]
    ]
    return Split(coco, split.classes, lambda index: odd if index == 4 else split.read(index))


def exported(folder: Path, split: Split) -> dict[int, Detections]:
    """What the files in a folder find in a split."""
    detector = Detector(folder)
    found = {}
    for index, identity in enumerate(split.ids):
        rows = detector(split.read(index).permute(1, 2, 0).numpy())
        boxes = torch.tensor([row["box"] for row in rows]).reshape(-1, 4)
        labels = torch.tensor([row["label"] for row in rows], dtype=torch.long)
        found[identity] = Detections(boxes, torch.tensor([row["score"] for row in rows]), labels)
    return found


def alike(found: dict[int, Detections], expected: dict[int, Detections]) -> None:
    assert sum(len(one.boxes) for one in expected.values()) > 20, "it finds things at all"
    for identity, one in expected.items():
        torch.testing.assert_close(found[identity].scores, one.scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found[identity].boxes, one.boxes, rtol=1e-3, atol=2e-2)
        assert torch.equal(found[identity].labels, one.labels)


def as_truth(split: Split, found: dict[int, Detections]) -> Split:
    """A split whose objects are every other thing that was found, moved a little: against it nobody is perfect."""
    rows = []
    for identity, one in found.items():
        for n, (box, label) in enumerate(zip(one.boxes.tolist(), one.labels.tolist(), strict=True)):
            if n % 2 == 0 and box[2] - box[0] > 2 and box[3] - box[1] > 2:
                bbox = [box[0] + n % 3, box[1], box[2] - box[0], box[3] - box[1]]
                row = {"id": len(rows) + 1, "image_id": identity, "category_id": split.categories[label], "bbox": bbox}
                rows.append({**row, "iscrowd": 0, "area": bbox[2] * bbox[3]})
    return Split({**split.coco, "annotations": rows}, split.classes, split.read)


def measured(split: Split, found: dict[int, Detections]) -> float:
    return coco_ap(split, found)["AP"]


def test_every_detector_can_be_exported() -> None:
    assert set(RULES) == set(offers(detectors)) == {name for name, _ in CASES}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "own"), ONCE, ids=[name for name, _ in ONCE])
def test_with_onnxruntime_it_finds_what_the_detector_finds(name: str, own: dict[str, Any], tmp_path: Path) -> None:
    detector, split = make(name, own), images()
    export_files.save(detector, tmp_path, classes=CLASSES)
    expected = find(detector, split, Recipe(batch=1), device=CPU)
    found = exported(tmp_path, split)
    alike(found, expected)
    truth = as_truth(split, expected)
    assert 0.01 < measured(truth, expected) < 0.99
    assert measured(truth, found) == pytest.approx(measured(truth, expected), abs=1e-4)


def decoded(detector: Network, folder: Path, monkeypatch: pytest.MonkeyPatch, *, resize: Resize | None = None) -> None:
    """Its files in a folder, with the detector's own network instead of a graph, which takes long to make."""
    from trainers.export import Raw, second_stage, training_only, without

    monkeypatch.setattr(export_files, "graph", lambda *_, **__: None)
    monkeypatch.setattr(export_files, "second_graph", lambda *_: None)
    monkeypatch.setattr(export_files, "_write", lambda program, kind, file: file.touch())
    export_files.save(detector, folder, classes=CLASSES, resize=resize)
    raw = Raw(without(detector, (*training_only(detector), *second_stage(detector)))).eval()
    networks = {"model.onnx": raw, "second.onnx": getattr(detector, "second_network", lambda: None)()}

    def opened(file: Path) -> Any:
        def said(value: Any) -> list[Any]:
            with torch.no_grad():
                return [x.numpy() for x in networks[file.name](torch.from_numpy(value))]

        return said

    monkeypatch.setattr("trainers.export_runner.opened", opened)


@pytest.mark.parametrize(("name", "own"), CASES, ids=str)
def test_the_runner_decodes_every_convention(
    name: str, own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, split = make(name, own), images()
    decoded(detector, tmp_path, monkeypatch, resize=Resize(short=40, long=64))
    expected = find(detector, split, Recipe(batch=1, resize=(40, 64)), device=CPU)
    alike(exported(tmp_path, split), expected)


@pytest.mark.parametrize(("name", "own"), CASES, ids=str)
def test_an_image_may_show_nothing(
    name: str, own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded(make(name, own), tmp_path, monkeypatch)
    file = tmp_path / export_files.RULE
    file.write_text(json.dumps({**json.loads(file.read_text()), "score_threshold": 1.0}))
    assert Detector(tmp_path)(np.zeros((48, 64, 3), np.uint8)) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Network, Split]]:
    """The demo's digits, learnt for a few seconds."""
    folder = tmp_path_factory.mktemp("trained")
    one = stage(epochs=4, lr=0.1)
    result = run(one, folder)
    yield teacher.restore(Store(folder), result, device=CPU), build.dataset(DIGITS).val


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_ap_on_the_digits_is_that_of_the_detector(kind: Any, trained: tuple[Network, Split], tmp_path: Path) -> None:
    detector, split = trained
    files = export_files.save(
        detector, tmp_path / "out", classes=split.classes, resize=Resize(short=48, long=64), kind=kind
    )
    assert all(file.is_file() for file in files)
    eager = measured(split, find(detector, split, Recipe(batch=1, resize=(48, 64)), device=CPU))
    assert eager > 0.01
    assert measured(split, exported(tmp_path / "out", split)) == pytest.approx(eager, abs=1e-4)


def test_the_graph_takes_batches(trained: tuple[Network, Split], tmp_path: Path) -> None:
    import onnxruntime

    export_files.save(trained[0], tmp_path, classes=CLASSES)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    batch = np.random.default_rng(0).random((3, 3, 32, 64), dtype=np.float32)
    name = session.get_inputs()[0].name
    together, *each = (session.run(None, {name: x}) for x in (batch, *batch[:, None]))
    for whole, *alone in zip(together, *each, strict=True):
        np.testing.assert_allclose(whole, np.concatenate(alone), rtol=1e-3, atol=1e-4)


BLOCKED = (
    "import sys, runpy\nfor name in ('torch', 'torchvision', 'trainers', 'orchestrator'): sys.modules[name] = None\n"
)


def test_the_runner_needs_nothing_of_ours(trained: tuple[Network, Split], tmp_path: Path) -> None:
    detector, split = trained
    export_files.save(detector, tmp_path / "out", classes=split.classes)
    pixels = split.read(0).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "digits.png")
    code = f"{BLOCKED}sys.argv = ['detect.py', 'digits.png']\nrunpy.run_path('out/detect.py', run_name='__main__')"
    ran = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == {"digits.png": Detector(tmp_path / "out")(pixels)}


def test_files_that_cannot_be_read_are_named_and_the_others_done(
    trained: tuple[Network, Split], tmp_path: Path
) -> None:
    """Nor is PostScript, whatever it is called: Pillow would hand it to Ghostscript."""
    detector, split = trained
    export_files.save(detector, tmp_path / "out", classes=split.classes)
    pixels = split.read(0).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", format="EPS")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    words = [sys.executable, "out/detect.py", "cut.png", "photo.jpg", "nowhere.png", "whole.png"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1 and json.loads(ran.stdout) == {"whole.png": Detector(tmp_path / "out")(pixels)}
    assert [line.partition(": ")[0] for line in ran.stderr.splitlines()] == ["cut.png", "photo.jpg", "nowhere.png"]
    assert "cannot identify image file 'photo.jpg'" in ran.stderr


def test_the_runner_reads_what_training_reads() -> None:
    assert export_runner.FORMATS == FORMATS


def test_arrays_need_no_pillow(trained: tuple[Network, Split], tmp_path: Path) -> None:
    detector, split = trained
    export_files.save(detector, tmp_path / "out", classes=split.classes)
    pixels = split.read(0).permute(1, 2, 0).numpy()
    np.save(tmp_path / "digits.npy", pixels)
    code = f"{BLOCKED}sys.modules['PIL'] = None\nimport json, numpy\nrunner = runpy.run_path('out/detect.py')\n"
    code += "print(json.dumps(runner['Detector']('out')(numpy.load('digits.npy'))))"
    ran = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == Detector(tmp_path / "out")(pixels)


DEEP, DARK = [0, 255, 256, 30_000, 65_535], [0, 9, 255]
COLOURS = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
PIXELS = {
    "sixteen bits": ("png", np.array([DEEP], np.uint16)),
    "sixteen bits in TIFF": ("tif", np.array([DEEP], np.uint16)),
    "sixteen bits, all dark": ("png", np.array([DARK], np.uint16)),
    "sixteen bits, kept as more": ("tif", np.array([DEEP], np.int32)),
    "eight bits, kept as more": ("tif", np.array([DARK], np.int32)),
    "grey": ("png", np.array([DARK], np.uint8)),
    "colours": ("png", COLOURS[..., :3]),
    "colours with alpha": ("png", COLOURS),
}


@pytest.mark.parametrize(("suffix", "pixels"), PIXELS.values(), ids=PIXELS)
def test_files_are_read_to_the_bit_as_in_training(suffix: str, pixels: Any, tmp_path: Path) -> None:
    file = tmp_path / f"x.{suffix}"
    Image.fromarray(pixels).save(file)
    expected = read_image(file, size=(pixels.shape[1], pixels.shape[0])).permute(1, 2, 0)
    found = read(file)
    assert found.dtype == np.uint8 and np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "mode"), [("jpg", "RGB"), ("png", "RGB"), ("tif", "RGB"), ("tif", "L")])
def test_files_are_turned_to_the_bit_as_in_use_here(orientation: int, suffix: str, mode: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{suffix}"
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(image).convert(mode).save(
        file, **({"tiffinfo": {0x0112: orientation}} if suffix == "tif" else noted(orientation))
    )
    for as_stored in (False, True):
        expected = read_photo(file, as_stored=as_stored).permute(1, 2, 0).numpy()
        assert np.array_equal(read(file, as_stored=as_stored), expected)


def noted(orientation: int) -> dict[str, Any]:
    return {"exif": turned(orientation)}


def test_sixteen_bits_are_turned_and_a_note_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    Image.fromarray(np.arange(6, dtype=np.uint16).reshape(2, 3) << 8).save(tmp_path / "x.png", **noted(6))
    assert read(tmp_path / "x.png")[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    Image.new("RGB", (8, 6)).save(tmp_path / "x.jpg", exif=b"Exif\0\0no such thing")
    assert read(tmp_path / "x.jpg").shape == (6, 8, 3)


def test_the_runner_looks_at_images_as_they_are_stored_where_it_is_told_so(
    trained: tuple[Network, Split], tmp_path: Path
) -> None:
    detector, split = trained
    export_files.save(detector, tmp_path / "out", classes=split.classes)
    pixels = split.read(0).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "turned.png", **noted(6))
    here = Detector(tmp_path / "out")
    for words, expected in (([], np.rot90(pixels, -1)), (["--as-stored"], pixels)):
        command = [sys.executable, "out/detect.py", *words, "turned.png"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert json.loads(ran.stdout) == {"turned.png": here(expected)}


@pytest.mark.parametrize(("size", "target"), [((50, 70), (48, 67)), ((64, 64), (100, 100)), ((33, 50), (20, 9))])
def test_images_are_resized_to_the_bit_as_in_training(size: tuple[int, int], target: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = functional.resize(torch.from_numpy(image).permute(2, 0, 1), list(target), antialias=True)
    assert np.array_equal(resized(image, *target), theirs.permute(1, 2, 0).numpy())


def test_sides_are_those_of_a_recipe() -> None:
    assert sides((50, 70), None) == (50, 70)
    assert sides((50, 70), [40, 64]) == (40, 56)
    assert sides((50, 200), [40, 64]) == (16, 64)


def test_a_region_reads_what_roi_align_reads() -> None:
    from torchvision.ops import roi_align

    x = torch.randn(1, 2, 12, 15)
    for aligned in (True, False):
        for sampling in (0, 2):
            rule = {"pooled": 3, "aligned": aligned, "sampling": sampling}
            for box in ([1.3, 2.0, 9.1, 11.0], [-3.0, -2.0, 20.0, 14.0], [4.0, 4.0, 4.5, 4.2]):
                shift = 0.5 if aligned else 0.0
                down, top = reading(box[1] - shift, box[3] - shift, 12, rule)
                along, left = reading(box[0] - shift, box[2] - shift, 15, rule)
                part = x[0, :, top : top + down.shape[1], left : left + along.shape[1]].numpy()
                theirs = roi_align(x, torch.tensor([[0.0, *box]]), 3, 1.0, sampling, aligned)[0]
                np.testing.assert_allclose(down @ part @ along.T, theirs.numpy(), rtol=1e-3, atol=1e-5)


def test_suppression_is_torchvisions() -> None:
    from torchvision.ops import nms

    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(200, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + torch.rand(200, 2, generator=generator) * 12], dim=1)
    scores = torch.rand(200, generator=generator).mul(20).round() / 20  # with ties
    assert unlike(boxes.numpy(), scores.numpy(), 0.4).tolist() == nms(boxes, scores, 0.4).tolist()
    assert unlike(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_a_package_that_is_missing_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(export_files, "find_spec", lambda name: None if name.startswith("onnx") else name)
    with pytest.raises(
        Invalid, match=r"onnx, onnxruntime, onnxscript are not installed.*pip install onnx onnxruntime onnxscript"
    ):
        export_files.save(make(*CASES[0]), tmp_path, classes=CLASSES)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(Invalid, match="holds something else"):
        export_files.save(make(*CASES[0]), tmp_path, classes=CLASSES)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_backbone_without_a_graph_for_any_size_is_refused_by_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        swin = Call(name="Swin").complete(backbones).of(backbones)
        detector = Call(name="GFL", args=SMALL).complete(detectors).of(detectors, swin, 2)
    with pytest.raises(Invalid, match="Swin's windows depend on an image's size"):
        export_files.save(detector, tmp_path / "out", classes=CLASSES, kind="torch")
    assert not (tmp_path / "out").exists()
