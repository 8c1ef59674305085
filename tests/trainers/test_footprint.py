"""What using a trained model takes is measured at the end of its stage, and is no part of what it learnt."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainers.stages import CPU, DIGITS, stage
from tests.trainers.works import TAUGHT, run
from trainers import backbones, build, detectors, footprint
from trainers.call import Call
from trainers.footprint import ENOUGH, IMAGES, MOST
from trainers.outputs import Network
from trainers.result import Result
from trainers.spec import Model, Recipe


def test_a_result_has_the_size_and_the_latency_of_its_model(undisturbed: tuple[Result, Path]) -> None:
    result, _ = undisturbed
    takes = result.footprint
    assert takes is not None and 0 < takes.latency_ms < 1000
    shape = build.shape(TAUGHT.model, len(TAUGHT.data.classes))
    assert takes.parameters == build.parameters(shape) == sum(p.numel() for p in shape.parameters())


def test_what_a_model_has_for_training_alone_is_not_counted() -> None:
    call = Call(name="MimicDet").complete(detectors)
    built = build.shape(Model(detector=call, backbone=Call(name="ResNet", args={"depth": 18}).complete(backbones)), 3)
    every = sum(p.numel() for p in built.parameters())
    assert 0 < build.parameters(built) < every and build.size(built, (64, 64)).parameters == build.parameters(built)


class Timed:
    """A detector that takes as long as it is told, and remembers what it was given."""

    def __init__(self, times: list[float]) -> None:
        self.times, self.seen = times, list[tuple[int, ...]]()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape))
        time.sleep(self.times[min(len(self.seen), len(self.times)) - 1])
        return images

    def detect(self, outputs: torch.Tensor, sizes: list[tuple[int, int]]) -> list[Any]:
        return [None for _ in sizes]

    def eval(self) -> None:
        pass

    def named_parameters(self) -> list[Any]:
        return []

    strides, training_only = (8,), ()


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(build, "divisor", lambda detector: 1)
    monkeypatch.setattr(build, "parameters", lambda detector: 7)

    def measure(*times: float) -> tuple[footprint.Footprint, list[tuple[int, ...]]]:
        detector: Any = Timed(list(times))
        found = footprint.footprint(detector, build.dataset(DIGITS).val, Recipe(), device=CPU)
        return found, detector.seen

    return measure


def test_latency_is_the_median_of_single_images_after_a_first_pass_of_each(timed: Any) -> None:
    found, seen = timed(*[0.2] * IMAGES, 0.02)
    assert found.parameters == 7 and 20 <= found.latency_ms < 100, "the first passes count for nothing"
    assert {shape[0] for shape in seen} == {1} and IMAGES < len(seen) <= IMAGES + MOST


def test_a_slow_model_is_not_measured_for_longer_than_it_needs(timed: Any) -> None:
    _, seen = timed(0.01, 0.01, 0.01, 0.01, ENOUGH / 2)
    assert len(seen) == IMAGES + footprint.LEAST


def test_measuring_leaves_the_random_numbers_and_the_weights_alone() -> None:
    detector: Network = build.network(stage().model, 3)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    footprint.footprint(detector, build.dataset(DIGITS).val, Recipe(), device=CPU)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.state_dict().items())


def test_a_training_is_not_lost_because_its_model_cannot_be_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(footprint, "footprint", full)
    result = run(stage(epochs=1), tmp_path)
    assert result.footprint is None and result.score >= 0
