"""What fits on a cluster: stages of several sizes side by side, none for ever behind others."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.resources import Placement, Resources, amount_of
from orchestrator.room import Node, Room, fits
from trainers.call import Invalid

BIG, SMALL = Placement(workers=8, gpus=1), Placement()
TWO = [Node("a", {"CPU": 8, "GPU": 4}), Node("b", {"CPU": 8, "GPU": 4})]


def started(room: Room, *models: str) -> list[str]:
    """Those of these stages, the most urgent first, that start now."""
    waiting, found = list(models), []
    while True:
        may = room.chooser()
        # Of equal models the first that does not fit stands for the others, as in the frontier.
        model = next((name for name in dict.fromkeys(waiting) if may(name)), None)
        if model is None:
            return found
        waiting.remove(model)
        found.append(model)
        number = next(n for n in itertools.count(len(room.taken)) if f"{model}{n}" not in room.taken)
        room.take(f"{model}{number}", model)


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


@pytest.mark.parametrize("name", ["CPU", "GPU", "memory", "accelerator_type:A100"])
def test_what_has_a_field_of_its_own_is_no_custom_resource(name):
    with pytest.raises(ValueError, match="is asked for by"):
        Placement(custom={name: 1})


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


# Workers that may be fewer

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
