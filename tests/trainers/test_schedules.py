"""The rate after each epoch, figured by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers import schedules
from trainers.call import Call, Invalid, offers
from trainers.schedules import Constant, Cosine, OneCycle, Step, blend


def test_the_constant_rate_is_constant() -> None:
    assert {Constant()(epoch, 12) for epoch in (0, 0.5, 11.9, 12)} == {1.0}


def test_steps_fall_at_epochs_8_and_11_of_12_and_at_16_and_22_of_24() -> None:
    twelve = [Step()(epoch, 12) for epoch in range(12)]
    assert twelve == pytest.approx([1.0] * 8 + [0.1] * 3 + [0.01])
    twenty_four = [Step()(epoch, 24) for epoch in range(24)]
    assert twenty_four == pytest.approx([1.0] * 16 + [0.1] * 6 + [0.01] * 2)


def test_a_step_falls_with_the_first_step_of_its_epoch() -> None:
    for steps in (1, 3, 7, 117_266 // 16):
        assert Step()((8 * steps - 1) / steps, 12) == 1.0
        assert Step()((8 * steps) / steps, 12) == pytest.approx(0.1)


def test_steps_can_be_anywhere_in_any_order_and_by_any_factor() -> None:
    schedule = Step(at=(0.75, 0.5), factor=0.5)
    assert [schedule(epoch, 4) for epoch in range(4)] == [1.0, 1.0, 0.5, 0.25]
    assert Step(at=())(11, 12) == 1.0
    assert Step(at=(0.0,))(0, 12) == pytest.approx(0.1)


def test_the_cosine_falls_from_one_through_the_middle_to_its_floor() -> None:
    assert Cosine()(0, 10) == 1 and Cosine()(10, 10) == pytest.approx(0, abs=1e-15)
    assert Cosine()(5, 10) == pytest.approx(0.5)
    assert Cosine()(2.5, 10) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert Cosine(floor=0.2)(0, 10) == 1 and Cosine(floor=0.2)(10, 10) == pytest.approx(0.2)
    assert Cosine(floor=0.2)(5, 10) == pytest.approx(0.6)


def test_one_cycle_starts_low_peaks_after_its_rise_and_ends_at_its_end() -> None:
    schedule = OneCycle()
    assert schedule(0, 20) == pytest.approx(0.04)
    assert schedule(3, 20) == pytest.approx((1 + 0.04) / 2)  # half of the rise
    assert schedule(6, 20) == 1.0
    assert schedule(13, 20) == pytest.approx(0.5)  # half of the fall
    assert schedule(20, 20) == pytest.approx(0, abs=1e-15)
    assert OneCycle(end=0.1)(20, 20) == pytest.approx(0.1)


def test_one_cycle_may_rise_all_the_way_or_not_at_all() -> None:
    assert OneCycle(rise=0.0)(0, 10) == 1.0
    assert OneCycle(rise=1.0)(0, 10) == pytest.approx(0.04) and OneCycle(rise=1.0)(10, 10) == 1.0


def test_one_cycle_has_one_top() -> None:
    rates = [OneCycle()(step / 10, 20) for step in range(200)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_a_blend_keeps_its_ends() -> None:
    assert blend(0.3, 0.7, 0) == pytest.approx(0.3) and blend(0.3, 0.7, 1) == pytest.approx(0.7)
    assert blend(0.3, 0.7, 0.5) == pytest.approx(0.5)


@given(
    st.sampled_from(sorted(offers(schedules))),
    st.integers(1, 300),
    st.floats(0, 1, exclude_max=True),
)
def test_every_schedule_stays_between_nothing_and_the_full_rate(name: str, epochs: int, part: float) -> None:
    factor = Call(name=name).complete(schedules).of(schedules)(part * epochs, epochs)
    assert 0 <= factor <= 1


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("Step", {"at": [1.5]}),
        ("Step", {"factor": 1.0}),
        ("Step", {"factor": 0}),
        ("Cosine", {"floor": -0.1}),
        ("OneCycle", {"rise": 2}),
        ("Constant", {"rate": 1}),
        ("Cosin", {}),
        ("blend", {}),
        ("Annotated", {}),
    ],
)
def test_what_is_no_schedule_is_refused(name: str, args: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Call(name=name, args=args).complete(schedules)
