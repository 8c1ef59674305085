"""What is in the store is what was put there, or is set aside, whatever happens to it afterwards."""

import hashlib
import json
import os
import pickle
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import buckets
from tests.buckets import Server
from tests.trainers.kept import OTHER, STAGE, epoch_of, facts, kept_state, put, same, state, weights
from tests.trainers.places import Files
from trainers.atomic import digest
from trainers.call import Invalid
from trainers.result import FORMAT, Result
from trainers.store import RESULT, WEIGHTS, Damaged, Store


@pytest.fixture
def store(address: Path | str) -> Store:
    return Store(address)


@pytest.fixture
def files(store: Store) -> Files:
    """Those of the stage."""
    return Files(store.place.file(STAGE.key))


# Results


def test_what_is_put_is_what_is_got(store: Store) -> None:
    assert store.get(STAGE) is None and not store.check(STAGE)
    result = put(store)
    assert store.get(STAGE) == result and store.check(STAGE)
    assert same(store.weights(result), weights())
    assert result.stage == STAGE and result.key == STAGE.key and result.format == FORMAT
    assert store.get(OTHER) is None
    assert list(Files(store.root)) == [f"{STAGE.key}/result.json", f"{STAGE.key}/weights.safetensors"]


def test_a_result_holds_the_very_stage_that_it_was_asked_for_and_no_copy_of_its_lineage(store: Store) -> None:
    put(store)
    result = store.get(STAGE)
    assert result is not None and result.stage is STAGE


@pytest.mark.parametrize("to", ["folder", "bucket"])
def test_a_store_may_be_moved_because_nothing_absolute_is_in_it(
    store: Store, tmp_path: Path, server: Server, to: str
) -> None:
    result = put(store)
    store.mark_measured(result)
    store.save_state(OTHER.key, 1, {"x": 1})
    for content in Files(store.root).values():
        assert str(store.root).encode() not in content
    moved = Store(tmp_path / "elsewhere" if to == "folder" else buckets.new("another/prefix"))
    Files(moved.root).update(Files(store.root))
    found = moved.get(STAGE)
    assert found == result and moved.check(STAGE) and moved.measured(found)
    assert same(moved.weights(found), weights()) and kept_state(moved, OTHER.key) == {"x": 1}


def test_weights_that_are_no_neat_tensors_are_an_error_of_ours_and_store_nothing(store: Store, files: Files) -> None:
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        store.put(STAGE, {"a": shared, "b": shared}, **facts())
    assert store.get(STAGE) is None and not files


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_never_stored(store: Store, score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        put(store, score=score)
    assert store.get(STAGE) is None


def test_a_result_that_its_check_refuses_is_none(store: Store) -> None:
    def refuse(result: Result) -> None:
        assert same(store.weights(result), weights()), "they can be read already"
        assert store.get(STAGE) is None, "and nobody else sees them"
        raise RuntimeError("another score")

    with pytest.raises(RuntimeError, match="another score"):
        put(store, check=refuse)
    assert store.get(STAGE) is None and not store.check(STAGE)
    assert put(store, check=store.mark_measured) == store.get(STAGE)


def damage(files: Files, name: str, *, bit: int | None = None, length: int | None = None) -> None:
    content = bytearray(files[name])
    if bit is not None:
        content[bit // 8] ^= 1 << bit % 8
    files[name] = bytes(content[:length])


@pytest.mark.parametrize("length", [0, 1, 8, 100, -1])
def test_truncated_weights_are_not_done(store: Store, files: Files, length: int) -> None:
    result = put(store)
    damage(files, WEIGHTS, length=length)
    assert store.get(STAGE) is None
    with pytest.raises(Damaged, match=rf"{STAGE.key} are damaged .*\.corrupt\); run again"):
        store.weights(result)
    assert put(store) == store.get(STAGE) and store.check(STAGE)
    damage(files, WEIGHTS, length=length)
    assert not store.check(STAGE) and WEIGHTS not in files and f"{WEIGHTS}.corrupt" in files


def test_one_flipped_bit_anywhere_in_the_weights_is_found_and_the_file_set_aside(store: Store, files: Files) -> None:
    result = put(store)
    bits = 8 * len(files[WEIGHTS])
    for bit in [0, bits - 1, *random.Random(0).sample(range(bits), 8)]:
        damage(files, WEIGHTS, bit=bit)
        with pytest.raises(Damaged, match="damaged"):
            store.weights(result)
        assert WEIGHTS not in files and f"{WEIGHTS}.corrupt" in files
        store.mark_measured(put(store))
        assert store.check(STAGE)
        damage(files, WEIGHTS, bit=bit)
        assert not store.check(STAGE) and WEIGHTS not in files
        put(store)
    assert store.check(STAGE)


def test_a_result_without_weights_and_weights_without_a_result_are_not_done(store: Store, files: Files) -> None:
    result = put(store)
    del files[WEIGHTS]
    assert store.get(STAGE) is None and not store.check(STAGE)
    with pytest.raises(Damaged, match="run again"):
        store.weights(result)
    put(store)
    del files[RESULT]
    assert store.get(STAGE) is None and not store.check(STAGE)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"3", b'{"format": 1}', b"\xff\xfe\x00", b'{"format": "x"}', b"{}"]
)
def test_a_result_that_cannot_be_read_is_set_aside(store: Store, files: Files, content: bytes) -> None:
    put(store)
    files[RESULT] = content
    assert store.get(STAGE) is None
    assert files["result.json.corrupt"] == content
    assert put(store) == store.get(STAGE)


def edit(files: Files, **changes: Any) -> None:
    files[RESULT] = json.dumps({**json.loads(files[RESULT]), **changes}).encode()


@pytest.mark.parametrize("changes", [{"score": None}, {"sha256": 3}, {"history": {}}, {"stage": {}}])
def test_a_result_edited_until_it_is_none_is_set_aside(store: Store, files: Files, changes: Any) -> None:
    put(store)
    edit(files, **changes)
    assert store.get(STAGE) is None and RESULT not in files


def test_a_result_with_a_score_of_nan_is_set_aside(store: Store, files: Files) -> None:
    put(store)
    files[RESULT] = files[RESULT].replace(b'"score": 0.5', b'"score": NaN')
    assert store.get(STAGE) is None


@pytest.mark.parametrize("digits", ["0" * 64, ""])
def test_an_edited_digest_makes_the_weights_unbelieved(store: Store, files: Files, digits: str) -> None:
    put(store)
    edit(files, sha256=digits)
    assert not store.check(STAGE)


def test_an_edited_size_is_not_done(store: Store, files: Files) -> None:
    put(store)
    edit(files, size=7)
    assert store.get(STAGE) is None


def test_a_result_of_another_stage_is_refused_and_left_where_it_is(store: Store, files: Files) -> None:
    put(store, OTHER)
    files.update(Files(store.place.file(OTHER.key)))
    with pytest.raises(Invalid, match=rf"{STAGE.key}/result.json holds another stage .* move that folder away"):
        store.get(STAGE)
    assert RESULT in files


@pytest.mark.parametrize("more", [{}, {"energy": 3}, {"score": [1, 2]}], ids=["same", "another field", "another type"])
def test_a_result_of_a_newer_format_is_named_and_left_alone(store: Store, files: Files, more: Any) -> None:
    put(store)
    edit(files, format=FORMAT + 1, **more)
    before = files[RESULT]
    with pytest.raises(Invalid, match=f"newer tapath \\(format {FORMAT + 1}, this one reads {FORMAT}\\)"):
        store.get(STAGE)
    assert files[RESULT] == before and WEIGHTS in files


# All results at once


def test_the_records_of_a_store_are_those_of_its_finished_stages_by_key(store: Store, files: Files) -> None:
    assert list(store.records()) == []
    results = {of.key: put(store, of) for of in (STAGE, OTHER)}
    store.save_state("0" * 16, 1, state(1))
    with store.weights_copy(results[STAGE.key]) as file:
        store.keep(file, digest(file), "somewhere")
    assert list(store.records()) == [(key, results[key].model_dump(mode="json")) for key in sorted(results)]


def test_a_record_of_any_version_is_read_as_it_is(store: Store, files: Files) -> None:
    put(store)
    edit(files, format=FORMAT + 1, energy=3, score="high", stage=[])
    ((key, record),) = store.records()
    assert key == STAGE.key and (record["energy"], record["score"], record["stage"]) == (3, "high", [])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe\x00", b"[" * 100_000, b"{}"])
def test_a_record_that_cannot_be_read_is_passed_over_and_left_where_it_is(
    store: Store, files: Files, content: bytes
) -> None:
    put(store)
    put(store, OTHER)
    files[RESULT] = content
    assert [key for key, _ in store.records()] == [OTHER.key]
    assert files[RESULT] == content


def test_a_record_without_its_weights_is_passed_over(store: Store, files: Files) -> None:
    put(store)
    damage(files, WEIGHTS, length=8)
    assert list(store.records()) == []
    del files[WEIGHTS]
    assert list(store.records()) == []


def test_what_spoilt_a_result_is_named(store: Store, files: Files) -> None:
    assert store.spoilt(STAGE.key) is None
    put(store)
    damage(files, WEIGHTS, length=8)
    assert store.get(STAGE) is None and store.spoilt(STAGE.key) == f"{STAGE.key}/{WEIGHTS}"
    del files[WEIGHTS]
    assert store.spoilt(STAGE.key) == f"{STAGE.key}/{WEIGHTS}"
    put(store)
    damage(files, WEIGHTS, bit=9)
    assert not store.check(STAGE) and store.spoilt(STAGE.key) == f"{STAGE.key}/{WEIGHTS}.corrupt"
    put(store)
    files[RESULT] = b"{"
    assert store.get(STAGE) is None and store.spoilt(STAGE.key) == f"{STAGE.key}/{RESULT}.corrupt"
    assert store.spoilt(OTHER.key) is None


# Whether weights were measured


def test_weights_are_measured_once_and_for_this_score_and_these_bytes_only(store: Store, files: Files) -> None:
    result = put(store)
    assert not store.measured(result)
    store.mark_measured(result)
    assert store.measured(result)
    assert not store.measured(result.model_copy(update={"score": 0.6}))
    assert not store.measured(result.model_copy(update={"sha256": "0" * 64}))
    assert not store.measured(put(store, OTHER))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"true", b'{"sha256": "", "score": NaN}'])
def test_an_unreadable_measurement_is_none(store: Store, files: Files, content: bytes) -> None:
    result = put(store)
    store.mark_measured(result)
    files["measured.json"] = content
    assert not store.measured(result)


# States


def kept_epochs(files: Files) -> list[int]:
    return [int(name.split("-")[1]) for name in files if name.startswith("state-")]


def test_the_last_two_states_are_kept_and_those_before_dropped(store: Store, files: Files) -> None:
    assert kept_state(store, STAGE.key) is None and store.begun(STAGE.key) == 0
    for n, kept in ((1, [1]), (2, [1, 2]), (10, [2, 10]), (10, [2, 10])):
        store.save_state(STAGE.key, n, state(n))
        assert epoch_of(kept_state(store, STAGE.key)) == n == store.begun(STAGE.key)
        assert kept_epochs(files) == kept and len(files) == len(kept)
    assert [epoch_of(store.state(f"{STAGE.key}/{name}")) for name in files] == [2, 10]
    assert store.state(f"{STAGE.key}/state-000001-{'0' * 64}.pt") is None
    store.drop_state(STAGE.key)
    assert not files and kept_state(store, STAGE.key) is None and store.begun(STAGE.key) == 0
    store.drop_state(STAGE.key)


def test_saving_a_state_twice_does_not_drop_it(store: Store) -> None:
    for _ in range(2):
        store.save_state(STAGE.key, 3, {"x": 1})
    assert kept_state(store, STAGE.key) == {"x": 1}


def test_a_stage_that_pauses_keeps_one_state(store: Store, files: Files) -> None:
    for n in (1, 2):
        store.save_state(STAGE.key, n, state(n))
    store.save_pause(STAGE.key, [{"epoch": 1.0}, {"epoch": 2.0}])
    assert kept_epochs(files) == [2] and len(store.paused(STAGE.key)) == 2


def test_of_two_states_the_later_is_taken_and_if_that_is_damaged_the_other(store: Store, files: Files) -> None:
    for n in (9, 10):
        store.save_state(STAGE.key, n, state(n))
    ninth, tenth = files
    assert epoch_of(kept_state(store, STAGE.key)) == 10 == store.begun(STAGE.key)
    damage(files, tenth, bit=5000)
    assert store.state(f"{STAGE.key}/{tenth}") is None and tenth in files, "who only looks sets nothing aside"
    said: list[str] = []
    for _ in range(2):
        assert epoch_of(kept_state(store, STAGE.key, say=said.append)) == 9 == store.begun(STAGE.key)
    aside = store.place.file(f"{STAGE.key}/{tenth}.corrupt")
    assert f"{tenth}.corrupt" in files
    assert said == [f"what was kept after epoch 10 is damaged; it is set aside as {aside}"]
    damage(files, ninth, length=200)
    assert kept_state(store, STAGE.key) is None and store.begun(STAGE.key) == 0


def test_other_files_in_the_folder_are_none_of_our_states(store: Store, files: Files) -> None:
    for name in ("state-old.pt", "state-1-mine.pt", "state-.pt", "state-abcdef-0.pt", "notes.txt", ".state.pt.abc"):
        files[name] = b"mine"
    assert kept_state(store, STAGE.key) is None and store.begun(STAGE.key) == 0
    store.save_state(STAGE.key, 1, state(1))
    store.drop_state(STAGE.key)
    assert len(files) == 6


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def plant(files: Files, content: bytes) -> str:
    """A state file whose name has the right digest; -> that name."""
    name = f"state-000007-{hashlib.sha256(content).hexdigest()}.pt"
    files[name] = content
    return name


@pytest.mark.parametrize("how", ["pickle", "torch", "old torch"])
def test_code_in_a_state_is_never_run_and_the_file_is_set_aside(
    store: Store, files: Files, tmp_path: Path, how: str
) -> None:
    target, sample = tmp_path / "harmed", tmp_path / "sample"
    hostile = {"training": Hostile(target)}
    if how == "pickle":
        sample.write_bytes(pickle.dumps(hostile, protocol=2))
    else:
        torch.save(hostile, sample, _use_new_zipfile_serialization=how == "torch")
    name = plant(files, sample.read_bytes())
    assert kept_state(store, STAGE.key) is None
    assert not target.exists() and list(files) == [f"{name}.corrupt"]
    torch.load(sample, weights_only=False) if how == "torch" else pickle.loads(pickle.dumps(hostile))
    assert target.exists(), "the sample was harmless"


@pytest.mark.parametrize("content", [b"", b"no state at all"])
def test_a_well_named_file_that_is_no_state_is_set_aside(store: Store, files: Files, content: bytes) -> None:
    name = plant(files, content)
    assert kept_state(store, STAGE.key) is None and name not in files


def test_code_in_place_of_weights_is_never_run(store: Store, files: Files, tmp_path: Path) -> None:
    target = tmp_path / "harmed"
    result = put(store)
    files[WEIGHTS] = content = pickle.dumps(Hostile(target))
    edit(files, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    believed = store.get(STAGE)
    assert believed is not None and believed != result
    with pytest.raises(Exception, match=r"(?i)header"):
        store.weights(believed)
    assert not target.exists()


# Published weights

SHA256 = "a" * 64
SOURCE = "https://user:secret@example.org/x.pth?token=secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "x.tar.gz").write_bytes(b"weights")
    return tmp_path / "x.tar.gz"


def test_published_weights_are_kept_under_their_sum_whatever_their_file_is_called(store: Store, file: Path) -> None:
    sha256 = digest(file)
    store.keep(file, sha256)
    store.keep(file.rename(file.with_name("no suffix")), sha256)
    assert list(Files(store.root)) == [f"published/{sha256}.weights"]
    assert store.published(sha256).read_bytes() == b"weights"


def test_damaged_published_weights_are_set_aside_once(store: Store, file: Path) -> None:
    sha256 = digest(file)
    for _ in range(3):
        store.keep(file, sha256)
        damage(Files(store.root), f"published/{sha256}.weights", length=3)
        for _ in range(2):
            with pytest.raises(Damaged, match="run again"):
                store.published(sha256)
    assert list(Files(store.root)) == [f"published/{sha256}.weights.corrupt"]


def test_what_a_source_was_is_known_and_its_address_is_not_written(store: Store, file: Path) -> None:
    assert store.known(SOURCE) is None
    store.keep(file, SHA256, SOURCE)
    assert store.known(SOURCE) == SHA256 and store.known(f"{SOURCE}2") is None
    store.keep(file, "b" * 64, SOURCE)
    assert store.known(SOURCE) == "b" * 64
    for name, content in Files(store.root).items():
        assert b"secret" not in content and "secret" not in name


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"sha256": "../../etc/passwd"}', b'{"sha256": 3}'])
def test_an_unreadable_note_of_what_a_source_was_is_none(store: Store, file: Path, content: bytes) -> None:
    store.keep(file, SHA256, SOURCE)
    (note,) = (name for name in Files(store.root) if name.endswith(".json"))
    Files(store.root)[note] = content
    assert store.known(SOURCE) is None
    store.keep(file, SHA256, SOURCE)
    assert store.known(SOURCE) == SHA256


# Whether anything can be stored


def test_a_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b").writable()
    assert (tmp_path / "a" / "b").is_dir() and not Files(tmp_path)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_where_the_store_should_be_is_refused_with_its_path(tmp_path: Path, below: str) -> None:
    (tmp_path / "store").write_text("a file")
    store = Store(tmp_path / "store" / below)
    with pytest.raises(Invalid, match=rf"the store {store.root} cannot be written: ") as caught:
        store.writable()
    assert caught.value.where == ("resources", "store")
    assert store.get(STAGE) is None and kept_state(store, STAGE.key) is None and store.begun(STAGE.key) == 0


def test_a_store_that_takes_no_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(Invalid, match="Read-only file system"):
        Store(tmp_path).writable()
