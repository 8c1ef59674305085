"""Students who share a feed: what is made, how often, who pays for it, and that nothing is kept for nobody."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.trainers.stages import CPU
from trainers import feeding, speed
from trainers.asked import Asked
from trainers.clock import Clock
from trainers.feeding import Feed, Share
from trainers.outputs import Outputs, Truth
from trainers.workplace import Shared

STEPS, LONG = 3, 0.05


class Slow:
    """Batches that take their time, and note which were made and whether their maker is still there."""

    steps, seed = STEPS, 0

    def __init__(self, kind: str = "") -> None:
        self.kind = kind
        self.made: list[tuple[int, int]] = []
        self.open = 0
        self.say: Any = None

    def epoch(self, n: int, *, start: int = 0) -> Iterator[tuple[torch.Tensor, Truth]]:
        self.open += 1
        try:
            for step in range(start, STEPS):
                time.sleep(LONG)
                self.made.append((n, step))
                yield torch.full((2, 3, 4, 4), float(step)), Truth([], [], [], [n, step], [])
        finally:
            self.open -= 1


@pytest.fixture
def slow() -> Slow:
    return Slow()


def shares(slow: Any, count: int) -> list[Share]:
    feed, clocks = Feed(slow, device=CPU), [Clock() for _ in range(count)]
    for clock in clocks:
        clock.rest()
    return [feed.share(clock, [].append) for clock in clocks]


def taken(share: Share, look: Any) -> float:
    """What its clock says a turn has taken."""
    before = share.clock.now()
    share.clock.go()
    look()
    share.clock.rest()
    return share.clock.now() - before


def test_who_goes_side_by_side_has_each_batch_made_once_and_pays_his_part_of_it(slow: Slow) -> None:
    pair = shares(slow, 2)
    first, second = (one.epoch(0) for one in pair)
    before = [one.clock.now() for one in pair]
    for step in range(STEPS):
        assert taken(pair[0], lambda: next(first)) >= LONG
        assert taken(pair[1], lambda step=step: [next(second)[1].ids == [0, step]]) >= LONG / 2
    assert slow.made == [(0, 0), (0, 1), (0, 2)] and slow.open == 0
    paid = [one.clock.now() - start for one, start in zip(pair, before, strict=True)]
    assert paid[0] == pytest.approx(paid[1], abs=LONG / 2) and sum(paid) >= STEPS * LONG


def test_who_is_behind_gets_the_right_batches_and_nobody_else_pays_for_them(slow: Slow) -> None:
    ahead, behind = shares(slow, 2)
    next(far := ahead.epoch(1))
    before = ahead.clock.now()
    assert [truth.ids for _, truth in behind.epoch(0)] == [[0, 0], [0, 1], [0, 2]]
    next(late := behind.epoch(1))
    assert ahead.clock.now() == before
    assert next(far)[1].ids == next(late)[1].ids == [1, 1]
    assert slow.made.count((1, 1)) == 1


def test_a_guide_is_asked_once_by_those_who_share_and_nothing_is_kept_for_one_alone(slow: Slow) -> None:
    asked: list[int] = []

    def guide(images: torch.Tensor) -> Outputs:
        asked.append(len(images))
        return Outputs(features=[2 * images])

    for count, times in ((2, 1), (1, 2)):
        asked.clear()
        several = shares(slow, count)
        images, _ = next(several[0].epoch(0))
        said = [one.asked(Asked(None, guide))(images) for one in (several * 2)[:2]]
        assert len(asked) == times and torch.equal(said[0].features[0], said[1].features[0])


class Towers:
    """A guide that says of its towers what it is to keep of them."""

    keep_towers: frozenset[int] = frozenset()

    def __call__(self, images: torch.Tensor) -> Outputs:
        return Outputs(features=[images], towers={after: ([images], [images]) for after in self.keep_towers})


def test_who_comes_and_reads_more_of_towers_than_was_said_has_the_guide_asked_again(slow: Slow) -> None:
    one, other = shares(slow, 2)
    images, _ = next(one.epoch(0))
    guide = Towers()
    asked = Asked(guide, guide)
    brief = one.asked(asked)(images)
    guide.keep_towers |= {1}
    assert not brief.towers and other.asked(asked)(images).towers.keys() == {1}
    guide.keep_towers |= {0}
    assert other.asked(asked)(images).towers.keys() == {0, 1}
    assert one.asked(asked)(images) is other.asked(asked)(images)


def test_a_part_of_a_batch_and_other_images_are_not_taken_for_the_whole(slow: Slow) -> None:
    one, _ = shares(slow, 2)
    images, _ = next(one.epoch(0))
    asked = one.asked(Asked(None, lambda images: Outputs(features=[images.sum((1, 2, 3))])))
    asked(images)
    assert [len(asked(part).features[0]) for part in (images[:1], images)] == [1, 2]
    assert asked(images + 1).features[0].tolist() == [48.0, 48.0]


def test_what_was_said_is_forgotten_when_memory_is_needed_and_with_the_next_batch(slow: Slow) -> None:
    asked: list[int] = []
    one, other = shares(slow, 2)
    guide = one.asked(Asked(None, lambda images: asked.append(1) or Outputs(features=[images])))
    batches = one.epoch(0)
    images, _ = next(batches)
    guide(images)
    one.forget()
    guide(images)
    assert len(asked) == 2 and next(other.epoch(0))[0] is images
    guide(next(batches)[0])
    assert len(asked) == 3


def test_when_the_last_one_leaves_within_an_epoch_nothing_goes_on_making_batches(slow: Slow) -> None:
    one, other = shares(slow, 2)
    next(one.epoch(0))
    one.feed.leave(other.clock)
    assert slow.open == 1
    one.feed.leave(one.clock)
    assert slow.open == 0


def test_all_are_told_of_images_that_are_bad(slow: Slow) -> None:
    said: list[str] = []
    feed = Feed(slow, device=CPU)
    for _ in range(2):
        feed.share(Clock(), said.append)
    slow.say("image 3 is left out")
    assert said == ["image 3 is left out"] * 2


def test_what_is_recorded_on_a_gpu_is_good_for_a_batch_however_many_share_it(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[tuple[int, int]]] = []
    monkeypatch.setattr(feeding, "next_batch", lambda device, forget: told.append(list(slow.made)))
    first, second = (one.epoch(0) for one in shares(slow, 2))
    for _ in range(2):
        next(first)
        next(second)
    assert told == [[], [(0, 0)]], "before each batch, and not for each who looks at it"


class Replayed:
    """A guide whose answers are good until torch is told of the next batch, whoever's that is."""

    def __init__(self) -> None:
        self.batch, self.asked = 0, 0

    def __call__(self, images: torch.Tensor) -> Outputs:
        self.asked += 1
        return Outputs(features=[torch.tensor(self.batch)])

    def begin(self) -> None:
        self.batch += 1


@pytest.mark.parametrize("recorded", [True, False])
def test_of_what_is_recorded_nobody_is_handed_what_was_said_before_a_batch_of_others(
    monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    replayed, shared = Replayed(), Shared()
    if recorded:
        device = torch.device("cuda")
        monkeypatch.setattr(feeding, "next_batch", lambda _, forget: speed.next_batch(device, forget))
        monkeypatch.setitem(sys.modules, "torch._inductor.cudagraph_trees", sys)
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", replayed.begin)
    guide, one, other = Asked(None, replayed), Slow("one"), Slow("other")
    first, second, apart, last = (shared.share(of, Clock(), device=CPU) for of in (one, one, other, other))
    turns = [(share.epoch(0), share.asked(guide)) for share in (first, apart, second, last)]
    for _ in range(STEPS):
        for batches, ask in turns:
            images, _ = next(batches)
            said = ask(images)
            assert said.features[0] == replayed.batch, "its memory has something else by now"
    # The second of the first pair asks again, as there was a batch of others in between.
    assert replayed.asked == (3 if recorded else 2) * STEPS
