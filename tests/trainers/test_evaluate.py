"""What is found in a batch comes back in one copy, and batches go to a device beside what is computed there."""

import pickle
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.trainers import pretend_device
from tests.trainers.recorded import Recorded
from tests.trainers.stages import CPU, recipe
from tests.trainers.test_evaluate_shared import DATA, MODELS, network
from tests.trainers.waits import watched
from trainers import build
from trainers.data import lanes
from trainers.evaluate import fetched, find, original
from trainers.memory import OutOfMemory
from trainers.outputs import Detections

BATCH, BATCHES = 4, 4  # 15 images, the last batch has three
LOADING = {"mask as index": 15, "numpy": 30}  # nobody waits for it: images are on the CPU while they are prepared


def detections(*counts: int, dtype: torch.dtype = torch.float32) -> list[Detections]:
    generator = torch.Generator().manual_seed(0)
    return [
        Detections(
            (100 * torch.rand(n, 4, generator=generator)).to(dtype),
            torch.rand(n, generator=generator).to(dtype),
            torch.randint(0, 80, (n,), generator=generator),
        )
        for n in counts
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0), (0,), (1,)], ids=str)
def test_what_is_fetched_is_what_was_there_to_the_bit(counts: tuple[int, ...], dtype: torch.dtype) -> None:
    every = detections(*counts, dtype=dtype)
    found = fetched(every)
    assert len(found) == len(counts)
    for one, other in zip(found, every, strict=True):
        assert torch.equal(one.boxes, other.boxes.float()) and torch.equal(one.scores, other.scores.float())
        assert torch.equal(one.labels, other.labels) and one.labels.dtype == torch.int64
        assert one.boxes.shape == (len(other.scores), 4) and one.boxes.is_contiguous()


def test_labels_are_exact_however_many_classes_there_are() -> None:
    labels = torch.tensor([0, 2**24 - 1, 2**24])
    (found,) = fetched([Detections(torch.zeros(3, 4), torch.ones(3), labels)])
    assert torch.equal(found.labels, labels)


def test_detections_of_an_image_are_sent_without_those_of_the_others() -> None:
    few, many = fetched(detections(1, 10_000))
    assert len(pickle.dumps(original(few, (0.5, 0.5)))) < 3_000 < len(pickle.dumps(many))


@pytest.mark.parametrize("name", MODELS)
def test_of_a_batch_one_copy_is_waited_for_beside_what_a_detector_waits_for(name: str) -> None:
    detector = network(name)
    with watched(detector) as seen:
        find(detector, build.dataset(DATA).val, recipe(batch=BATCH), device=CPU)
    assert dict(seen) == {"detect": BATCHES, "cpu": BATCHES, **LOADING}


def scarce(detector: Any, method: str, images: int) -> list[int]:
    """Let a method of a detector lack memory for more than so many images; -> how many it is given each time."""
    given: list[int] = []
    whole = getattr(detector, method)

    def limited(first: Any, *rest: Any) -> Any:
        given.append(len(rest[0] if rest else first))
        if given[-1] > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(first, *rest)

    setattr(detector, method, limited)
    return given


@pytest.mark.parametrize("method", ["forward", "detect"])
@pytest.mark.parametrize("name", MODELS)
def test_where_a_batch_has_no_room_half_as_many_images_are_looked_at_from_then_on(
    name: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    detector = network(name)
    given = scarce(detector, method, 2)
    found = find(detector, build.dataset(DATA).val, recipe(batch=BATCH), device=CPU)
    assert given == [4, *[2] * 7, 1]
    assert caplog.messages == ["out of memory in validation with 4 images at once; the rest of it with 2"]
    expected = find(network(name), build.dataset(DATA).val, recipe(batch=2), device=CPU)
    assert found.keys() == expected.keys()
    for image, one in found.items():
        assert all(torch.equal(value, getattr(expected[image], key)) for key, value in vars(one).items())


@pytest.mark.parametrize("method", ["forward", "detect"])
def test_another_error_is_not_taken_for_lack_of_memory(method: str) -> None:
    detector, asked = network("GFL"), list[int]()

    def broken(*given: Any) -> Any:
        asked.append(1)
        raise RuntimeError("index 5 is out of bounds")

    setattr(detector, method, broken)
    with pytest.raises(RuntimeError, match=r"^index 5 is out of bounds$"):
        find(detector, build.dataset(DATA).val, recipe(batch=BATCH), device=CPU)
    assert asked == [1]


def test_where_one_image_has_no_room_it_is_said_what_helps() -> None:
    detector = network("GFL")
    given = scarce(detector, "forward", 0)
    with pytest.raises(OutOfMemory, match="in validation, one image at once; what helps is"):
        find(detector, build.dataset(DATA).val, recipe(batch=BATCH), device=CPU)
    assert given == [4, 2, 1]


def there(name: str) -> tuple[dict[int, Detections], dict[str, int], list[str]]:
    """What is found on another device, to which batches go by a lane; what is waited for, and when they were sent."""
    lane = Recorded(pretend_device.device())
    detector = network(name).to(lane.device)
    detect = detector.detect

    def noted(*given: Any) -> Any:
        lane.events.append("detect")
        return detect(*given)

    detector.detect = noted
    with patch.object(lanes, "lane_to", lambda device: lane), watched(detector) as seen:
        found = find(detector, build.dataset(DATA).val, recipe(batch=BATCH), device=lane.device)
    return found, dict(seen), lane.events


@pytest.mark.parametrize("name", MODELS)
def test_on_another_device_the_same_is_found_and_the_next_batch_is_sent_before_anybody_waits(
    elsewhere: Callable[..., Any], name: str
) -> None:
    found, waited, events = elsewhere(there, name)
    expected = find(network(name), build.dataset(DATA).val, recipe(batch=BATCH), device=CPU)
    assert found.keys() == expected.keys() and sum(len(one.scores) for one in found.values()) > 0
    for image, one in found.items():
        for key, value in vars(one).items():
            assert value.device == CPU and torch.equal(value, getattr(expected[image], key)), key
    assert waited == {"detect": BATCHES, "cpu": BATCHES, "copy": BATCHES, **LOADING}
    sent = [event.split()[0] for event in events if event.startswith(("join", "detect"))]
    assert sent == ["join", *["join", "detect"] * (BATCHES - 1), "detect"]
    images = [event for event in events if "uint8" in event]
    assert len(images) == BATCHES and all(event.endswith("beside") for event in images)
