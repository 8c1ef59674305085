"""Whatever stands in a study file or behind --set is a study or one refusal, never anything else."""

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.orchestrator.study_texts import DATA, TEXT, read
from trainers.call import Invalid

pytestmark = pytest.mark.usefixtures("in_a_folder")

PIECES = [
    *"abc:-,[]{}&*!>|'\"#%@~?0159.",
    "\n",
    "\n  ",
    "  ",
    ": ",
    "- ",
    "\t",
    "\x00",
    "\x85",
    "\ud7ff",
    "1e-3",
    "null",
]
WORDS = [
    "GFL",
    "LD",
    "big",
    "recipe",
    "models",
    "epochs",
    "-1",
    "1e400",
    "no",
    "<<",
    "&a ",
    "*a",
    "!!set ",
    "{}",
    "[]",
]
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def study_or_refusal(text: str, *sets: str) -> None:
    try:
        study = read(text, *sets)
    except Invalid as mistake:
        assert str(mistake).startswith(("demo.yaml", "--set"))
        assert all(line.isprintable() for line in str(mistake).split("\n"))
    else:
        lattice = study.lattice(DATA)
        assert lattice.stage(lattice.shortest(lattice.students[0]), study.seeds[0]).key
        assert json.loads(json.dumps(study.resolved(), allow_nan=False)) == study.resolved()


@FUZZ
@given(st.lists(st.sampled_from(PIECES + WORDS), max_size=60).map("".join))
def test_any_text_is_a_study_or_refused(text):
    study_or_refusal(text)


@st.composite
def mutants(draw: st.DrawFn) -> str:
    text = TEXT
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 12))
        text = text[:start] + "".join(draw(st.lists(st.sampled_from(PIECES + WORDS), max_size=3))) + text[end:]
    return text


@FUZZ
@given(mutants())
def test_any_change_to_a_study_is_a_study_or_refused(text):
    study_or_refusal(text)


def places(tree, where=()):
    yield where
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(value, (*where, key))


EVERY_PLACE = [".".join(map(str, where)) for where in places(yaml.safe_load(TEXT)) if where]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@FUZZ
@given(st.sampled_from(EVERY_PLACE), VALUES.map(json.dumps) | st.sampled_from(WORDS))
def test_any_value_at_any_place_is_a_study_or_refused(place, value):
    study_or_refusal(TEXT, f"{place}={value}")


@FUZZ
@given(
    st.lists(st.sampled_from([*".=0123[]{}", "recipe", "models", "big", "distill", "LD", "x"]), max_size=8).map("".join)
)
def test_any_set_is_applied_or_refused(assignment):
    study_or_refusal(TEXT, assignment)
