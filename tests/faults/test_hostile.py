"""Files and names that somebody made to do harm: nothing of theirs runs, is written elsewhere, or fills the memory.

For each rule a sample, where the tests of the file that keeps the rule have none.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zipfile
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from orchestrator import evaluation
from orchestrator.cli import main
from orchestrator.progress import Progress
from orchestrator.study import load
from tests.orchestrator import stored as finished
from tests.orchestrator.boards import board
from tests.orchestrator.studies import changed, without, write
from tests.orchestrator.test_report import Page
from tests.trainers.kept import STAGE, epoch_of, kept_state, names, put, state, weights_file
from tests.trainers.stages import stage
from tests.trainers.works import run
from trainers import sources, states, weights
from trainers.atomic import digest
from trainers.call import Invalid
from trainers.lease import Lease
from trainers.spec import Weights
from trainers.store import Damaged, Store

DEEP = b"[" * 100_000


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def planted(store: Store, content: Path) -> Path:
    """A state with the right digest in its name."""
    folder = store.root / STAGE.key
    folder.mkdir(parents=True, exist_ok=True)
    return content.rename(folder / f"state-000009-{digest(content)}.pt")


# What is unpickled


def test_the_sample_does_harm_where_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Hostile(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_code_in_published_weights_is_not_run_though_their_sum_is_right(tmp_path: Path, old: bool) -> None:
    """As if somebody had put them into the store."""
    store, file = Store(tmp_path / "store"), tmp_path / "x.pth"
    torch.save({"a": Hostile(tmp_path / "proof")}, file, _use_new_zipfile_serialization=not old)
    sha256 = digest(file)
    store.keep(file, sha256)
    one = stage(epochs=1)
    one = one.model_copy(update={"model": one.model.model_copy(update={"weights": Weights(sha256=sha256)})})
    with pytest.raises(Invalid, match=r"asks for posix\.mkdir. Opening such a file could run any code"):
        run(one, store.root)
    assert not (tmp_path / "proof").exists() and not store.result_file(one.key).exists()


# What becomes larger


def bomb(file: Path) -> int:
    """A file of torch whose parts are packed, one of them so that it grows a thousandfold; -> bytes when unpacked."""
    plain = file.with_name("plain")
    torch.save({"key": STAGE.key, "a": torch.zeros(20_000_000, dtype=torch.uint8)}, plain)
    size = 0
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for part in source.infolist():
            content = source.read(part)
            packed.writestr(part.filename, content)
            size += len(content)
    plain.unlink()
    return size


def test_the_sample_grows_a_thousandfold_where_it_is_opened(tmp_path: Path) -> None:
    assert bomb(tmp_path / "x.pth") > 500 * (tmp_path / "x.pth").stat().st_size
    assert len(torch.load(tmp_path / "x.pth", weights_only=True)["a"]) == 20_000_000


def test_packed_weights_are_refused_before_they_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb(tmp_path / "x.pth")
    monkeypatch.delattr(torch, "load")
    with pytest.raises(Invalid, match=r"x\.pth is packed, so that it may become far larger than it is"):
        weights.read(tmp_path / "x.pth")


def test_a_packed_state_is_set_aside_before_it_is_opened(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb(tmp_path / "x.pt")
    file = planted(store, tmp_path / "x.pt")
    monkeypatch.delattr(torch, "load")
    assert kept_state(store, STAGE.key) is None and not file.exists()


def test_a_directory_of_a_zip_that_lies_is_found_too(store: Store, tmp_path: Path) -> None:
    """It says that parts are stored as they are, and larger than the file."""
    torch.save(state(1), tmp_path / "x.pt")
    assert not states.swells(tmp_path / "x.pt")
    content = bytearray((tmp_path / "x.pt").read_bytes())
    first = content.index(b"PK\x01\x02")
    content[first + 20 : first + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    (tmp_path / "x.pt").write_bytes(bytes(content))
    assert states.swells(tmp_path / "x.pt")
    planted(store, tmp_path / "x.pt")
    assert kept_state(store, STAGE.key) is None


@pytest.mark.parametrize("content", [[torch.zeros(1)], "text"], ids=["list", "text"])
def test_a_state_that_is_something_else_is_set_aside(store: Store, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    file = planted(store, tmp_path / "x.pt")
    assert kept_state(store, STAGE.key) is None and not file.exists()


def test_a_state_of_another_stage_is_not_gone_on_with(tmp_path: Path) -> None:
    one, store = stage(epochs=1), Store(tmp_path)
    store.save_state(one.key, 1, {"key": "another"})
    assert len(run(one, tmp_path).history) == 1 and store.check(one)


# Headers that lie


def lying(header: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(16)


def entry(begin: int, end: int, shape: list[int]) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}}).encode()


LIES = {
    "length": lying(b"{}", length=(1 << 63) - 1),
    "longer than the file": lying(b'{"a', length=1 << 20),
    "outside": lying(entry(0, 1 << 40, [1 << 38])),
    "another shape": lying(entry(0, 16, [1 << 30])),
    "before": lying(entry(-4, 12, [4])),
    "overflow": lying(entry(0, 16, [1 << 62, 1 << 62])),
    "deep": lying(b'{"a": ' + DEEP),
    "overlap": lying(json.dumps({n: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in "ab"}).encode()),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_a_header_that_lies_is_refused_as_weights_and_in_the_store(store: Store, tmp_path: Path, lie: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(lie)
    with pytest.raises(Invalid, match=r"x\.safetensors is damaged, or is no checkpoint"):
        weights.read(tmp_path / "x.safetensors")
    result = put(store)
    file = weights_file(store, STAGE.key)
    file.write_bytes(lie)
    forged = result.model_copy(update={"sha256": digest(file), "size": file.stat().st_size})
    store.result_file(STAGE.key).write_text(forged.model_dump_json())
    assert store.check(STAGE), "its sum is right"
    with pytest.raises(Damaged, match=rf"the weights of stage {STAGE.key} are none .*\.corrupt\)"):
        store.weights(forged)
    assert not store.check(STAGE)


def test_the_sample_without_a_lie_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(lying(entry(0, 16, [4])))
    assert weights.read(tmp_path / "x.safetensors")["a"].tolist() == [0.0] * 4


# Records to any depth


def test_records_nested_to_any_depth_are_as_good_as_none(store: Store) -> None:
    result = put(store)
    store.mark_measured(result)
    store.save_state(STAGE.key, 1, state(1))
    store.save_pause(STAGE.key, [{"epoch": 1.0}])
    store.keep(weights_file(store, STAGE.key), result.sha256, "source")
    for file in (*store.root.rglob("*.json"), store.root / STAGE.key / "lease-000001"):
        file.write_bytes(DEEP)
    assert not store.measured(result) and store.paused(STAGE.key) == () and store.known("source") is None
    assert list(store.records()) == []
    assert not Lease(store.root / STAGE.key).take(), "held by somebody, until it expires"
    assert store.get(STAGE) is None and (store.root / STAGE.key / "result.json.corrupt").exists()
    assert epoch_of(kept_state(store, STAGE.key)) == 1


def test_a_study_of_50_megabytes_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as handle:
        handle.write(b"name: [" * 7)
        handle.truncate(50_000_000)
    started = time.process_time()
    with pytest.raises(Invalid, match=r"large\.yaml: this is larger than 1,000,000 bytes"):
        load(file)
    assert time.process_time() - started < 1


# Links


@pytest.mark.parametrize("name", ["", "result.json", "weights.safetensors"], ids=["folder", "result", "weights"])
def test_a_link_out_of_the_store_is_refused_and_what_it_points_to_is_left_alone(
    store: Store, tmp_path: Path, name: str
) -> None:
    put(store)
    inside, outside = store.root / STAGE.key / name, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    before = outside.stat()
    for ask in (store.get, store.check):
        with pytest.raises(Invalid, match=r"is a symbolic link out of the store; put what it points to in its place"):
            ask(STAGE)
    with pytest.raises(Invalid, match="symbolic link"):
        run(STAGE, store.root)
    assert outside.stat().st_mtime_ns == before.st_mtime_ns and inside.is_symlink()


def test_a_store_that_is_a_link_itself_and_links_within_it_are_fine(store: Store, tmp_path: Path) -> None:
    result = put(store)
    (tmp_path / "link").symlink_to(store.root)
    (store.root / STAGE.key).rename(store.root / "disk2")
    (store.root / STAGE.key).symlink_to(store.root / "disk2")
    assert Store(tmp_path / "link").get(STAGE) == result


@pytest.mark.parametrize(
    "what", ["state-000002", "weights.safetensors", "paused.json", "sources.json", "measured.json"]
)
def test_nothing_is_written_through_a_link(store: Store, tmp_path: Path, what: str) -> None:
    """Files get their place by their name, in which a link is replaced."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = store.root / STAGE.key
    folder.mkdir(parents=True)
    link = folder / (f"{what}-{'0' * 64}.pt" if what.startswith("state") else what)
    link.symlink_to(victim)
    store.save_state(STAGE.key, 2, state(2))
    store.save_pause(STAGE.key, [{"epoch": 1.0}])
    sources.note(store, STAGE.key, {})
    store.mark_measured(put(store))
    store.drop_state(STAGE.key)
    assert victim.read_text() == "mine" and not link.is_symlink()
    assert names(folder) == ["measured.json", "result.json", "weights.safetensors"]


# Names


def test_names_that_are_scripts_stay_text_on_their_whole_way_into_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of models, and a comment of the study, which the report shows whole."""
    monkeypatch.chdir(tmp_path)
    big, wee = "<img src=x onerror=alert(1)", "<script"
    text = changed(("  big:", f"  '{big}':"), ("  wee:", f"  '{wee}':"), text=without("mid", "low"))
    text += "# </script><script>alert(1)</script><img src=x onerror=alert(2)>\n"
    study = load(write(tmp_path, text), ())
    finished.store(study, (big,), (big, wee), (wee,))
    ended = CliRunner().invoke(main, ["report", "tiny.yaml"])
    assert ended.exit_code == 0, ended.output
    html = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    page = Page(html)
    assert [model["name"] for model in page.data["models"]] == [big, wee]
    assert html.count("</script>") == 2 and len([tag for tag, _ in page.tags if tag == "script"]) == 2
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [one for _, one in page.tags if any(name.startswith("on") for name in one)]
    assert "alert(2)" in html, "it is there, as text"


STEERING = "\x1b]0;title\x07\x1b[2J"


def quiet(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


def test_names_of_classes_cannot_steer_the_terminal_in_a_table_of_them() -> None:
    made = {"weights": "w", "data": "d", "images": 1, "score": "AP", "figures": {"AP": 0.5}}
    text = evaluation.text({**made, "classes": {f"cat{STEERING}\nfake": {"AP": 0.5}, "dog": {"AP": 0.25}}})
    assert quiet(text) and "cat" in text and "\nfake" not in text


@pytest.mark.parametrize("interactive", [False, True], ids=["lines", "table"])
def test_what_a_stage_says_cannot_steer_the_terminal(interactive: bool) -> None:
    """It may have the name of an image in it."""

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return interactive

    stream = Terminal()
    with Progress(board(), out=StringIO(), err=stream) as progress:
        progress.say(f"image {STEERING}7.jpg is left out")
    assert "7.jpg is left out" in stream.getvalue()
    assert "\x07" not in stream.getvalue() and "\x1b[2J" not in stream.getvalue() and "\x1b]" not in stream.getvalue()


def test_a_refusal_cannot_steer_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    ended = CliRunner().invoke(main, ["evaluate", f"{STEERING}.safetensors", "--data", "Digits", "--model", STEERING])
    assert ended.exit_code == 2 and quiet(ended.stderr), repr(ended.stderr)
