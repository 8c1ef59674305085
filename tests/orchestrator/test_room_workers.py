"""Room for stages whose workers may be fewer: how many they start with, and when they are given more."""

from __future__ import annotations

import pytest

from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from tests.orchestrator.rooms import SMALL, TWO, started
from trainers.call import Invalid

SPREAD = Placement(workers=8, min_workers=2, gpus=1)


def at(room: Room) -> dict[str, int]:
    """How many workers each stage has."""
    return {key: room.workers(key) for key in room.taken}


def test_a_stage_starts_with_as_many_workers_as_there_is_room_for_and_waits_for_its_fewest():
    room = Room([Node("a", {"CPU": 8, "GPU": 3}), Node("b", {"CPU": 8, "GPU": 1})], {"m": SPREAD})
    assert started(room, "m", "m") == ["m"] and at(room) == {"m0": 4}
    room.give("m0")
    room.change([Node("a", {"CPU": 8, "GPU": 1})])
    assert started(room, "m") == []


def test_so_many_start_as_share_a_batch_evenly():
    room = Room(TWO, {"m": SPREAD})
    for batch, count in ((16, 8), (12, 6), (1, 1), (0, 8)):
        assert room.chooser()("m")
        assert room.take("one", "m", batch=batch) == 1.0, "those are all that it can have"
        assert at(room) == {"one": count}
        room.give("one")
    room.change([Node("a", {"CPU": 8, "GPU": 7})])
    assert room.chooser()("m")
    assert room.take("one", "m", batch=16) == 0.5 and at(room) == {"one": 4}


def test_what_is_kept_for_a_stage_that_waits_is_the_room_of_its_fewest_workers():
    room = Room([Node("a", {"CPU": 4})], {"first": SMALL, "m": Placement(workers=4, min_workers=2), "small": SMALL})
    assert started(room, "first", "first", "first", "m", "small") == ["first"] * 3
    room.give("first0")
    assert started(room, "m", "small") == ["m"] and at(room)["m2"] == 2


def test_fewest_workers_that_fit_nowhere_are_refused():
    with pytest.raises(Invalid, match=r"m needs 2 worker\(s\) .* room for 1 worker"):
        Room([Node("a", {"CPU": 8, "GPU": 1})], {"m": SPREAD}).check()
    Room([Node("a", {"CPU": 8, "GPU": 2})], {"m": SPREAD}).check()


def grown(room: Room, key: str, *waiting: str, batch: int = 16, least: int = 1) -> bool:
    """Whether a stage is given more, after those that wait were asked."""
    may = room.chooser()
    assert not any([may(model) for model in waiting])
    return room.grow(key, batch=batch, least=least)


def test_a_stage_is_given_more_when_a_node_comes_and_at_once_nobody_else_is():
    room = Room([Node("a", {"CPU": 8, "GPU": 2})], {"m": SPREAD, "small": SMALL})
    assert started(room, "m") == ["m"] and not grown(room, "m0")
    room.change([Node("a", {"CPU": 8, "GPU": 2}), Node("b", {"CPU": 8, "GPU": 2})])
    assert not grown(room, "m0", least=5), "it would not be worth it"
    assert grown(room, "m0") and at(room) == {"m0": 4} and room.stands("m0")
    assert started(room, "m") == [], "it is held until the stage starts with it"
    room.change([Node("a", {"CPU": 8, "GPU": 2})])
    assert not room.stands("m0")


@pytest.mark.parametrize(("waiting", "count"), [((), 3), (("large",), 2)])
def test_a_stage_is_given_nothing_that_is_kept_for_another(waiting, count):
    nodes = [Node("a", {"CPU": 2, "GPU": 2}), Node("b", {"CPU": 2, "GPU": 2, "camera": 1})]
    filmed = {"camera": 1}
    placements = {
        "m": SPREAD,
        "large": Placement(cpus=2, gpus=2, custom=filmed),
        "film": Placement(custom=filmed),
    }
    room = Room(nodes[:1], placements)
    assert started(room, "m") == ["m"]
    room.change(nodes)
    assert started(room, "film") == ["film"]
    assert grown(room, "m0", *waiting, batch=6) is (count > 2) and at(room)["m0"] == count


def test_two_stages_are_not_given_the_same():
    two = [Node("a", {"CPU": 2}), Node("b", {"CPU": 2})]
    room = Room(two, {"m": Placement(workers=4, min_workers=2)})
    assert started(room, "m") == ["m"] and at(room) == {"m0": 4}
    room = Room(two[:1], {"m": Placement(workers=3, min_workers=1), "n": Placement(workers=3, min_workers=1)})
    room.chooser()("m")
    room.take("m", "m", batch=1)
    room.chooser()("n")
    room.take("n", "n", batch=1)
    room.change(two)
    room.chooser()
    assert room.grow("m", batch=6, least=1) and not room.grow("n", batch=6, least=1)
    assert at(room) == {"m": 3, "n": 1}


def test_twenty_stages_that_want_all_and_need_more_than_half_run_one_after_another():
    room = Room(TWO, {"m": Placement(workers=8, min_workers=5, gpus=1)})
    for left in range(20, 0, -1):
        assert started(room, *["m"] * left) == ["m"] and at(room)["m0"] == 8
        room.give("m0")
