"""What fits on a cluster: stages of several sizes side by side, none for ever behind others."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.resources import Placement, Resources, amount_of
from orchestrator.room import Node, Room, fits
from tests.orchestrator.rooms import BIG, SMALL, TWO, started
from trainers.call import Invalid

# Placements


@pytest.mark.parametrize(
    ("written", "size"),
    [(123, 123), ("123", 123), ("8 GiB", 8 * 2**30), ("1.5GB", 1_500_000_000), ("2 kB", 2000), ("3 KiB", 3072)],
)
def test_memory_is_written_in_bytes_or_with_a_unit(written, size):
    assert (
        Placement.model_validate_json(
            f'{{"memory": {written if isinstance(written, int) else chr(34) + written + chr(34)}}}'
        ).memory
        == size
    )


def test_what_a_stage_needs_is_said_in_words():
    wanted = Placement(
        workers=4, min_workers=2, cpus=64000, gpus=0.25, memory="1.5 GiB", labels={"disk": "ssd"}, accelerator="A100"
    )
    said = "2 worker(s) with 64000 CPU, 0.25 GPU, 1.5 GiB of memory, 0.001 accelerator_type:A100, disk=ssd each"
    assert wanted.needs == said and amount_of("memory", 2**30, 4 * 2**30) == "1 of 4 GiB of memory"


@pytest.mark.parametrize("written", ["8 GiBs", "GiB", "-1", "8 Gib", "0"])
def test_what_is_no_size_is_refused(written):
    with pytest.raises(ValueError):
        Placement(memory=written)


def test_a_worker_asks_for_what_is_written_and_for_nothing_else():
    assert Placement().demand == {"CPU": 1}
    whole = Placement(cpus=4, gpus=0.5, memory="1 kB", accelerator="A100", custom={"camera": 2})
    assert whole.demand == {"CPU": 4, "GPU": 0.5, "memory": 1000, "accelerator_type:A100": 0.001, "camera": 2}


def test_resources_are_a_placement_for_all_models():
    assert isinstance(Resources(), Placement) and Resources(gpus=1).demand == {"CPU": 1, "GPU": 1}


# Nodes


def test_as_many_workers_fit_on_a_node_as_the_scarcest_of_its_resources_allows():
    has = {"CPU": 8, "GPU": 4, "memory": 10_000}
    assert fits(Placement(cpus=2, gpus=1), has) == 4 and fits(Placement(cpus=3, gpus=1), has) == 2
    assert fits(Placement(memory=4000), has) == 2 and fits(Placement(custom={"camera": 1}), has) == 0
    assert fits(Placement(cpus=0.1), {"CPU": 0.3}) == 3, "decimals are not rounded away"


def test_of_memory_that_several_workers_want_whoever_watches_over_them_has_a_byte():
    node = Node("a", {"CPU": 8, "memory": 2000})
    assert Room([node], {"m": Placement(memory=2000)}).slots("m") == 1
    assert Room([node], {"m": Placement(workers=2, memory=999)}).slots("m") == 1
    assert Room([node], {"m": Placement(workers=2, memory=1000)}).slots("m") == 0, "Ray would never place them"


def test_a_stage_may_be_spread_over_nodes_and_takes_the_roomiest_first():
    room = Room([Node("a", {"CPU": 2}), Node("b", {"CPU": 5})], {"m": Placement(workers=6)})
    assert started(room, "m") == ["m"]
    assert Counter(room.taken["m0"][1]) == {"b": 5, "a": 1}


def test_labels_and_types_of_gpus_choose_the_nodes():
    nodes = [Node("a", {"CPU": 8}, {"disk": "ssd"}), Node("b", {"CPU": 8, "GPU": 2, "accelerator_type:A100": 1})]
    placements = {"ssd": Placement(labels={"disk": "ssd"}), "a100": Placement(gpus=1, accelerator="A100")}
    room = Room(nodes, placements)
    assert (room.slots("ssd"), room.slots("a100")) == (8, 2)
    for model, node in (("ssd", "a"), ("a100", "b")):
        assert started(room, model) == [model]
        assert list(room.taken.values())[-1] == (model, [node])


def test_a_part_of_a_gpu_is_a_part_of_one():
    assert (
        fits(Placement(gpus=0.6), {"CPU": 8, "GPU": 2}) == 2 and fits(Placement(gpus=0.25), {"CPU": 8, "GPU": 2}) == 8
    )
    assert fits(Placement(gpus=0.5), {"CPU": 8, "GPU": 1.5}) == 3


@pytest.mark.parametrize("part", [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 1.0])
@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
def test_as_many_share_gpus_as_find_room_on_one_whoever_comes_and_goes(part, gpus):
    room, most = Room([Node("a", {"CPU": 100, "GPU": gpus})], {"m": Placement(gpus=part)}), gpus * int(1.000001 / part)
    assert room.slots("m") == most == len(started(room, *["m"] * 100))
    dice = random.Random(gpus)
    for _ in range(5):
        ended = dice.sample(sorted(room.taken), dice.randint(1, most))
        for place in ended:
            room.give(place)
        assert len(started(room, *["m"] * 100)) == len(ended)


@pytest.mark.parametrize("models", ["b", "bc", "bcd"])
def test_who_wants_a_whole_gpu_gets_it_though_others_for_its_halves_keep_coming(models):
    wanted = {"w": Placement(gpus=1), **dict.fromkeys(models, Placement(gpus=0.5))}
    room = Room([Node("a", {"CPU": 16, "GPU": 1})], wanted)
    assert started(room, "b", "b") == ["b", "b"]
    for _ in range(3):
        room.give(next(iter(room.taken)))
        if begun := started(room, "w", *models * 2):
            break
    assert begun == ["w"]


@pytest.mark.parametrize("name", ["CPU", "GPU", "memory", "accelerator_type:A100"])
def test_what_has_a_field_of_its_own_is_no_custom_resource(name):
    with pytest.raises(ValueError, match="is asked for by"):
        Placement(custom={name: 1})


def test_what_fits_nowhere_is_refused_with_what_is_needed_and_what_there_is():
    with pytest.raises(
        Invalid, match=r"big needs 9 worker\(s\) with 1 CPU, 1 GPU each, .* 8 GPU on 2 node\(s\), room for 8"
    ):
        Room(TWO, {"small": SMALL, "big": Placement(workers=9, gpus=1)}).check()
    with pytest.raises(Invalid, match=r"1 CPU, disk=ssd each, .* of which 0 have these labels, room for 0"):
        Room(TWO, {"one": Placement(labels={"disk": "ssd"})}).check()
    Room(TWO, {"small": SMALL, "big": BIG}).check()


def test_how_many_stages_fit_is_told_by_model_and_at_the_most():
    room = Room(TWO, {"small": SMALL, "big": BIG})
    assert (room.slots("small"), room.slots("big"), room.most()) == (16, 1, 16)
    apart = {node.name: Placement(cpus=8, labels={"name": node.name}) for node in TWO}
    assert Room([Node(node.name, node.has, {"name": node.name}) for node in TWO], apart).most() == 2
    assert Room(TWO, {"small": SMALL}, stages_at_once=3).slots("small") == 3
    assert Room(TWO, {"small": Placement(stages_at_once=2)}, stages_at_once=3).slots("small") == 2


def test_the_work_of_stages_is_bounded_by_the_scarcest_resource():
    room = Room(TWO, {"small": SMALL, "big": BIG})
    assert room.least([("big", 10.0), ("small", 16.0), ("small", 16.0)]) == 10.0  # all GPUs for 10, CPUs for 7
    assert room.least([("small", 16.0)] * 16) == 16.0
    assert room.least([]) == 0.0


# Choosing


def test_stages_start_as_long_as_they_fit():
    assert started(Room(TWO, {"m": Placement(cpus=3)}), *["m"] * 9) == ["m"] * 4


def test_twenty_stages_that_want_more_than_half_run_one_after_another():
    room = Room([Node("a", {"CPU": 4}), Node("b", {"CPU": 4})], {"m": Placement(workers=5)})
    left = 20
    while left:
        assert started(room, *["m"] * left) == ["m"]
        room.give(next(iter(room.taken)))
        left -= 1


def test_no_more_stages_run_at_once_than_is_said_for_all_or_for_a_model():
    placements = {"m": Placement(stages_at_once=2), "n": Placement()}
    assert started(Room(TWO, placements, stages_at_once=3), "m", "m", "m", "n", "n") == ["m", "m", "n"]


def test_a_node_that_is_gone_has_no_room_and_what_was_on_it_takes_none_elsewhere():
    room = Room(TWO, {"m": Placement(cpus=8)})
    assert started(room, "m", "m") == ["m", "m"]
    room.change(TWO[:1])
    assert started(room, "m") == []
    room.give("m0" if room.taken["m0"][1] == ["a"] else "m1")
    assert started(room, "m") == ["m"]


# Whatever comes


@st.composite
def rooms(draw: st.DrawFn) -> Room:
    amounts = st.fixed_dictionaries({"CPU": st.integers(1, 8), "GPU": st.integers(0, 4), "camera": st.integers(0, 2)})
    disks = st.sampled_from([{}, {"disk": "ssd"}])
    nodes = [Node(f"n{i}", draw(amounts), draw(disks)) for i in range(draw(st.integers(1, 4)))]
    placements = {}
    for name in "abc":
        cpus, gpus, camera = (draw(st.integers(low, 2)) for low in (1, 0, 0))
        most = draw(st.integers(1, 5))
        wanted = Placement(
            workers=most,
            min_workers=draw(st.none() | st.integers(1, most)),
            cpus=cpus,
            gpus=gpus,
            custom={"camera": camera} if camera else {},
            labels=draw(disks),
            stages_at_once=draw(st.none() | st.integers(1, 3)),
        )
        if Room(nodes, {name: wanted}).slots(name):
            placements[name] = wanted
    return Room(nodes, placements, stages_at_once=draw(st.none() | st.integers(1, 4)))


@given(rooms(), st.integers(0, 2**32))
def test_whatever_runs_nothing_is_given_twice_and_every_stage_starts_at_last(room, seed):
    """A stream of stages, each of which goes behind all that wait already; those that run end in any order."""
    if not room.placements:
        return
    dice = random.Random(seed)
    names = list(room.placements)
    waiting = [dice.choice(names) for _ in range(12)]
    queue = list(enumerate(waiting))
    for turn in range(100):
        while True:
            may, first = room.chooser(), dict[str, int]()
            for number, model in queue:
                first.setdefault(model, number)
            chosen = next(((number, model) for model, number in first.items() if may(model)), None)
            if chosen is None:
                break
            queue.remove(chosen)
            room.take(str(chosen[0]), chosen[1])
        for key, (model, _) in list(room.taken.items()):
            if room.placements[model].min_workers is not None:
                room.grow(key, batch=60, least=1)
        used: dict[str, Counter[str]] = {name: Counter() for name in room.nodes}
        for model, places in room.taken.values():
            assert room.placements[model].fewest <= len(places) <= room.placements[model].workers
            for place in places:
                assert room.nodes[place].suits(room.placements[model])
                used[place].update({k: int(v) for k, v in room.placements[model].demand.items()})
        assert all(used[name][kind] <= room.nodes[name].has[kind] for name in used for kind in used[name])
        if not room.taken:
            assert not queue, "nothing runs, and yet nothing fits"
            break
        room.give(dice.choice(sorted(room.taken)))
        if turn < 60:
            queue.append((12 + turn, dice.choice(names)))
    assert all(number >= 40 for number, _ in queue), "a stage waits for ever"
