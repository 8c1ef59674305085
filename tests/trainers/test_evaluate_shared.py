"""What is measured does not depend on how many workers measure it, not in the last bit; and all of them go on."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.stages import CPU, DIGITS, recipe, stage
from tests.trainers.two_workers import together
from tests.trainers.works import ROOT, TAUGHT, run
from trainers import backbones, build, detectors, teacher, workers
from trainers.call import Call
from trainers.data.split import Split
from trainers.evaluate import find, measure
from trainers.outputs import Detections, Network
from trainers.spec import Model
from trainers.store import Store

# 15 images in batches of four: of four batches each of two workers has two, the last is smaller; of 3 in batches of
# four the second worker has none.
DATA = Call(name="Digits", args={"classes": 2, "train": 1, "val": 15, "size": 48})
FEW = Call(name="Digits", args={"classes": 2, "train": 1, "val": 3, "size": 48})
UNTRUE = stage(seed=3)
FOLDER = "TAPATH_TEST_FOLDER"  # tells the workers, which inherit it, where the store is
MODELS = {
    "GFL": {"channels": 8, "convs": 1, "extra": 0, "reg_max": 4},
    "FasterRCNN": {"channels": 8, "extra": 0, "hidden": 16},
}


def network(name: str) -> Network:
    """One that finds something, with batch norms that have seen images."""
    torch.manual_seed(5)
    knobs = {key: value for key, value in MODELS[name].items() if key in Call(name=name).knobs(detectors)}
    model = Model(
        detector=Call(name=name, args=knobs).complete(detectors),
        backbone=Call(name="TinyResNet", args={"width": 8, "norm": "batch"}).complete(backbones),
    )
    built = build.network(model, 2)
    images = torch.rand(2, 3, 64, 64)
    built.train()
    built(images)
    for p in built.parameters():
        if (p < -4).all():  # the bias by which a fresh detector finds nothing
            p.detach().zero_()
    return built


def figures(name: str, call: Call, *, rank: int = 0) -> dict[str, Any]:
    data, built = build.dataset(call), network(name)
    for buffer in built.buffers():
        buffer += rank  # as in a training, in which each worker's have seen other images
    measured = measure(built, data, recipe(batch=4), device=CPU)
    found = find(built, data.val, recipe(batch=4), device=CPU, rank=workers.rank(), world=workers.count())
    return {"figures": measured, "found": {image: vars(one) for image, one in found.items()}}


def all_together(rank: int) -> dict[str, Any]:
    """Everything in one go: to start two processes takes longer than what they do."""
    cases = [(name, call) for name in MODELS for call in (DATA, FEW)]
    return {
        "measured": {f"{name} {call.args['val']}": figures(name, call, rank=rank) for name, call in cases},
        "trained": trained(),
        "refused": refused(),
    }


def trained() -> dict[str, Any]:
    seen: list[dict[str, float]] = []
    folder = Path(os.environ[FOLDER])
    results = [run(one, folder, wrap=DistributedDataParallel, report=seen.append) for one in (ROOT, TAUGHT)]
    return {"scores": [result.score for result in results], "seen": seen}


def refused() -> str:
    try:
        teacher.verified(Store(os.environ[FOLDER]), UNTRUE, build.dataset(DIGITS), device=CPU)
    except teacher.NotTheTeacher as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has a stage whose record is wrong."""
    folder = tmp_path_factory.mktemp("shared")
    facts = {"score": 0.75, "metrics": {"val/AP": 0.75}, "history": [], "seconds": 1.0, "device": "cpu"}
    Store(folder / "store").put(UNTRUE, build.detector(UNTRUE).state_dict(), **facts)
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder / "store"))
        return together(all_together, folder)


@pytest.mark.parametrize("call", [DATA, FEW], ids=["many", "few"])
@pytest.mark.parametrize("name", MODELS)
def test_two_workers_measure_what_one_measures(two: list[dict[str, Any]], name: str, call: Call) -> None:
    whole = figures(name, call)
    first, second = (part["measured"][f"{name} {call.args['val']}"] for part in two)
    assert first["figures"] == second["figures"] == whole["figures"] and whole["figures"]
    assert not first["found"].keys() & second["found"].keys()
    shared = {**first["found"], **second["found"]}
    assert shared.keys() == whole["found"].keys() == set(build.dataset(call).val.ids)
    assert sum(len(one["scores"]) for one in shared.values()) > 0
    for image, one in whole["found"].items():
        assert all(torch.equal(one[key], shared[image][key]) for key in one)


def test_two_workers_train_measure_and_store_a_stage_and_its_teacher(folder: Path, two: list[dict[str, Any]]) -> None:
    first, second = (part["trained"] for part in two)
    store = Store(folder / "store")
    assert first["scores"] == second["scores"]
    for one, score in zip((ROOT, TAUGHT), first["scores"], strict=True):
        result = store.get(one)
        assert result is not None and result.score == score and store.measured(result)
        alone = measure(teacher.load(store, one, device=CPU), build.dataset(DIGITS), one.recipe, device=CPU)
        assert {f"val/{name}": value for name, value in alone.items()} == result.metrics
    validated = [
        [{name: value for name, value in entry.items() if name.startswith("val/")} for entry in each["seen"]]
        for each in (first, second)
    ]
    assert validated[0] == validated[1] and len(validated[0]) == 4 and all(validated[0])


def test_every_worker_refuses_a_teacher_of_another_score(two: list[dict[str, Any]]) -> None:
    first, second = (part["refused"] for part in two)
    assert "but their record says 0.7500" in first and first == second


def test_a_worker_alone_gathers_and_is_told_its_own() -> None:
    found = {1: Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0))}
    assert workers.gathered(found) == [found] and workers.told("word") == "word"
    tensor = torch.ones(2)
    workers.align([tensor])
    assert torch.equal(tensor, torch.ones(2))


def test_of_a_split_without_images_nothing_is_found() -> None:
    empty = Split({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, ("a",), lambda index: None)
    assert find(network("GFL"), empty, recipe(batch=4), device=CPU) == {}
