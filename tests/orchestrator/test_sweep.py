"""A sweep as a study writes it, when its trainings are given up, and which settings it asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.settings import values
from orchestrator.sweep import Stop, Sweep, sweep
from trainers.call import Invalid, Term

LD = [Term(name="LD")]
RANGE = {"LD.weight": {"uniform": [0, 1]}}


@st.composite
def written(draw: st.DrawFn) -> dict:
    """A sweep as a study writes it."""
    knobs = {"LD.weight": [0.1, 0.5], "recipe.lr": {"choice": [0.01, 0.1]}, "LD.temperature": {"loguniform": [1, 20]}}
    names = draw(st.lists(st.sampled_from(sorted(knobs)), min_size=1, unique=True))
    made = {name: knobs[name] for name in names}
    if "LD.temperature" in made or draw(st.booleans()):
        made |= {"samples": draw(st.integers(1, 20))}
        made |= draw(st.sampled_from([{}, {"sampler": "random"}, {"sampler": "sobol"}, {"sampler": "tpe"}]))
    else:
        made |= draw(st.sampled_from([{}, {"sampler": "grid"}]))
    if "samples" in made:
        made |= draw(st.sampled_from([{}, {"warm_start": True}, {"warm_start": False}]))
    made |= draw(st.sampled_from([{}, {"scope": "edge"}, {"scope": "path"}]))
    stops = [
        {},
        {"stop": "asha"},
        {"stop": {"halving": {"grace": 2}}},
        {"stop": {"asha": {"factor": 2}}},
        {"stop": None},
    ]
    return made | draw(st.sampled_from(stops))


def test_lists_alone_make_a_grid_and_a_range_or_a_number_of_samples_makes_tpe():
    assert sweep({"LD.weight": [0.1, 0.5]}).sampler == "grid"
    assert sweep({"LD.weight": [0.1, 0.5], "samples": 4}).sampler == "tpe"
    assert sweep({**RANGE, "samples": 4}).sampler == "tpe"


def test_every_edge_has_its_own_sweep_and_nothing_is_given_up_unless_it_is_said():
    made = sweep({"LD.weight": [0.1, 0.5]})
    assert (made.scope, made.stop, made.samples) == ("edge", None, None)
    assert sweep({"LD.weight": [1], "stop": "asha"}).stop == Stop(how="asha", grace=1, factor=3)
    assert sweep({"LD.weight": [1], "stop": {"halving": None}}).stop == Stop(how="halving", grace=1, factor=3)


def test_a_sweep_starts_from_nothing_unless_it_is_said_and_then_is_written_out_as_it_was():
    cold, warm = ({**RANGE, "samples": 8, **more} for more in ({"warm_start": False}, {"warm_start": True}))
    assert "warm_start" not in sweep(cold).model_dump() and sweep(cold).num_warm == 0
    assert sweep(warm).model_dump()["warm_start"] is True


@pytest.mark.parametrize(("samples", "number"), [(1, 1), (4, 1), (7, 1), (8, 2), (16, 4), (30, 7)])
def test_earlier_studies_fill_at_most_a_quarter_of_the_settings_and_at_least_one(samples, number):
    assert sweep({**RANGE, "samples": samples, "warm_start": True}).num_warm == number


@given(written())
def test_a_sweep_that_is_written_out_is_the_same_when_it_is_read_again(written):
    made = sweep(written)
    assert sweep(made.model_dump(mode="json")) == made
    assert isinstance(made, Sweep)


@pytest.mark.parametrize(
    ("grace", "factor", "epochs", "rungs"),
    [(1, 3, 1, []), (1, 3, 2, [1]), (1, 3, 9, [1, 3]), (1, 3, 10, [1, 3, 9]), (2, 2, 12, [2, 4, 8]), (4, 3, 4, [])],
)
def test_rungs_are_at_grace_times_powers_of_the_factor_before_the_end(grace, factor, epochs, rungs):
    assert Stop(how="asha", grace=grace, factor=factor).rungs(epochs) == rungs


@pytest.mark.parametrize("sampler", ["grid", "random", "sobol", "tpe"])
def test_what_was_asked_for_stays_asked_for(sampler):
    knobs = {"LD.weight": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], "LD.temperature": [1, 2, 3]}
    made = sweep({**knobs, "sampler": sampler, **({} if sampler == "grid" else {"samples": 9})})
    first = made.more([], {}, LD, seed="a")
    known = {one: values(one)["LD.weight"] for one in first}
    second = made.more(first, known, LD, seed="a")
    assert second[: len(first)] == first
    assert len(second) == (21 if sampler == "grid" else 8 if sampler == "tpe" else 9)


@pytest.mark.parametrize(
    ("written", "where", "says"),
    [
        ([], (), "write knobs with their values"),
        ({}, (), "name at least one knob"),
        ({"sampler": "grid"}, (), "name at least one knob"),
        ({"LD.weight": 5}, ("LD.weight",), "write a list of values"),
        ({"sampels": 3, "LD.weight": [1]}, ("sampels",), "did you mean samples"),
        ({"LD": [1]}, ("LD",), "a knob of a loss is written LD.weight"),
        ({"LD.weight": [1], "sampler": "gird"}, ("sampler",), "write grid, random, sobol or tpe"),
        ({**RANGE, "sampler": "grid"}, ("LD.weight",), "a grid needs lists of values"),
        ({"LD.weight": [1], "sampler": "grid", "samples": 2}, ("samples",), "a grid takes all its points"),
        (RANGE, (), "say how many settings tpe is to try on each edge, as in samples: 16"),
        ({"LD.weight": [1], "sampler": "random"}, (), "say how many settings random"),
        ({**RANGE, "samples": 0}, ("samples",), r"whole number from 1 on \(got 0\)"),
        ({**RANGE, "samples": 2.5}, ("samples",), "whole number"),
        ({**RANGE, "samples": True}, ("samples",), "whole number"),
        ({**RANGE, "samples": 4, "scope": "node"}, ("scope",), "write edge or path"),
        ({"LD.weight": [1], "stop": "median"}, ("stop",), "write asha or halving"),
        ({"LD.weight": [1], "stop": ["asha"]}, ("stop",), "write asha or halving"),
        ({"LD.weight": [1], "stop": {"asha": {}, "halving": {}}}, ("stop",), "write asha or halving"),
        ({"LD.weight": [1], "stop": {"asha": 3}}, ("stop", "asha"), "asha has the knobs grace and factor"),
        ({"LD.weight": [1], "stop": {"asha": {"grac": 3}}}, ("stop", "asha"), "knobs grace and factor"),
        ({"LD.weight": [1], "stop": {"asha": {"grace": 0}}}, ("stop", "asha", "grace"), "whole number from 1 on"),
        ({"LD.weight": [1], "stop": {"halving": {"factor": 1}}}, ("stop", "halving", "factor"), "from 2 on"),
        ({"LD.weight": [1], "stop": {"halving": {"factor": 2.5}}}, ("stop", "halving", "factor"), "whole number"),
    ],
)
def test_a_mistake_is_refused_at_its_key_with_what_would_do(written, where, says):
    with pytest.raises(Invalid, match=says) as caught:
        sweep(written)
    assert caught.value.where == where
