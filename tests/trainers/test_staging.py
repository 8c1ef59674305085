"""Data that are copied to the disk of a node: once, whole, and never believed when they are not."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.stages import CPU, DIGITS, stage
from tests.trainers.works import run
from trainers import data
from trainers.call import Call, Invalid
from trainers.data.digits import write
from trainers.loop import Stopped
from trainers.order import Order
from trainers.staging import anywhere, opened, scratch, staged
from trainers.store import Store
from trainers.worker import work

PLAIN = stage(epochs=1)
IMAGES = 48  # and two files of annotations


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder with the very data of `stage`."""
    write(DIGITS.of(data), tmp_path / "shared")
    return tmp_path / "shared"


def ordered(shared: Path, place: Path | str, **args: Any) -> Order:
    call = Call(name="COCO", args={"root": str(shared), **args}).complete(data)
    return Order(stage=PLAIN, data=call, store=str(shared.parent / "store"), stage_data=str(place))


def told(order: Order, stop: Callable[[], bool] = lambda: False) -> tuple[Path, list[str]]:
    """Where the data are read, and what was said."""
    said: list[str] = []
    call = staged(order, stop=stop, say=said.append)
    return Path(call.args["root"]), said


def inodes(folder: Path) -> dict[str, int]:
    """Which copy each file is: another one has another number."""
    return {str(file.relative_to(folder)): file.stat().st_ino for file in folder.rglob("*") if file.is_file()}


def test_a_stage_learns_the_same_and_the_next_does_not_need_the_shared_folder(shared: Path, tmp_path: Path) -> None:
    there = run(PLAIN, tmp_path / "plain")
    order = ordered(shared, tmp_path / "scratch")
    here = work(order, device=CPU)
    shared.rename(tmp_path / "gone")
    again = work(order.model_copy(update={"store": str(tmp_path / "again")}), device=CPU)
    for result, folder in ((here, "store"), (again, "again")):
        assert (result.key, result.score) == (there.key, there.score)
        ours, theirs = Store(tmp_path / folder).weights(result), Store(tmp_path / "plain").weights(there)
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_only_what_the_study_names_is_copied(shared: Path, tmp_path: Path) -> None:
    (shared / "train2017" / "another.png").write_bytes(b"nobody asks for it")
    root, said = told(ordered(shared, tmp_path / "scratch"))
    assert len(inodes(root)) == IMAGES + 2 and said == []
    assert not list(root.rglob("another.png"))


def test_of_two_workers_one_copies_and_the_other_waits(shared: Path, tmp_path: Path) -> None:
    order, said = ordered(shared, tmp_path / "scratch"), list[str]()
    root, _ = told(order)
    shutil.rmtree(root)
    found: list[dict[str, int]] = []

    def learn() -> None:
        found.append(inodes(Path(staged(order, stop=lambda: False, say=said.append).args["root"])))

    with (root.parent / "lock").open("w") as handle:  # until both are there
        fcntl.flock(handle, fcntl.LOCK_EX)
        threads = [threading.Thread(target=learn) for _ in range(2)]
        for thread in threads:
            thread.start()
        while len(said) < 2:
            time.sleep(0.01)
        assert found == []
    for thread in threads:
        thread.join()
    assert found[0] == found[1] and len(found[0]) == IMAGES + 2
    assert said == ["another process copies the data to this node; waiting for it"] * 2


def test_whoever_waits_can_be_stopped(shared: Path, tmp_path: Path) -> None:
    order = ordered(shared, tmp_path / "scratch")
    root, _ = told(order)
    (root.parent / "whole.json").unlink()
    with (root.parent / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Stopped):
            told(order, stop=lambda: True)
    with pytest.raises(Stopped):
        shutil.rmtree(root)
        told(order, stop=lambda: True)


SLOWLY = """
import sys, time
from trainers.order import Order
from trainers.staging import staged
staged(Order.model_validate_json(sys.argv[1]), stop=lambda: bool(time.sleep(0.3)), say=print)
"""


def test_after_a_kill_in_the_midst_of_copying_the_rest_is_copied(shared: Path, tmp_path: Path) -> None:
    order = ordered(shared, tmp_path / "scratch")
    with subprocess.Popen([sys.executable, "-c", SLOWLY, order.model_dump_json()]) as process:
        while len(list((tmp_path / "scratch").rglob("*.png"))) < IMAGES // 3:
            assert process.poll() is None, "it was too fast"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    (folder,) = (tmp_path / "scratch").iterdir()
    before = {name: inode for name, inode in inodes(folder / "files").items() if not name.endswith(".part")}
    assert not (folder / "whole.json").exists() and IMAGES // 3 <= len(before) < IMAGES + 2
    root, said = told(order)
    after = inodes(root)
    assert said == [], "the lock went with the process"
    assert len(after) == IMAGES + 2 and {name: after[name] for name in before} == before
    assert opened(order, stop=lambda: False, say=said.append).fingerprint == PLAIN.data.fingerprint


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwritten(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("harm", [truncated, overwritten, Path.unlink])
def test_a_copy_that_is_not_what_it_was_is_not_believed(
    harm: Callable[[Path], None], shared: Path, tmp_path: Path
) -> None:
    order = ordered(shared, tmp_path / "scratch")
    root, _ = told(order)
    before, (victim, *_) = inodes(root), sorted(root.rglob("*.png"))
    whole = victim.read_bytes()
    harm(victim)
    assert told(order) == (root, [])
    changed = {name for name, inode in inodes(root).items() if inode != before[name]}
    assert victim.read_bytes() == whole and changed <= {str(victim.relative_to(root))}


def test_a_marker_that_cannot_be_read_is_none(shared: Path, tmp_path: Path) -> None:
    root, _ = told(ordered(shared, tmp_path / "scratch"))
    truncated(root.parent / "whole.json")
    assert told(ordered(shared, tmp_path / "scratch")) == (root, [])
    assert len(json.loads((root.parent / "whole.json").read_text())) == IMAGES + 2


def test_the_same_data_from_elsewhere_or_judged_otherwise_are_not_copied_again(shared: Path, tmp_path: Path) -> None:
    root, _ = told(ordered(shared, tmp_path / "scratch"))
    before = inodes(root)
    moved = shared.rename(tmp_path / "moved")
    assert told(ordered(moved, tmp_path / "scratch", metric={"CocoAP": {"score": "AP50"}})) == (root, [])
    assert inodes(root) == before


def test_other_data_are_copied_beside(shared: Path, tmp_path: Path) -> None:
    order = ordered(shared, tmp_path / "scratch")
    root, _ = told(order)
    before = inodes(root)
    other = order.model_copy(update={"stage": stage(epochs=1), "content": "changed"})
    beside, _ = told(other)
    assert beside != root and len(inodes(beside)) == IMAGES + 2 and inodes(root) == before


def test_annotations_that_changed_while_they_were_copied_are_refused_and_get_no_marker(
    shared: Path, tmp_path: Path
) -> None:
    file = shared / "annotations" / "instances_train2017.json"
    tree = json.loads(file.read_text())
    tree["annotations"].pop()
    file.write_text(json.dumps(tree))
    order = ordered(shared, tmp_path / "scratch")
    for _ in range(2):
        with pytest.raises(Invalid, match="is not the data of this study any more"):
            opened(order, stop=lambda: False, say=print)
    assert not list((tmp_path / "scratch").rglob("whole.json"))


def test_where_there_is_no_room_it_is_refused_with_bytes_and_folder(shared: Path, tmp_path: Path) -> None:
    image = next(shared.rglob("*.png"))
    os.truncate(image, shutil.disk_usage(tmp_path).free + 2**30)  # a hole, which takes no room where it is
    with pytest.raises(
        Invalid, match=rf"\d,\d+ bytes of {shared} do not fit into {tmp_path}/scratch/.* are free; make"
    ):
        told(ordered(shared, tmp_path / "scratch"))


@pytest.mark.parametrize("place", ["file/scratch", "/proc/nowhere"])
def test_where_nothing_can_be_written_the_shared_folder_is_read_and_that_is_said(
    place: str, shared: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    root, (said,) = told(ordered(shared, tmp_path / place))
    assert root == shared
    assert said.startswith(f"{tmp_path / place}: ") and said.endswith(f"; the data are read from {shared}")


def test_images_outside_of_the_root_are_read_where_they_are(shared: Path, tmp_path: Path) -> None:
    (shared / "val2017").rename(tmp_path / "elsewhere")
    root, (said,) = told(ordered(shared, tmp_path / "scratch", val_images=str(tmp_path / "elsewhere")))
    assert root == shared and "is not in" in said


def test_what_is_drawn_is_not_copied(tmp_path: Path) -> None:
    order = Order(stage=PLAIN, data=DIGITS, store=str(tmp_path), stage_data=str(tmp_path / "scratch"))
    assert staged(order, stop=lambda: False, say=print) == DIGITS
    assert not (tmp_path / "scratch").exists()


def test_true_means_a_folder_of_this_users_own_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert scratch(True) == tmp_path / f"tapath-{os.getuid()}" and scratch("~/x") == Path.home() / "x"


def test_a_folder_is_handed_over_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has processes work in folders of their own, where scenes would be another folder, or none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for written in ("scenes", "~/scenes", str(tmp_path / "scenes")):
        given = Call(name="COCO", args={"root": written, "train": "train.json"})
        assert anywhere(given).args == {"root": str(tmp_path / "scenes"), "train": "train.json"}
        assert given.args["root"] == written
    drawn = Call(name="Digits", args={"train": 4})
    assert anywhere(drawn) == drawn
