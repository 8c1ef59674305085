"""What finds no room of its own is trained beside its like, where nobody waits longer for it."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cohorts import MOST, Cohorts, Length, joined, kin
from tests.trainers.stages import DIGITS, model, order, stage
from trainers import backbones, build, detectors
from trainers.call import Call
from trainers.feeding import batches
from trainers.spec import Model, Stage, Weights

ONE = Length(1, 1)


def count(others: int, *, slots: int, longest: float = 1, most: int = MOST) -> int:
    """How many of so many equal stages beside a first one, with nothing else to do."""
    work = others + slots  # each slot has one
    return len(joined(ONE, [ONE] * others, most=most, longest=longest, work=work, slots=slots))


def test_on_one_slot_all_siblings_train_together() -> None:
    assert count(3, slots=1) == 3


def test_no_more_than_somebody_allows_or_than_pays() -> None:
    assert count(20, slots=1) == MOST - 1
    assert count(20, slots=1, most=3) == 2
    assert count(20, slots=1, most=1) == 0


def test_two_slots_share_eight_siblings_evenly() -> None:
    assert count(6, slots=2) == 3


def test_where_everybody_has_a_slot_nobody_is_slowed_down() -> None:
    assert count(0, slots=4) == 0
    assert joined(ONE, [ONE], most=MOST, longest=1, work=2, slots=2) == []


def test_a_stage_for_which_a_long_chain_waits_is_left_alone() -> None:
    """Two slots, and a root of a chain of ten as long as all the rest: to train beside it makes everybody wait."""
    assert joined(Length(1, 10), [ONE], most=MOST, longest=10, work=12, slots=2) == []
    assert joined(ONE, [ONE], most=MOST, longest=10, work=12, slots=2) == [0], "a leaf may, as there is time"


def test_a_sibling_that_takes_too_long_is_passed_over_for_one_that_does_not() -> None:
    found = joined(ONE, [Length(8, 8), ONE], most=MOST, longest=4, work=4, slots=2)
    assert found == [1]


lengths = st.builds(
    lambda cost, after: Length(cost, cost + after), st.floats(0.1, 10), st.one_of(st.just(0.0), st.floats(0, 10))
)


@given(lengths, st.lists(lengths, max_size=8), st.integers(1, 8), st.integers(1, 5))
def test_no_cohort_makes_anybody_later_than_handing_out_one_by_one_may(
    first: Length, others: list[Length], most: int, slots: int
) -> None:
    every = [first, *others]
    work, longest = sum(one.chain for one in every), max(one.chain for one in every)
    found = [others[number] for number in joined(first, others, most=most, longest=longest, work=work, slots=slots)]
    members = [first, *found]
    assert len(members) <= most
    if found:
        ends = sum(one.cost for one in members) + max(one.chain - one.cost for one in members)
        greatest = max(one.cost for one in members)
        assert ends <= max(longest, work / slots + (1 - 1 / slots) * greatest) * (1 + 1e-6)


def divisor(of: Model) -> int:
    """Of a model, which is built for it."""
    return build.divisor(build.shape(of, 2))


def like(one: Stage, other: Stage) -> bool:
    return kin(one, divisor) == kin(other, divisor)


def test_siblings_have_their_teacher_their_seed_and_their_batches_in_common() -> None:
    root = stage()
    child = stage("LD", teacher=root)
    siblings = [
        stage("PKD", teacher=root, lr=0.5, epochs=9),
        child.model_copy(update={"model": model(width=16)}),
    ]
    strangers = [
        root,
        stage("LD", teacher=stage(seed=1)),
        stage("LD", teacher=root, seed=1),
        stage("LD", teacher=root, batch=2),
        stage("LD", teacher=root, flip=0.0),
    ]
    assert all(like(one, child) for one in siblings) and not any(like(one, child) for one in strangers)
    assert like(stage(), stage(lr=0.5)), "those without a teacher share their batches"


def test_siblings_are_those_whose_workers_make_the_same_batches() -> None:
    gfl = model().detector
    coarse = Model(detector=gfl, backbone=Call(name="Swin", args={"size": "micro"}).complete(backbones))
    masked = Model(detector=Call(name="MaskRCNN").complete(detectors), backbone=model().backbone)
    read = stage().data.model_copy(update={"masks": build.masks(build.dataset(DIGITS))})
    stages = [
        stage(),
        stage(lr=0.5),
        stage().model_copy(update={"model": model(width=16)}),
        stage().model_copy(update={"model": coarse}),
        stage().model_copy(update={"model": masked, "data": read}),
        stage(seed=1),
        stage(batch=4),
        stage(flip=0.0),
        stage(group=True),
        stage(resize={"short": 16, "long": 32}),
        stage(resize={"short": 16, "long": 32}, crop={"short": 16, "size": [8, 16]}),
    ]
    found = build.dataset(DIGITS)
    kinds = [batches(order(one, Path()), found, build.shape(one.model, 2)).kind for one in stages]
    assert kinds.count(kinds[0]) == 3
    for one, kind in zip(stages, kinds, strict=True):
        assert [like(one, other) for other in stages] == [kind == other for other in kinds]


def together(cohorts: Cohorts, stages: list[Stage]) -> str:
    """The place in which they are."""
    place = cohorts.open(stages[0].key)
    cohorts.join(stages)
    return place


def test_their_place_is_free_when_the_last_has_left_it() -> None:
    cohorts, stages = Cohorts(None, divisor), [stage(seed=0, lr=rate) for rate in (0.1, 0.2, 0.3)]
    place = together(cohorts, stages)
    first, second, third = (one.key for one in stages)
    assert cohorts.leave(first) is None and cohorts.leave(third) is None
    assert cohorts.has(second) and not cohorts.has(first)
    assert cohorts.leave(second) == place and cohorts.leave(second) is None, "it is given back once"


def test_who_comes_back_while_the_others_go_on_has_a_place_of_its_own() -> None:
    cohorts, stages = Cohorts(None, divisor), [stage(seed=0, lr=rate) for rate in (0.1, 0.2, 0.3)]
    shared = together(cohorts, stages)
    first, second, third = (one.key for one in stages)
    cohorts.leave(first)
    own = cohorts.open(first)
    assert own != shared and cohorts.group(first) == "" and cohorts.group(second) == cohorts.group(third) == shared
    assert cohorts.leave(second) is None and cohorts.leave(third) == shared and cohorts.leave(first) == own


def test_who_has_died_beside_others_is_trained_alone_from_then_on() -> None:
    cohorts, (one, other) = Cohorts(None, divisor), (stage(lr=0.1), stage(lr=0.2))
    together(cohorts, [one, other])
    cohorts.part(one.key)
    assert not cohorts.may_join(one) and cohorts.size(one) == 1
    assert cohorts.may_join(other) and cohorts.size(other) == MOST


def test_later_cohorts_have_as_many_as_there_was_memory_for() -> None:
    cohorts, stages = Cohorts(None, divisor), [stage(lr=rate) for rate in (0.1, 0.2, 0.3, 0.4)]
    together(cohorts, stages)
    for one in stages[2:]:
        cohorts.crowded(one)
        cohorts.leave(one.key)
    assert [cohorts.size(one) for one in stages] == [2] * 4
    assert cohorts.size(stage("LD", teacher=stages[0])) == MOST


def test_what_is_only_measured_is_measured_alone() -> None:
    weights = Weights(sha256="0" * 64, part="detector")
    assert kin(stage().model_copy(update={"model": model().model_copy(update={"weights": weights})}), divisor) is None
