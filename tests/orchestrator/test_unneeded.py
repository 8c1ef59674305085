"""`tapath gc`: what no study needs goes, and nothing else does, wherever the store is and whenever it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import unneeded
from orchestrator.needed import studies_in
from orchestrator.prepared import prepare
from orchestrator.study import Study, load
from tests.orchestrator.commands import run
from tests.orchestrator.stored import stage_of, store
from tests.orchestrator.studies import changed, without
from tests.trainers.places import Files
from trainers import kept_files, staged
from trainers.address import at
from trainers.call import Invalid
from trainers.lease import Lease
from trainers.spec import Stage
from trainers.staging import named
from trainers.store import Store

SHORT = without("mid", "low")
OTHER = changed(("name: tiny", "name: other"), ("temperature: 10", "temperature: 5"), text=SHORT)
EVERY = [("big",), ("big", "wee"), ("wee",)]


@pytest.fixture(autouse=True)
def here(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, temporary files of its own, and no MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield


def study(address: File | str, text: str = SHORT, name: str = "tiny.yaml") -> Study:
    File(name).write_text(f"{text}resources: {{store: {json.dumps(str(address))}}}\n")
    return load(name)


def both(address: File | str) -> tuple[Study, Study]:
    """A study that is needed and one that is not, all stages of both in one store: the teacher is the same."""
    mine, theirs = study(address), study(address, OTHER, "other.yaml")
    store(mine, *EVERY)
    store(theirs, *EVERY)
    return mine, theirs


def keys(study: Study, *paths: tuple[str, ...]) -> set[str]:
    return {stage_of(study, *path).key for path in paths or EVERY}


def stored(address: File | str) -> set[str]:
    return {name.split("/")[0] for name in Files(address)} - {"published"}


def sorted_out(*names: str, **options: Any) -> unneeded.Sorted:
    return unneeded.sort([File(name) for name in names or ("tiny.yaml",)], **options)


def going(found: unneeded.Sorted, kind: str = "stage") -> set[str]:
    return {one.name for one in found.scraps if one.kind == kind}


def test_what_only_another_study_wants_goes_and_nothing_else(address: File | str) -> None:
    mine, theirs = both(address)
    found = sorted_out()
    assert going(found) == keys(theirs) - keys(mine) != set()
    assert unneeded.remove(found) == []
    assert stored(address) == keys(mine)
    assert all(Store(address).check(stage_of(mine, *path)) for path in EVERY)
    if isinstance(address, File):
        assert {one.name for one in address.iterdir()} == keys(mine), "no empty folder is left"


def test_of_two_studies_that_are_named_everything_stays(address: File | str) -> None:
    both(address)
    assert sorted_out("tiny.yaml", "other.yaml").scraps == []


def test_without_delete_it_is_only_listed(tmp_path: File) -> None:
    both(tmp_path / "store")
    before = stored(tmp_path / "store")
    ended = run("gc", "tiny.yaml")
    assert ended.exit_code == 0 and "nothing was removed; add --delete" in ended.stdout
    assert "no study that is named wants it" in ended.stdout and stored(tmp_path / "store") == before
    ended = run("gc", "tiny.yaml", "--delete", "--json")
    made = json.loads(ended.stdout)
    assert made["removed"] == len(made["scraps"]) == 1 and made["size"] > 0 and made["left"] == []
    assert stored(tmp_path / "store") != before


def test_all_studies_of_a_folder_are_needed(tmp_path: File) -> None:
    both(tmp_path / "store")
    File("deep").mkdir()
    shutil.move("other.yaml", "deep/other.yml")
    File("deep/notes.yaml").write_text("a: list of things")
    assert [file.name for file in studies_in(tmp_path)] == ["other.yml", "tiny.yaml"]
    ended = run("gc", "--all-studies-in", ".", "--delete")
    assert ended.exit_code == 0 and "there is nothing to remove" not in ended.stderr
    assert "0 things" in ended.stdout


def test_studies_in_linked_folders_in_any_case_and_without_a_suffix_are_needed(tmp_path: File) -> None:
    mine, _ = both(tmp_path / "store")
    (tmp_path / "team").mkdir()
    (tmp_path / "studies").mkdir()
    shutil.move("other.yaml", "team/other.YAML")
    shutil.move("tiny.yaml", "studies/tiny")
    File("studies/notes").write_text("data: 3\n")
    File("studies/team").symlink_to("../team")
    File("team/back").symlink_to("../studies")  # round and round
    found = studies_in(File("studies"))
    assert sorted(map(str, found)) == ["studies/team/other.YAML", "studies/tiny"]
    ended = run("gc", "--all-studies-in", "studies", "--delete")
    assert ended.exit_code == 0 and "0 things" in ended.stdout and keys(mine) <= stored(tmp_path / "store")


def test_what_looks_like_a_study_and_is_not_counted_is_named(tmp_path: File) -> None:
    study(tmp_path / "store")
    shutil.copy("tiny.yaml", "old.yaml.bak")
    File("broken").write_text("data: [\nmodels: {}\ndistill: PKD\n")
    said: list[str] = []
    assert [file.name for file in studies_in(tmp_path, said.append)] == ["tiny.yaml"]
    broken, old = said
    assert "broken:3: not YAML" in broken and "old.yaml.bak looks like a study" in old and "name it, too" in old
    assert "warning: this looks like a study" in run("gc", "--all-studies-in", ".").stderr


def test_a_folder_that_cannot_be_looked_into_ends_it(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "store")

    def closed(folder: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(Invalid, match=r"cannot be read: Permission denied; there may be studies"):
        studies_in(tmp_path)


def test_a_half_trained_stage_goes_with_its_states(address: File | str) -> None:
    mine, theirs = both(address)
    files = Files(address)
    (key,) = keys(theirs) - keys(mine)
    for name in (f"{key}/result.json", f"{key}/weights.safetensors"):
        del files[name]
    files[f"{key}/state-000001-{'a' * 64}.pt"] = b"state"
    files[f"{key}/paused.json"] = files[f"{key}/sources.json"] = b"{}"
    (one,) = sorted_out().scraps
    assert one.name == key and "not finished" in one.reason
    assert unneeded.remove(sorted_out()) == [] and key not in stored(address)


def test_what_somebody_trains_stays_and_for_a_study_that_is_not_named_nothing_goes(address: File | str) -> None:
    mine, theirs = both(address)
    (key,) = keys(theirs) - keys(mine)
    lease = Lease(at(address).file(key), study="other")
    assert lease.take()
    try:
        found = sorted_out()
        assert found.scraps == [] and found.strangers == [key]
        with pytest.raises(Invalid, match="not named"):
            unneeded.remove(found)
        assert not kept_files.remove_stage(at(address), key, patience=0)
        assert f"{key}/result.json" in Files(address)
    finally:
        lease.release()
    assert going(sorted_out()) == {key}


def test_what_was_taken_up_since_it_was_listed_stays(address: File | str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = both(address)
    (key,) = keys(theirs) - keys(mine)
    found = sorted_out()
    lease = Lease(at(address).file(key))
    assert lease.take()
    monkeypatch.setattr(kept_files, "EXPIRY", 0.0)
    monkeypatch.setattr(kept_files.remove_stage, "__kwdefaults__", {"patience": 0.0})
    try:
        assert [one.name for one in unneeded.remove(found)] == [key]
    finally:
        lease.release()
    assert f"{key}/weights.safetensors" in Files(address)


def test_what_is_not_known_stays(address: File | str) -> None:
    mine, theirs = both(address)
    (key,) = keys(theirs) - keys(mine)
    files, strange = Files(address), [f"{key}/notes.txt", "readme.txt", "warm/0123.json", "deep/er/file", "0123/a.json"]
    for name in strange:
        files[name] = b"mine"
    assert unneeded.remove(sorted_out()) == []
    left = {name for name in files if name.split("/")[0] not in keys(mine)}
    assert left == set(strange)


def test_what_was_damaged_and_set_aside_goes_of_a_needed_stage_too(address: File | str) -> None:
    mine, _ = both(address)
    (teacher,) = keys(mine, ("big",))
    files = Files(address)
    files[f"{teacher}/weights.safetensors.corrupt"] = b"broken"
    files[f"{teacher}/notes.corrupt"] = b"none of ours"
    found = sorted_out()
    assert going(found, "aside") == {f"{teacher}/weights.safetensors.corrupt"}
    unneeded.remove(found)
    assert f"{teacher}/weights.safetensors.corrupt" not in files and f"{teacher}/notes.corrupt" in files
    assert Store(address).check(stage_of(mine, "big"))


def test_published_weights_go_with_the_last_that_started_from_them(tmp_path: File) -> None:
    _, theirs = both(tmp_path / "store")
    third = study(tmp_path / "store", OTHER.replace("temperature: 5", "temperature: 7"), "third.yaml")
    store(third, ("big", "wee"))
    files = Files(tmp_path / "store")
    young, old = (stage_of(one, "big", "wee").key for one in (theirs, third))
    for digit, key in (("0", young), ("1", old)):  # as if each had started from weights of its own
        record = json.loads(files[f"{key}/result.json"])
        record["stage"]["model"]["weights"] = {"sha256": digit * 64, "part": "backbone"}
        files[f"{key}/result.json"] = json.dumps(record).encode()
        File("given").write_bytes(digit.encode())
        Store(tmp_path / "store").keep(File("given"), digit * 64, f"https://somewhere/{digit}.pth")
    for name in files:
        if not name.startswith(young):
            os.utime(tmp_path / "store" / name, (0, 0))
    found = sorted_out(older="1h")
    assert going(found) == {old} and going(found, "weights") == {f"published/{'1' * 64}.weights"}
    unneeded.remove(found)
    left = [name for name in files if name.startswith("published/")]
    assert len(left) == 2 and f"published/{'0' * 64}.weights" in left
    assert Store(tmp_path / "store").known("https://somewhere/0.pth") == "0" * 64


def test_while_a_stage_is_begun_that_might_need_them_published_weights_stay(tmp_path: File) -> None:
    mine, theirs = both(tmp_path / "store")
    (key,) = keys(theirs) - keys(mine)
    File("given").write_bytes(b"weights")
    Store(tmp_path / "store").keep(File("given"), "a" * 64)
    os.utime(tmp_path / "store/published" / f"{'a' * 64}.weights", (0, 0))
    del Files(tmp_path / "store")[f"{key}/result.json"]  # it is young, so it stays, and does not say what it needs
    assert sorted_out(older="1h").scraps == []
    assert going(sorted_out(), "weights") != set()


def test_what_is_younger_than_one_says_stays(tmp_path: File) -> None:
    mine, theirs = both(tmp_path / "store")
    (key,) = keys(theirs) - keys(mine)
    assert sorted_out(older="1h").scraps == []
    for file in (tmp_path / "store" / key).iterdir():
        os.utime(file, (time.time() - 7200, time.time() - 7200))
    assert going(sorted_out(older="1h")) == {key} and sorted_out(older="3h").scraps == []


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("1.5 w", 907_200), ("90s", 90)])
def test_an_age_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert unneeded.age(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1 month", ""])
def test_another_age_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="30d"):
        unneeded.age(text)


def test_what_a_registered_model_was_made_of_stays_with_its_teachers(uri: str, tmp_path: File) -> None:
    from orchestrator.connection import connect

    mine, theirs = both(tmp_path / "store")
    (key,) = keys(theirs) - keys(mine)
    store(study(tmp_path / "store", OTHER.replace("temperature: 5", "temperature: 7"), "third.yaml"), ("big", "wee"))
    File("third.yaml").unlink()
    client = connect(uri)
    client.create_registered_model("other")
    client.create_model_version("other", "file:///nowhere", tags={"key": key})
    client.create_model_version("other", "file:///nowhere")  # somebody else's
    for found in (sorted_out(), sorted_out(tracking=uri)):  # it is the study's own, too
        assert len(going(found)) == 1 and key not in going(found)


def test_an_mlflow_that_was_named_and_is_not_there_ends_it(tmp_path: File) -> None:
    both(tmp_path / "store")
    before = stored(tmp_path / "store")
    ended = run("gc", "tiny.yaml", "--delete", "--tracking", "sqlite:///typo.db")
    assert ended.exit_code == 2 and f"--tracking: there is no MLflow database {tmp_path / 'typo.db'}" in ended.stderr
    assert stored(tmp_path / "store") == before


def test_a_studys_own_mlflow_that_is_not_there_is_a_warning(tmp_path: File, uri: str) -> None:
    both(tmp_path / "store")
    assert run("gc", "tiny.yaml").stderr == ""
    shutil.move("mlflow.db", "elsewhere.db")
    ended = run("gc", "tiny.yaml")
    assert ended.exit_code == 0 and f"warning: there is no MLflow database {tmp_path / 'mlflow.db'}" in ended.stderr
    assert "name it: --tracking" in ended.stderr


def test_an_mlflow_that_cannot_be_asked_ends_it(tmp_path: File) -> None:
    both(tmp_path / "store")
    with pytest.raises(Invalid, match="cannot be used"):
        sorted_out(tracking="http://127.0.0.1:9")


def test_a_study_of_which_it_is_not_known_what_it_needs_ends_it(tmp_path: File) -> None:
    both(tmp_path / "store")
    text = changed(("{Digits: {classes: 3, train: 32, val: 16}}", "{COCO: {root: gone}}"), text=SHORT)
    study(tmp_path / "store", text, "gone.yaml")
    with pytest.raises(Invalid, match=r"what gone.yaml needs is not known, so nothing is removed:\n.*no folder gone"):
        sorted_out("tiny.yaml", "gone.yaml")


def test_no_study_or_several_stores_are_refused(tmp_path: File) -> None:
    assert "name the studies" in run("gc").stderr
    study(tmp_path / "one")
    study(tmp_path / "two", OTHER, "other.yaml")
    ended = run("gc", "tiny.yaml", "other.yaml")
    assert ended.exit_code == 2 and "several stores" in ended.stderr
    assert run("gc", "tiny.yaml", "other.yaml", "--store", str(tmp_path / "one")).exit_code == 0


@pytest.mark.parametrize("after", range(5))
def test_killed_in_the_middle_it_ends_well_when_it_is_done_again(
    address: File | str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = both(address)
    Files(address)[f"{stage_of(mine, 'big').key}/result.json.corrupt"] = b"broken"
    found, removed = sorted_out(), []
    place = type(found.place)
    real = place.remove

    def remove(self: Any, name: str) -> None:
        if len(removed) == after:
            raise KeyboardInterrupt
        removed.append(name)
        real(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(place, "remove", remove)
        try:
            unneeded.remove(found)
        except KeyboardInterrupt:
            assert not removed or Store(address).get(stage_of(theirs, "big", "wee")) is None, "its result goes first"
    assert unneeded.remove(sorted_out()) == []
    assert sorted_out().scraps == [] and stored(address) == keys(mine)
    assert all(Store(address).check(stage_of(mine, *path)) for path in EVERY)


def test_copies_of_data_that_no_study_wants_go_unless_they_are_read(tmp_path: File) -> None:
    mine = study(tmp_path / "store")
    wanted = named(mine.data, prepare(mine).inputs.dataset.fingerprint)
    place = tmp_path / "temporary" / f"tapath-{os.getuid()}"
    for name in (wanted, f"COCO-{'0' * 16}", f"COCO-{'1' * 16}", "mine", f"COCO-{'2' * 16}"):
        (place / name / "files").mkdir(parents=True)
        (place / name / "files/image.jpg").write_bytes(b"image")
        (place / name / "whole.json").write_text("{}")
    (place / f"COCO-{'2' * 16}" / "notes.txt").write_text("mine")
    reader = subprocess.Popen(
        [sys.executable, "-c", READS, str(place / f"COCO-{'1' * 16}")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None and reader.stdout.readline() == b"reads\n"
    found = sorted_out()
    assert going(found, "copy") == {str(place / f"COCO-{'0' * 16}")}
    assert unneeded.remove(found) == [] and not (place / f"COCO-{'0' * 16}").exists()
    assert not staged.remove(place / f"COCO-{'1' * 16}") and (place / f"COCO-{'1' * 16}" / "whole.json").exists()
    reader.communicate()
    assert going(sorted_out(), "copy") == {str(place / f"COCO-{'1' * 16}")}
    assert (place / wanted).exists() and (place / "mine").exists()


READS = """
import sys
from pathlib import Path
from trainers.staged import use
use(Path(sys.argv[1]))
print("reads", flush=True)
sys.stdin.read()
"""

MODELS = ("mid", "low")
SEARCHES = ("exhaustive", "greedy", "best_predecessor", "{successive_halving: {budgets: [0.5, 1]}}")
TEXTS = st.builds(
    lambda gone, search, seeds, temperature: (
        without(*gone, text=changed(("temperature: 10", f"temperature: {temperature}"))).replace("name: tiny", "")
        + f"search: {search}\nseeds: {seeds}\n"
    ),
    st.sets(st.sampled_from(MODELS)),
    st.sampled_from(SEARCHES),
    st.sampled_from(([0], [0, 1])),
    st.sampled_from((5, 10)),
)


def wants(study: Study) -> dict[str, Stage]:
    """The stages that a study wants by what its store has, by key."""
    prepared = prepare(study)
    nodes = prepared.frontier(prepared.stored).wanted()
    return {one.key: one for node in nodes for one in node.stage.lineage}


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(texts=st.lists(TEXTS, min_size=2, max_size=3), scores=st.randoms(use_true_random=False))
def test_no_stage_goes_that_a_study_wants_whatever_else_is_stored(texts: list[str], scores: Any) -> None:
    import torch

    shutil.rmtree("store", ignore_errors=True)
    studies = [study("store", text, f"study-{i}.yaml") for i, text in enumerate(texts)]
    for _ in range(3):  # strategies want more once they see scores
        for one in (stage for each in studies for stage in wants(each).values()):
            if scores.random() < 0.7 and Store("store").get(one) is None:
                score, epochs = scores.random(), float(one.recipe.epochs)
                history = [{"epoch": epochs, "val/AP": score}]
                facts = {"score": score, "metrics": {"val/AP": score}, "history": history}
                Store("store").put(one, {"weight": torch.zeros(1)}, **facts, seconds=1.0, device="cpu")
    before, named_too = stored(File("store")), studies[:-1]
    wanted = {key for each in named_too for key in wants(each)}
    found = unneeded.sort([File(each.file) for each in named_too])
    assert unneeded.remove(found) == []
    assert before & wanted <= stored(File("store"))
    assert all(Store("store").check(one) for each in named_too for key, one in wants(each).items() if key in before)
    assert sorted_out(*(each.file for each in named_too)).scraps == []
