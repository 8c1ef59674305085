"""Of all finished stages the nearest is found, as if each were compared with each."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.differences import distance, plain
from orchestrator.nearest import Finished
from tests.orchestrator.random_stages import stages
from trainers.spec import Stage


def record(stage: Stage) -> tuple[str, dict[str, Any]]:
    return stage.key, {"stage": json.loads(stage.model_dump_json()), "score": 0.5}


@given(st.lists(stages, max_size=6), stages)
def test_the_nearest_has_the_same_model_then_the_fewest_differences_then_the_first_key(
    others: list[Stage], one: Stage
) -> None:
    def order(other: Stage) -> tuple[bool, int, str]:
        return other.model != one.model, distance(plain(one), plain(other)), other.key

    nearest = min(others, key=order, default=None)
    assert Finished(map(record, others)).nearest(plain(one)) == (nearest.key if nearest else None)


@given(stages, stages, st.lists(stages, min_size=1, max_size=4))
def test_a_stage_asked_for_after_another_has_the_same_nearest(one: Stage, other: Stage, stored: list[Stage]) -> None:
    finished = Finished(map(record, stored))
    finished.nearest(plain(other))
    assert finished.nearest(plain(one)) == Finished(map(record, stored)).nearest(plain(one))


@given(stages, st.lists(stages, max_size=3))
def test_the_stage_itself_is_nearest_of_all(one: Stage, others: list[Stage]) -> None:
    assert Finished(map(record, [*others, one])).nearest(plain(one)) == one.key


@given(stages, stages)
def test_records_that_say_of_no_stage_are_left_out_and_odd_ones_compared(one: Stage, other: Stage) -> None:
    odd = {"model": 3, "teacher": [1], "seed": float("nan")}
    finished = Finished([("a", {}), ("b", {"stage": [1]}), ("c", {"stage": odd}), record(other)])
    assert set(finished.stages) == {"c", other.key} and finished.scores == {"c": None, other.key: 0.5}
    assert finished.nearest(plain(one)) in finished.stages
    assert Finished([("c", {"stage": odd})]).nearest(plain(one)) == "c"
