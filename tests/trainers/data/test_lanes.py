"""A batch that goes to a device beside what is computed there is the batch that the CPU would have made, to the bit."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainers import pretend_device
from tests.trainers.recorded import Recorded
from tests.trainers.stages import DIGITS
from tests.trainers.waits import watched
from trainers import build
from trainers.clock import Clock
from trainers.data import lanes
from trainers.data.assemble import Part
from trainers.data.batches import CPU, Batches, in_order
from trainers.data.canvases import Canvases
from trainers.data.lanes import sent
from trainers.feeding import Feed
from trainers.outputs import Truth


def part(*, masks: bool = False, ignored: bool = False, boxes: tuple[int, ...] = (2, 0)) -> Part:
    """Two images, the second with padding at the right and at the bottom."""
    pixels = torch.randint(0, 256, (2, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draw = np.random.default_rng(0)
    real = [draw.random((n, 4), dtype=np.float32) for n in boxes]
    crowds = [draw.random((n, 4), dtype=np.float32) for n in (1, 2)] if ignored else []
    drawn = [torch.ones(n, 8, 10, dtype=torch.bool) for n in boxes] if masks else []
    labels = [np.arange(n) for n in boxes]
    return Part(pixels, real, labels, [(8, 10), (5, 7)], [3, 4], [(1.0, 1.0)] * 2, drawn, crowds, {})


def check_same(found: tuple[Tensor, Truth], expected: tuple[Tensor, Truth]) -> None:
    (images, truth), (plain, real) = found, expected
    assert torch.equal(images.cpu(), plain) and images.dtype == plain.dtype
    for name in ("boxes", "labels", "masks", "ignored"):
        ours, theirs = getattr(truth, name), getattr(real, name)
        assert (ours is None) == (theirs is None), name
        for one, other in zip(ours or (), theirs or (), strict=True):
            assert torch.equal(one.cpu(), other) and one.dtype == other.dtype, name
    assert (truth.sizes, truth.ids, truth.scales) == (real.sizes, real.ids, real.scales)


EVERY = pytest.mark.parametrize(
    "facts", [{}, {"masks": True}, {"ignored": True}, {"masks": True, "ignored": True}, {"boxes": (0, 0)}], ids=str
)


@EVERY
def test_it_is_the_batch_of_the_cpu_to_the_bit(facts: dict[str, Any]) -> None:
    check_same(sent(part(**facts), Recorded()), part(**facts).batch(Canvases()))


def test_everything_is_copied_beside_and_read_after_that_and_images_go_as_bytes() -> None:
    lane = Recorded()
    _, truth = sent(part(), lane)
    assert truth.lane is lane, "where more that follows from it may be computed"
    assert lane.events == [
        "ready (2, 3, 8, 10) torch.uint8 beside",
        "ready (2, 2) torch.int64 beside",  # their sizes, and the padding's colour
        "ready (3,) torch.float32 beside",
        "ready (2, 4) torch.float32 beside",
        "ready (2,) torch.int64 beside",
        "join 5",  # the images, and boxes and labels of both
    ]


def there(facts: dict[str, Any]) -> dict[str, int]:
    device = pretend_device.device()
    with watched() as seen:
        found = sent(part(**facts), Recorded(device))
    assert found[0].device.type == found[1].boxes[0].device.type == pretend_device.NAME
    check_same(found, part(**facts).batch(Canvases()))
    return dict(seen)


@EVERY
def test_on_another_device_it_is_the_same_and_nobody_waits(
    elsewhere: Callable[..., Any], facts: dict[str, Any]
) -> None:
    assert elsewhere(there, facts) == {}


def test_an_epoch_on_a_lane_is_the_epoch_without_one_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(**more: Any) -> Batches:
        return Batches(build.dataset(DIGITS).train, batch=8, seed=1, flip=0.5, divisor=16, **more)

    plain = [(images.clone(), truth) for images, truth in batches().epoch(1, start=1)]
    lane = Recorded()
    monkeypatch.setattr(lanes, "lane_to", lambda device: lane if device.type == "cuda" else None)
    found = list(batches(device=torch.device("cuda")).epoch(1, start=1))
    assert len(found) == len(plain) == lane.events.count("join 17") == 3
    for one, other in zip(found, plain, strict=True):
        check_same(one, other)


def test_batches_in_order_go_by_a_lane_too(monkeypatch: pytest.MonkeyPatch) -> None:
    split = build.dataset(DIGITS).val
    plain = [(images.clone(), truth) for images, truth in in_order(split, batch=3)]
    lane = Recorded()
    monkeypatch.setattr(lanes, "lane_to", lambda device: lane if device.type == "cuda" else None)
    found = list(in_order(split, batch=3, device=torch.device("cuda")))
    assert len(found) == len(plain) == len([event for event in lane.events if "join" in event]) == 6
    for one, other in zip(found, plain, strict=True):
        check_same(one, other)


def test_who_is_where_the_lane_leads_keeps_it_and_who_leaves_does_not() -> None:
    lane = Recorded()
    _, truth = sent(part(masks=True, ignored=True), lane)
    assert truth.to(CPU).lane is lane and truth.to(torch.device("meta")).lane is None


def test_a_batch_that_is_shared_is_still_known_to_have_come_by_a_lane() -> None:
    class One(Batches):
        steps, seed, say = 1, 0, print

        def __init__(self) -> None:
            pass

        def epoch(self, n: int, *, start: int = 0) -> Iterator[tuple[Tensor, Truth]]:
            yield sent(part(), lane)

    lane = Recorded()
    share = Feed(One(), device=CPU).share(Clock(), print)
    ((_, truth),) = share.epoch(0)
    assert truth.lane is lane


def test_a_cpu_needs_no_lane() -> None:
    assert lanes.lane_to(CPU) is None
