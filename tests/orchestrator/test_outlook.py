"""How far a run is and how long it still takes, by what was predicted and by what was measured."""

import time

import pytest

from orchestrator.outlook import ALMOST, Outlook
from tests.orchestrator.boards import board, row, start


def cost(stage):
    """A prediction of 100 seconds for each."""
    return 100.0


def forecast(filled, *, unit="seconds", slots=1, makespan=None):
    """Of all that is on a board."""
    whole = 1.0 if unit == "seconds" else 100.0 * len(filled.rows)
    total = 100.0 * len(filled.rows) / whole
    made = {"unit": unit, "total": total, "trainings": len(filled.rows)}
    on = {"slots": slots, "makespan": total / slots if makespan is None else makespan, "lower_bound": 0.0}
    return {**made, "slots": [on], "stages": {key: {"cost": 100.0 / whole} for key in filled.rows}}


def waiting(*names, **options):
    """A board on which nothing is trained."""
    filled = board(*names, **options)
    for each in filled.rows.values():
        each.state, each.history, each.seconds, each.score = "waiting", [], 0.0, None
    return filled


def trained(each, epochs, seconds):
    each.state, each.seconds = "running", seconds
    each.history = [{"epoch": float(number + 1)} for number in range(epochs)]


def test_before_anything_is_trained_the_time_left_is_the_forecast():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled), cost, whole=True)
    assert outlook.now() == (0.0, pytest.approx(900))


def test_slots_beside_each_other_share_the_work_but_no_chain_is_cut():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled, slots=2, makespan=500.0), cost, whole=True)
    assert outlook.now().left == pytest.approx(500)
    outlook.expect(forecast(filled, slots=100), cost, whole=True)
    assert outlook.now().left == pytest.approx(400), "r101 > r50 > r34 > r18, one after another"


def test_where_nobody_knows_seconds_there_is_no_time_left_until_an_epoch_was_measured():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled, unit="parts"), cost, whole=True)
    assert outlook.now() == (0.0, None)
    trained(row(filled, "r101"), 3, 90.0)
    part, left = outlook.now()
    assert part == pytest.approx(0.25 / 9) and left == pytest.approx(360 * 8.75)


def test_what_was_measured_corrects_what_was_predicted():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled), cost, whole=True)
    each = row(filled, "r101")
    trained(each, 12, 200.0)
    each.state = "done"
    part, left = outlook.now()
    assert part == pytest.approx(1 / 9)
    assert 1.5 * 800 < left < 2 * 800, "twice as slow as predicted, of which the prediction still is a little part"


def test_within_an_epoch_time_goes_on_but_not_beyond_its_end():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled), cost, whole=True)
    each = row(filled, "r101")
    trained(each, 6, 60.0)
    outlook.changed(each)
    outlook.heard[each.key] = time.time() - 5
    assert outlook.now().part == pytest.approx(6.5 / 12 / 9, rel=0.05)
    assert outlook.left(each) == pytest.approx(55, abs=1)
    outlook.heard[each.key] = time.time() - 1000
    assert outlook.now().part == pytest.approx(7 / 12 / 9)
    assert outlook.left(each) == 0


def test_the_first_epoch_goes_on_as_it_was_predicted():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled), cost, whole=True)
    each = row(filled, "r101")
    trained(each, 0, 0.0)
    outlook.heard[each.key] = time.time() - 100 / 12 / 2
    assert outlook.now().part == pytest.approx(0.5 / 12 / 9, rel=0.1)


def test_those_that_one_process_trains_take_turns():
    filled = waiting()
    outlook = Outlook(filled)
    some = [row(filled, "r101", name) for name in ("r50", "r34", "r18")]
    for each in some:
        trained(each, 6, 60.0)
        each.group = some[0].key
    assert [outlook.together(each) for each in some] == [3, 3, 3]
    assert outlook.left(some[0]) == pytest.approx(180)
    some[2].state = "done"
    assert outlook.left(some[0]) == pytest.approx(120)
    outlook.heard[some[0].key] = time.time() - 10
    assert outlook.since(some[0]) == pytest.approx(5, abs=0.5), "half of the time was the other's"


def test_what_was_trained_before_is_no_work_of_this_run():
    filled = waiting()
    for each in filled.rows.values():
        each.state = "reused"
    outlook = Outlook(filled)
    assert outlook.now() == (1.0, 0.0)
    start(row(filled, "r18"), epochs=0)
    assert outlook.now().part == 0.0


def test_a_strategy_that_wants_more_than_is_known_is_not_at_its_end():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled), cost, whole=False)
    for each in list(filled.rows.values())[1:]:
        del filled.rows[each.key]
    trained(row(filled, "r101"), 6, 50.0)
    part, left = outlook.now()
    assert part == pytest.approx(50 / 900) and left > 700
    row(filled, "r101").history = [{"epoch": 12.0}] * 12
    outlook.forecast = 1.0
    assert outlook.now().part == ALMOST, "it runs, whatever was predicted"


def test_in_the_end_all_is_done_whatever_was_predicted_and_lost():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect(forecast(filled), cost, whole=True)
    states = ["done", "failed", "lost", "pruned", "reused"]
    for i, each in enumerate(filled.rows.values()):
        each.state = states[i % 5]
    assert outlook.now() == (1.0, 0.0)


def test_a_forecast_of_nothing_is_taken():
    filled = waiting()
    outlook = Outlook(filled)
    outlook.expect({"unit": "seconds", "total": 0.0, "trainings": 0, "slots": [], "stages": {}}, cost, whole=True)
    assert outlook.now().part == 0.0
