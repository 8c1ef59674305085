"""A study whose teacher has published weights measures it instead of training it; as a user types it."""

from __future__ import annotations

import shutil
from pathlib import Path as File

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.studies import Ran, changed, tapath, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO = without("mid", "low")
BIG = "  big: {detector"


@pytest.fixture(scope="module")
def weights(finished: File, tmp_path_factory: pytest.TempPathFactory) -> File:
    """The weights of a teacher that somebody else has trained."""
    key = studies.stages(finished)["big",]["key"]
    file = tmp_path_factory.mktemp("elsewhere") / "big.safetensors"
    shutil.copyfile(finished / "store" / key / "weights.safetensors", file)
    return file


@pytest.fixture(scope="module")
def signed(weights: File) -> File:
    """The same, at an address with a token."""
    file = weights.with_name(f"{weights.name}?X-Amz-Signature=t0psecret")
    shutil.copyfile(weights, file)
    return file


@pytest.fixture(scope="module")
def ran(signed: File, tmp_path_factory: pytest.TempPathFactory) -> tuple[File, Ran]:
    folder = tmp_path_factory.mktemp("published")
    write(folder, changed((BIG, f"  big: {{weights: 'file://{signed}', detector"), text=TWO))
    ran = tapath(folder, "run", "tiny.yaml")
    assert ran.code == 0, ran.err
    return folder, ran


def test_the_teacher_is_measured_only_and_has_the_score_that_it_was_trained_to(
    ran: tuple[File, Ran], finished: File
) -> None:
    folder, run = ran
    assert "big  measured only" in run.err
    mine, theirs = studies.stages(folder)["big",], studies.stages(finished)["big",]
    assert mine["score"] == theirs["score"]
    assert (mine["epochs"], mine["epoch"], mine["history"]) == (0, 0, [])


def test_its_weights_in_the_store_are_the_published_ones(ran: tuple[File, Ran], weights: File) -> None:
    folder, _ = ran
    stored = load_file(folder / "store" / studies.stages(folder)["big",]["key"] / "weights.safetensors")
    given = load_file(weights)
    assert stored.keys() == given.keys()
    assert all(torch.equal(stored[name], given[name]) for name in given)


def test_it_teaches_as_if_it_had_been_trained_here(ran: tuple[File, Ran], finished: File) -> None:
    folder, _ = ran
    assert studies.stages(folder)["big", "wee"]["score"] == studies.stages(finished)["big", "wee"]["score"]


def test_run_again_everything_is_there(ran: tuple[File, Ran]) -> None:
    folder, _ = ran
    before = studies.written(folder)
    again = tapath(folder, "run", "tiny.yaml")
    assert again.code == 0 and "3 stages trained before" in again.err, again.err
    assert studies.written(folder) == before


def test_with_the_file_moved_away_everything_still_works(ran: tuple[File, Ran], signed: File) -> None:
    folder, _ = ran
    away = signed.rename(signed.with_name("away"))
    try:
        for command in (("status",), ("run",)):
            again = tapath(folder, *command, "tiny.yaml")
            assert again.code == 0, again.err
        assert "3 stages trained before" in again.err
    finally:
        away.rename(signed)


def test_weights_that_do_not_fit_are_refused_by_name_before_anything_starts(weights: File, tmp_path: File) -> None:
    state = load_file(weights)
    name = "neck.laterals.0.weight"
    save_file({**state, name: state[name][:-1].contiguous()}, tmp_path / "wrong.safetensors")
    write(tmp_path, changed((BIG, "  big: {weights: wrong.safetensors, detector"), text=TWO))
    ran = tapath(tmp_path, "run", "tiny.yaml")
    assert ran.code == 2
    assert "tiny.yaml:4: models.big.weights" in ran.err and name in ran.err
    assert not (tmp_path / "store").exists()


def test_weights_that_are_not_there_are_refused_with_their_line(tmp_path: File) -> None:
    write(tmp_path, changed((BIG, "  big: {weights: gone.pth, detector"), text=TWO))
    ran = tapath(tmp_path, "plan", "tiny.yaml")
    assert ran.code == 2
    assert "tiny.yaml:4: models.big.weights" in ran.err and "there is no file gone.pth" in ran.err


def test_for_other_classes_a_published_detector_is_trained_on(weights: File, tmp_path: File) -> None:
    begins = (BIG, f"  big: {{weights: {{file: '{weights}', part: without_classes}}, detector")
    text = changed(begins, ("classes: 3", "classes: 5"), text=TWO)
    write(tmp_path, text.replace("part: without_classes", "part: detector"))
    refused = tapath(tmp_path, "plan", "tiny.yaml")
    assert refused.code == 2 and "to train it on with other classes, write part: without_classes" in refused.err
    write(tmp_path, text)
    ran = tapath(tmp_path, "run", "tiny.yaml")
    assert ran.code == 0, ran.err
    teacher = studies.stages(tmp_path)["big",]
    assert teacher["epochs"] == len(teacher["history"]) > 0
    learnt = load_file(tmp_path / "store" / teacher["key"] / "weights.safetensors")
    assert learnt["head.cls.bias"].shape == (5,) and load_file(weights)["head.cls.bias"].shape == (3,)


def test_one_measurement_serves_every_seed(weights: File, tmp_path: File) -> None:
    with_weights = (BIG, f"  big: {{weights: {weights}, detector")
    write(tmp_path, changed(with_weights, ("distill:", "seeds: [0, 1]\ndistill:"), text=TWO))
    ran = tapath(tmp_path, "run", "tiny.yaml")
    assert ran.code == 0, ran.err
    made = studies.report(tmp_path)
    assert sorted(stage["path"] for stage in made["stages"]) == [["big"]] + [["big", "wee"]] * 2 + [["wee"]] * 2
    assert len(the_answer(made)["best"]["scores"]) == 2


def test_a_published_student_is_a_yardstick_for_every_seed(weights: File, tmp_path: File) -> None:
    """A model like the teacher, which others have trained with another seed."""
    line = next(line for line in TWO.splitlines() if line.startswith(BIG))
    wee = next(line for line in TWO.splitlines() if line.startswith("  wee:"))
    twin = line.replace("  big: {", f"  wee: {{weights: {weights}, ")
    write(tmp_path, changed((wee, twin), ("distill:", "seeds: [1, 2]\ndistill:"), text=TWO))
    ran = tapath(tmp_path, "run", "tiny.yaml")
    assert ran.code == 0, ran.err
    made = studies.report(tmp_path)
    assert the_answer(made)["baseline"]["scores"] == [the_answer(made)["baseline"]["score"]] * 2


def test_the_tokens_of_an_address_are_in_no_report(ran: tuple[File, Ran]) -> None:
    folder, run = ran
    assert "t0psecret" in (folder / "tiny.yaml").read_text()
    for file in (folder / "runs" / "tiny").iterdir():
        assert "t0psecret" not in file.read_text()
    assert "t0psecret" not in run.err + run.out
