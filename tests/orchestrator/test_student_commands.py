"""What a user does with the student that a study found: looks at images with it, takes it elsewhere, times it, reads
its card."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path as File
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageChops

from orchestrator.asked import Asked
from orchestrator.cli import main
from orchestrator.licences import UNKNOWN, of_data, of_weights
from orchestrator.study import Study
from tests.orchestrator import studies
from tests.orchestrator.documented import README
from tests.orchestrator.studies import TEXT, changed, environment, report, stored, write
from trainers.call import Invalid
from trainers.export_runner import Detector

torch.set_num_threads(1)
BEST = "models:/tiny@best"


@pytest.fixture
def here(finished: File, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    """A folder with the study, its store and MLflow after a run, and the digits as images."""
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert run("data", "digits", "digits", "--train", "4", "--val", "4").exit_code == 0
    return folder


def run(*words: object) -> Result:
    ended = CliRunner().invoke(main, [*map(str, words)])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def made(*words: object, code: int = 0) -> dict[str, Any]:
    ended = run(*words, "--json")
    assert ended.exit_code == code, ended.output
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def best_key(folder: File) -> str:
    """Of the stage that is registered."""
    (answer,) = report(folder)["answers"]
    key: str = answer["best"]["keys"][0]
    return key


@pytest.mark.ray
def test_a_study_and_the_registry_are_the_stages_that_they_name(here: File) -> None:
    """The best of a study may be the student alone; registered is the best that was taught."""
    look = ("digits/val2017", "--score-threshold", "0.01", "--out")
    said = json.loads(run("best", "tiny.yaml", "--json").stdout)
    names = ("tiny.yaml", f"store/{said['keys']['0']}", BEST, f"store/{best_key(here)}")
    found = [made("predict", name, *look, f"out{n}") for n, name in enumerate(names)]
    images = [[one["found"] for one in each["images"]] for each in found]
    assert images[0] == images[1] and images[2] == images[3] and all(sum(map(len, each)) > 0 for each in images)
    assert [each["own_ids"] for each in found] == [True, False, True, False]

    rows = json.loads((here / "out0" / "results.json").read_text())
    assert rows == [row for image in images[0] for row in image]
    assert all(row["score"] >= 0.01 and row["category"] in ("zero", "one", "two") for row in rows)
    assert {row["image_id"] for row in rows} <= {1, 2, 3, 4}
    for one in found[0]["images"]:
        before, after = Image.open(one["file"]).convert("RGB"), Image.open(one["drawn"])
        assert after.size == (448, 448), "seven times as large"
        before = before.resize(after.size, Image.Resampling.NEAREST)
        assert (ImageChops.difference(before, after).getbbox() is not None) == bool(one["found"])


@pytest.mark.parametrize("words", [("predict", "tiny.yaml", "a.png"), ("export", "tiny.yaml"), ("best", "tiny.yaml")])
def test_a_study_that_was_run_with_other_words_is_named_with_the_same(
    words: tuple[str, ...], tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    Image.new("RGB", (8, 9)).save("a.png")
    asked: list[Study] = []

    def students(study: Study) -> Any:
        asked.append(study)
        raise Invalid("nobody is trained")

    monkeypatch.setattr("orchestrator.asked.students", students)
    ended = run(*words, "--store", "/shared/store", "--set", "sweep={LD.weight: [0.1, 0.5]}")
    assert ended.exit_code == 2 and "nobody is trained" in ended.stderr
    (study,) = asked
    assert study.resources.store == "/shared/store" and study.sweep is not None


def test_of_a_stage_that_is_not_in_the_store_it_is_said_what_can_be_named(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    found = SimpleNamespace(keys={0: "0" * 64}, scores={0: 0.5}, path="big > wee")
    asked = SimpleNamespace(paths=lambda **filters: [found], each=lambda found: [])
    monkeypatch.setattr("orchestrator.meant.of_loaded", lambda study, tracking: asked)
    said = run("export", "tiny.yaml", "--store", "other").stderr
    assert "the store other has no stage 000" in said and "which big > wee is" in said
    assert "with --store, or the folder of the stage, or models:/tiny@best" in said


@pytest.mark.parametrize("words", [("predict", BEST, "a.png"), ("export", "store/0"), ("best", "--all")])
def test_only_a_study_can_be_changed(words: tuple[str, ...], tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 9)).save("a.png")
    ended = run(*words, "--store", "elsewhere")
    assert ended.exit_code == 2 and "--store and --set change a study, and here none is named" in ended.stderr


@pytest.mark.ray
def test_category_ids_are_those_of_the_data(here: File) -> None:
    other = here / "other"
    shutil.copytree(here / "digits", other)
    for file in (other / "annotations").iterdir():
        table = json.loads(file.read_text())
        swap = {row["id"]: 10 * row["id"] + 7 for row in table["categories"]}
        table["categories"] = [{**row, "id": swap[row["id"]]} for row in table["categories"]]
        table["annotations"] = [{**row, "category_id": swap[row["category_id"]]} for row in table["annotations"]]
        file.write_text(json.dumps(table))
    data = json.dumps({"COCO": {"root": str(other)}})
    found = made("predict", f"store/{best_key(here)}", "digits/val2017", "--data", data, "--score-threshold", "0.01")
    names = {row["name"]: row["id"] for row in table["categories"]}
    rows = [row for one in found["images"] for row in one["found"]]
    assert rows and all(row["category_id"] == names[row["category"]] for row in rows)


@pytest.mark.ray
def test_what_is_no_image_is_named_before_anything_starts_and_what_breaks_later_is_left_out(here: File) -> None:
    (here / "notes.txt").write_text("no image")
    (here / "empty").mkdir()
    ended = run("predict", BEST, "digits/val2017", "notes.txt", "nowhere.jpg", "empty")
    assert ended.exit_code == 2 and not (here / "predicted").exists()
    for name in ("notes.txt", "nowhere.jpg", "empty"):
        assert name in ended.stderr

    whole = sorted((here / "digits").rglob("*.png"))[0]
    (here / "cut.png").write_bytes(whole.read_bytes()[: len(whole.read_bytes()) // 2])
    ended = run("predict", BEST, "cut.png", whole, "--json")
    assert ended.exit_code == 3 and "warning: left out: cannot read the image" in ended.stderr
    said = json.loads(ended.stdout)
    assert list(said["broken"]) == ["cut.png"] and [one["file"] for one in said["images"]] == [str(whole)]


def test_pictures_of_equal_names_do_not_overwrite_each_other(tmp_path: File) -> None:
    from orchestrator.prediction import _free, pictures

    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        Image.new("RGB", (8, 9)).save(tmp_path / name / "deep" / "one.PNG")
    (tmp_path / "a" / "readme.txt").write_text("not asked for")
    found = pictures([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a" / "deep" / "one.PNG")])
    assert [one.name for one in found] == ["deep/one.PNG"] * 2
    taken: set[File] = set()
    assert [_free(File("out/one.png"), taken).name for _ in range(3)] == ["one.png", "one-2.png", "one-3.png"]


@pytest.mark.parametrize("out", ["photos", "photos/../photos", "link"])
def test_nobodys_photos_are_drawn_over(out: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for name in ("one.png", "two.jpg"):
        Image.new("RGB", (8, 9)).save(tmp_path / "photos" / name)
    before = (tmp_path / "photos" / "one.png").read_bytes()
    ended = run("predict", "nowhere", "photos", "--out", out)
    assert ended.exit_code == 2 and "error: --out: " in ended.stderr and "photos/one.png" in ended.stderr
    assert "Name a folder without these images" in ended.stderr and "two.jpg" not in ended.stderr
    assert (tmp_path / "photos" / "one.png").read_bytes() == before
    assert sorted(file.name for file in (tmp_path / "photos").iterdir()) == ["one.png", "two.jpg"]


def test_nor_is_an_image_that_is_called_like_the_results(tmp_path: File) -> None:
    from orchestrator.prediction import drawings, pictures

    Image.new("RGB", (8, 9)).save(tmp_path / "results.json", format="png")
    found = pictures([str(tmp_path / "results.json")])
    with pytest.raises(Invalid, match=r"results\.json written over"):
        drawings(found, tmp_path)
    assert drawings(found, tmp_path / "out") == [tmp_path / "out" / "results.png"]


MISTAKES = {
    "no registered model": (("predict", "models:/nobody@best"), "nobody"),
    "no address": (("predict", "models:/tiny@"), "write models:/NAME@best"),
    "no such weights": (("predict", "nowhere"), "there is no file or folder nowhere"),
    "a published file without its data": (("predict", "x.pth", "--model", "{detector: GFL}"), "--data"),
    "a student of weights": (("predict", "store", "--student", "wee"), "--student says nothing"),
    "data of a study": (("predict", "tiny.yaml", "--data", "Digits"), "--data says nothing"),
    "an unknown student": (("predict", "tiny.yaml", "--student", "weee"), "wee"),
}


@pytest.mark.ray
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(case: str, here: File) -> None:
    (command, *words), part = MISTAKES[case]
    ended = run(command, words[0], "digits/val2017", *words[1:])
    assert ended.exit_code == 2 and part in ended.stderr and "Traceback" not in ended.output, ended.output


@pytest.mark.ray
def test_an_exported_student_finds_what_it_finds_here(here: File) -> None:
    said = made("export", BEST, "--out", "elsewhere")
    names = {File(file).name for file in said["files"]}
    assert names == {"model.onnx", "detector.json", "detect.py", "README.md"}
    assert "mlflow models serve" in (here / "elsewhere" / "README.md").read_text()
    runner = Detector(here / "elsewhere")
    found = made("predict", BEST, "digits/val2017", "--score-threshold", "0")
    for one in found["images"]:
        mine = runner(np.array(Image.open(one["file"]).convert("RGB")))
        assert [row["class"] for row in mine] == [row["category"] for row in one["found"]]
        assert [row["score"] for row in mine] == pytest.approx([row["score"] for row in one["found"]], abs=1e-4)
    ended = run("export", BEST, "--out", "digits")
    assert ended.exit_code == 2 and "something else" in ended.stderr


@pytest.mark.ray
@pytest.mark.parametrize("role", ["student", "alone"])
def test_the_export_of_a_study_has_a_card_whether_its_best_was_taught_or_not(
    role: str, here: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was taught is registered with one; that of the student alone is made of the store."""
    every = Asked.paths
    monkeypatch.setattr(Asked, "paths", lambda *asked, **how: [one for one in every(*asked, **how) if one.role == role])
    said = run("export", "tiny.yaml", "--format", "torch")
    assert said.exit_code == 0 and "exported/tiny/README.md" in said.stdout and "no README" not in said.stdout
    text = (here / "exported" / "tiny" / "README.md").read_text()
    if role == "student":
        assert text.strip() == card_of(here).strip()
        return
    key = studies.stages(here)["wee",]["key"]
    assert text.startswith("# tiny\n\nAn object detector, wee, that learnt alone.\n") and f"`{key}`" in text
    assert "losses: none: it learnt alone" in text and "gain over big > wee directly: " in text
    assert "gain over wee alone" not in text and stored(here)[key][1] in text
    assert f"tapath predict store/{key} IMAGES" in text and "mlflow" not in text and "@best" not in text


@pytest.mark.ray
def test_the_export_of_weights_says_that_it_has_no_card(here: File) -> None:
    said = run("export", f"store/{best_key(here)}", "--format", "torch", "--out", "elsewhere")
    assert said.exit_code == 0 and not (here / "elsewhere" / "README.md").exists()
    assert said.stdout.splitlines()[-1].startswith("no README.md, the card: ")


@pytest.mark.ray
def test_latency_measures_every_model_of_the_lattice(here: File) -> None:
    said = made("latency", "tiny.yaml", "--runs", "3", "--batch", "2")
    assert [one["model"] for one in said["models"]] == ["big", "mid", "low", "wee"]
    sizes = {one["name"]: one["parameters"] for one in report(here)["models"]}
    for one in said["models"]:
        low, high = one["quartiles_ms"]
        assert 0 < low <= one["ms"] <= high and one["trained"] and one["flops"] > 0
        assert one["parameters"] == sizes[one["model"]]
    assert said["models"][0]["flops"] > said["models"][-1]["flops"]

    write(here, changed(("{width: 4}", "{width: 6}")), "other.yaml")
    ended = run("latency", "other.yaml", "--runs", "1")
    assert ended.exit_code == 0, ended.output
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("wee") and last.endswith("fresh weights")
    assert run("latency", "tiny.yaml", "--batch", "1000").exit_code == 2


def test_quartiles_of_two_passes_lie_between_them(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import latency

    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    monkeypatch.setattr(latency.footprint, "passes", lambda *_, **__: iter([0.1, 0.3, 9.0]))
    for one in made("latency", "tiny.yaml", "--runs", "2")["models"]:
        assert one["ms"] == pytest.approx(200) and one["quartiles_ms"] == pytest.approx([150, 250])
    for one in made("latency", "tiny.yaml", "--runs", "1")["models"]:
        assert [one["ms"], *one["quartiles_ms"]] == pytest.approx([100] * 3)


def card_of(folder: File) -> str:
    from orchestrator.connection import connect

    client = connect(f"sqlite:///{folder / 'mlflow.db'}")
    text: str = client.get_model_version_by_alias("tiny", "best").description
    return text


@pytest.mark.ray
def test_the_registered_student_has_a_card_with_all_that_a_user_asks(here: File) -> None:
    text, (answer,) = card_of(here), report(here)["answers"]
    best, key = answer["best"], best_key(here)
    record = json.loads((here / "store" / key / "result.json").read_text())
    assert " > ".join(best["path"]) in text and f"{best['score']:.4f}" in text
    assert f"gain over wee alone: {best['gain_over_baseline']:+.4f}" in text
    if best["path"] != ["big", "wee"]:
        assert f"gain over big > wee directly: {best['gain_over_direct']:+.4f}" in text
    assert "one seed, so it may be noise" in text
    assert record["stage"]["data"]["fingerprint"] in text and stored(here)[key][1] in text
    assert f"parameters: {best['parameters']:,}" in text and "FLOPs of an image" in text
    assert f"latency: {best['latency_ms']:.3g} ms" in text
    assert '"epochs": 2' in text.replace('"epochs":2', '"epochs": 2') and "all of this path began at random" in text
    assert "tapath predict models:/tiny@best" in text and len(text) < 5000


def test_terms_of_weights_are_told_where_they_are_known() -> None:
    assert "BSD-3" in of_weights("https://download.pytorch.org/models/resnet18-f37072fd.pth")
    assert "Apache-2.0" in of_weights("https://download.openmmlab.com/mmdetection/v2.0/gfl/x.pth")
    assert of_weights("weights/found_somewhere.pth") == UNKNOWN == of_data("VOC")
    assert "tiny" in TEXT


@pytest.mark.ray
@pytest.mark.slow
def test_mlflow_models_predict_answers_with_a_path_and_with_base64(here: File) -> None:
    file = sorted((here / "digits").rglob("*.png"))[0]
    given = {"inputs": [str(file), base64.b64encode(file.read_bytes()).decode()], "params": {"as_stored": True}}
    (here / "images.json").write_text(json.dumps(given))
    (typed,) = re.findall(r"`mlflow (models predict [^`]+ [^`]+)`", README.read_text())
    words = [BEST if word == "models:/demo@best" else word for word in shlex.split(typed)]
    command = [str(File(sys.executable).with_name("mlflow")), *words, "-o", "said.json"]
    path = f"{File(sys.executable).parent}:{environment()['PATH']}"
    own = {**environment(), "MLFLOW_TRACKING_URI": f"sqlite:///{here / 'mlflow.db'}", "PATH": path}
    ended = subprocess.run(command, cwd=here, env=own, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr[-3000:]
    by_path, by_content = json.loads((here / "said.json").read_text())["predictions"]
    assert by_path == by_content and set(by_path) == {"boxes", "scores", "labels", "classes"}
    found = made("predict", BEST, file, "--score-threshold", "0")["images"][0]["found"]
    assert by_path["scores"] == pytest.approx([row["score"] for row in found], abs=1e-4)
    assert by_path["classes"] == [row["category"] for row in found]
