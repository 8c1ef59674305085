"""What is kept for a stage that waits, so that it starts at last, and what is for others beside it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from tests.orchestrator.rooms import BIG, SMALL, TWO, started


def test_a_large_stage_starts_though_small_ones_come_without_end():
    room = Room([Node("x", {"CPU": 4}), Node("y", {"CPU": 4})], {"large": Placement(cpus=4), "small": SMALL})
    assert started(room, *["small"] * 8) == ["small"] * 8
    for turn in range(20):
        # They end in turn on one node and on the other.
        place = "xy"[turn % 2]
        ended = next((key for key, (_, places) in room.taken.items() if places == [place]), None)
        if ended:
            room.give(ended)
        if started(room, "large", *["small"] * 3)[:1] == ["large"]:
            return
    raise AssertionError("it waits for ever")


def test_a_small_stage_goes_first_only_where_the_large_one_before_it_does_not_need_the_place():
    nodes = [Node("a", {"CPU": 4, "GPU": 1}), Node("b", {"CPU": 4})]
    room = Room(nodes, {"gpu": Placement(cpus=3, gpus=1), "small": Placement(cpus=2)})
    assert started(room, "gpu", "gpu", "small", "small", "small") == ["gpu", "small", "small"]
    assert room.taken["small1"][1] == ["b"]


def test_the_room_of_a_large_stage_is_kept_as_it_becomes_free():
    room = Room(TWO, {"big": BIG, "small": SMALL})
    assert started(room, *["small"] * 16) == ["small"] * 16
    ended = 0
    for key in list(room.taken):  # on one node and the other in turn
        room.give(key)
        ended += 1
        if found := started(room, "big", "small"):
            break
    assert (found, ended) == (["big"], 8), "no small one has come in between"


@pytest.mark.parametrize("running", [0, 1])
def test_nothing_is_kept_for_a_stage_that_the_nodes_left_cannot_hold(running: int):
    room = Room(TWO, {"big": BIG, "small": Placement(gpus=1)})
    assert started(room, *["small"] * running) == ["small"] * running
    room.change([TWO[0]])
    assert started(room, "big", "small", "small") == ["small", "small"]
    room.change(TWO)
    for key in list(room.taken):
        room.give(key)
    assert started(room, "big", "small")[0] == "big"


THREE = [Node(name, {"CPU": 1}) for name in "abc"]
PARTS = {
    "workers on three nodes": Room(THREE, {"large": Placement(workers=2), "small": SMALL}),
    "one of three processors": Room([Node("a", {"CPU": 3})], {"large": Placement(cpus=2), "small": SMALL}),
    "of twelve GPUs, for one": Room(
        [Node("a", {"CPU": 16, "GPU": 12})], {"large": Placement(workers=8, gpus=1), "small": Placement(gpus=1)}
    ),
}


@pytest.mark.parametrize("kind", PARTS)
def test_what_two_large_stages_leave_that_run_one_after_the_other_is_for_small_ones(kind):
    room = PARTS[kind].emptied()
    beside = 4 if "GPUs" in kind else 1
    assert started(room, "large", "large", *["small"] * 6) == ["large", *["small"] * beside]
    for _ in range(20):  # small ones come without end, and end sooner
        small = next(key for key, (model, _) in room.taken.items() if model == "small")
        room.give(small)
        assert started(room, "large", *["small"] * 6) == ["small"]
    room.give("large0")
    assert started(room, "large", "small") == ["large"], "and they have kept it waiting for nothing"


def test_a_stage_waits_for_the_end_that_leaves_most_to_others_and_stays_with_it():
    nodes = [Node("a", {"CPU": 2}), Node("b", {"CPU": 2}), Node("c", {"CPU": 2})]
    room = Room(nodes, {"large": Placement(workers=4), "pair": Placement(workers=2), "small": SMALL})
    assert started(room, "large", "small", "large", "small") == ["large", "small", "small"]
    assert [place for model, (place, *_) in room.taken.values() if model == "small"] == ["c", "c"]
    room.give("small1")
    assert started(room, "large", "pair", "small") == [], "and the pair for the other small one"
    assert started(room, "large", "small") == ["small"], "the large one waits for the other large one alone"
    room.give("large0")
    assert started(room, "large", "small") == ["large"]


def test_where_several_have_to_end_the_room_is_kept_as_it_becomes_free_though_one_would_do_for_less():
    room = Room(THREE, {"large": Placement(workers=2), "small": SMALL})
    assert started(room, *["small"] * 3) == ["small"] * 3
    room.give("small0")
    assert started(room, "large", "small") == [], "one more has to end, and this place is needed"
    room.give("small2")
    assert started(room, "large", "small") == ["large"]


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(2, 5), st.integers(0, 2**32))
def test_who_waits_for_an_end_starts_with_it_whoever_has_come_meanwhile(cpus, workers, seed):
    nodes = [Node(f"n{number}", {"CPU": count}) for number, count in enumerate(cpus)]
    placements = {"large": Placement(workers=min(workers, sum(cpus))), "small": SMALL, "pair": Placement(cpus=2)}
    dice = random.Random(seed)
    for _ in range(10):
        wait_for_an_end(Room(nodes, placements), dice)


def wait_for_an_end(room: Room, dice: random.Random) -> None:
    """Fill a room, and have a large stage wait in it, while others come and go, until the end that it awaits."""
    for number in range(20):
        if room.chooser()(model := dice.choice(("large", "large", "small", "pair"))):
            room.take(f"before {number}", model)
    for number in range(20):
        may = room.chooser()
        if may("large"):
            return
        awaited = room._awaited.get("large")
        if may(model := dice.choice(("small", "pair"))):
            room.take(f"meanwhile {number}", model)
        if awaited and dice.random() < 0.2:
            room.give(awaited)
            assert room.chooser()("large")
            return
        ending = [key for key in room.taken if key != awaited]
        if ending and dice.random() < 0.5:
            room.give(dice.choice(ending))
