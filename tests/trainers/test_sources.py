"""A result remembers the code that trained it, by what it means; and a training that goes on with other code does."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.kept import put
from tests.trainers.stages import DIGITS, stage
from tests.trainers.works import ROOT, TAUGHT, Crash, names, raising_at, run
from trainers import backbones, sources
from trainers.call import Call
from trainers.detectors import MaskRCNN
from trainers.distill import LD
from trainers.result import FORMAT
from trainers.spec import Model, Stage, Weights
from trainers.store import Store

TEXT = b'''"""A loss."""

X = {"a": 1}


class Loss:
    """What it is."""

    def forward(self, a):
        """What it gives."""
        return 2 * a
'''
OF_TAUGHT = ["backbones.TinyResNet", "data.Digits", "detectors.GFL", "distill.KD", "distill.LD", "metrics.CocoAP"]
OTHER = f"{sources.PYTHON}{'0' * 16}"


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Has the file of a class be another, for all that is asked from then on."""

    def edit(name: str, digest: str | None = OTHER) -> None:
        known = sources.now
        monkeypatch.setattr(sources, "now", lambda asked: digest if asked == name else known(asked))
        sources._changed.cache_clear()

    yield edit
    sources._changed.cache_clear()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"2 * a", b"2 * a  # twice"),
        (b"2 * a", b"(2 *\n            a)"),
        (b'"a": 1', b"'a': 0x1,"),
        (b"A loss.", b"A good loss."),
        (b'    """What it is."""\n\n', b""),
        (b'"""What it gives."""', b'"""Twice of what it gets."""'),
    ],
)
def test_comments_docstrings_and_layout_are_no_code(old: bytes, new: bytes) -> None:
    assert TEXT.count(old) == 1 and sources.digest(TEXT.replace(old, new)) == sources.digest(TEXT)


@pytest.mark.parametrize(
    ("old", "new"), [(b"2 * a", b"3 * a"), (b'"a": 1', b'"a": True'), (b"(self, a)", b"(self, a=0)")]
)
def test_all_but_comments_docstrings_and_layout_makes_another_digest(old: bytes, new: bytes) -> None:
    assert TEXT.count(old) == 1 and sources.digest(TEXT.replace(old, new)) != sources.digest(TEXT)


def test_a_digest_is_of_the_file_and_named_by_the_python_that_read_it() -> None:
    file = Path(sources.__file__).parent / "distill" / "ld.py"
    assert sources.now("distill.LD") == sources.PYTHON + sources.digest(file.read_bytes())
    assert sources.PYTHON.count(".") == 1 and sources.PYTHON.endswith(":")


@pytest.mark.parametrize("name", ["distill.None", "os.system", "distill", "", "call.Call", "data.annotations"])
def test_what_no_study_can_name_has_none(name: str) -> None:
    assert sources.now(name) is None


def test_all_that_a_stage_names_is_remembered_and_what_it_does_not_use_is_not() -> None:
    code = sources.of(TAUGHT, DIGITS)
    assert list(code) == [*OF_TAUGHT, "optim.AdamW", "schedules.Cosine"]
    assert all(digest == sources.now(name) for name, digest in code.items())
    silent = stage({"LD": {"weight": 0, "vlr_weight": 0}}, {"KD": {}, "alpha": 0}, "FGFI", teacher=ROOT)
    assert [name for name in sources.of(silent, DIGITS) if name.startswith("distill.")] == ["distill.FGFI"]


def test_calls_within_calls_are_named_and_of_published_weights_no_optimizer() -> None:
    halved = Call(name="Halved", args={"backbone": {"ResNet": {"depth": 18}}}).complete(backbones)
    model = Model(detector=ROOT.model.detector, backbone=halved, weights=Weights(sha256="0" * 64))
    code = sources.of(Stage(model=model, data=ROOT.data, recipe=ROOT.recipe), DIGITS)
    assert list(code) == ["backbones.Halved", "backbones.ResNet", *OF_TAUGHT[1:3], "metrics.CocoAP"]


@pytest.fixture
def afresh() -> Iterator[None]:
    """Nothing that was read before counts, and nothing that a test has read counts after it."""
    sources.now.cache_clear()
    yield
    sources.now.cache_clear()


@pytest.mark.usefixtures("afresh")
def test_a_source_that_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspect.getfile", lambda thing: "/nowhere.py")
    assert sources.of(ROOT, DIGITS) == {}


@pytest.mark.usefixtures("afresh")
def test_a_source_that_was_written_since_this_process_has_read_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = Path(shutil.copyfile(inspect.getfile(LD), tmp_path / "ld.py"))
    monkeypatch.setattr("inspect.getfile", lambda thing: str(file))
    os.utime(file, (0, sources.READ - 1))
    assert sources.now("distill.LD") is not None
    os.utime(file, (0, sources.READ + 1))
    sources.now.cache_clear()
    assert sources.now("distill.LD") is None


def test_a_digest_is_of_the_base_classes_too() -> None:
    files = [Path(sources.__file__).parent / "detectors" / f"{name}.py" for name in ("mask_rcnn", "faster_rcnn")]
    assert sources._files(MaskRCNN)[:2] == files
    assert sources.now("detectors.MaskRCNN") != sources.PYTHON + sources.digest(files[0].read_bytes())
    assert all("torch" not in str(file) for file in sources._files(MaskRCNN))


def test_what_was_mixed_stays_so_whatever_python_goes_on() -> None:
    assert sources.since({"a": f"{OTHER}+"}, {"a": "2.7:0"}) == {"a": f"{OTHER}+"}
    assert sources.since({"a": f"{OTHER}+"}, {}) == {}
    assert sources.since({"a": OTHER}, {"a": OTHER}) == {"a": OTHER}


def test_a_class_whose_code_is_another_now_is_named(edited: Any) -> None:
    code = sources.of(TAUGHT, DIGITS)
    assert sources.changed(code) == ()
    edited("distill.LD")
    assert sources.changed(code) == ("LD",)
    edited("backbones.TinyResNet")
    assert sources.changed(code) == ("TinyResNet", "LD")


def test_nothing_is_said_of_what_nobody_noted_of_another_python_and_of_what_is_not_there_any_more(edited: Any) -> None:
    assert sources.changed({}) == ()
    assert sources.changed({"distill.LD": f"2.7:{'0' * 16}", "distill.Gone": OTHER, "os.system": OTHER}) == ()
    edited("distill.LD", None)
    assert sources.changed({"distill.LD": OTHER}) == ()


def test_a_result_remembers_its_code_and_an_older_one_is_read_without(folder: Path, tmp_path: Path) -> None:
    result = run(TAUGHT, folder)
    assert result.sources == sources.of(TAUGHT, DIGITS)
    old = put(Store(tmp_path / "old"))
    file = tmp_path / "old" / old.key / "result.json"
    text = file.read_text()
    for now, before in (('"sources": {},\n', ""), (f'"format": {FORMAT}', '"format": 3')):
        assert text.count(now) == 1
        text = text.replace(now, before)
    file.write_text(text)
    read = Store(tmp_path / "old").get(old.stage)
    assert read is not None and read.sources == {} and sources.changed(read.sources) == ()


def test_the_first_epoch_notes_the_code_and_the_same_code_goes_on_without_a_word(folder: Path) -> None:
    with pytest.raises(Crash):
        run(TAUGHT, folder, report=raising_at(1, Crash()))
    store = Store(folder)
    assert sources.noted(store.place, TAUGHT.key) == sources.of(TAUGHT, DIGITS)
    said: list[str] = []
    result = run(TAUGHT, folder, say=said.append)
    assert result.sources == sources.of(TAUGHT, DIGITS) and not [line for line in said if "code" in line]
    assert names(folder, TAUGHT) == ["measured.json", "result.json", "weights.safetensors"]


def test_a_training_that_goes_on_with_other_code_says_so_and_counts_as_neither(folder: Path, edited: Any) -> None:
    with pytest.raises(Crash):
        run(TAUGHT, folder, report=raising_at(1, Crash()))
    before = sources.of(TAUGHT, DIGITS)
    edited("distill.LD")
    said: list[str] = []
    with pytest.raises(Crash):
        run(TAUGHT, folder, say=said.append, report=raising_at(2, Crash()))
    assert [line for line in said if "code" in line] == ["goes on with other code of LD than it was begun with"]
    mixed = {**before, "distill.LD": f"{before['distill.LD']}+"}
    assert sources.noted(Store(folder).place, TAUGHT.key) == mixed
    result = run(TAUGHT, folder)
    assert result.sources == mixed and sources.changed(result.sources) == ("LD",)
    edited("distill.LD", before["distill.LD"])
    assert sources.changed(result.sources) == ("LD",), "nor is it of the code that began it"


def test_what_was_begun_by_an_earlier_version_or_another_python_goes_on_without_a_word(
    folder: Path, edited: Any
) -> None:
    code = sources.of(TAUGHT, DIGITS)
    assert sources.since({}, code) == code
    assert sources.since({"distill.LD": f"2.7:{'0' * 16}", "distill.Gone": OTHER}, code) == code
    with pytest.raises(Crash):
        run(TAUGHT, folder, report=raising_at(1, Crash()))
    (folder / TAUGHT.key / "sources.json").write_text("spoilt")
    edited("distill.LD")
    said: list[str] = []
    assert run(TAUGHT, folder, say=said.append).sources == {**code, "distill.LD": OTHER}
    assert not [line for line in said if "code" in line]


def test_a_note_that_has_no_room_is_worth_no_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sources, "note", full)
    assert run(TAUGHT, folder).sources == sources.of(TAUGHT, DIGITS)
