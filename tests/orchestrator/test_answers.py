"""The answers of a study with several students, and the fronts of score against what path and student take."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.answers import AXES, mark_fronts, ways
from orchestrator.drawing import drawing
from orchestrator.report import render
from orchestrator.verdict import beside, leader, verdict
from tests.orchestrator.boards import SIZES, board, summary
from tests.orchestrator.test_report import Page

BOTH = ("r34", "r18")


def test_each_student_has_an_answer_of_its_own_against_its_own_yardsticks():
    found = summary(board(students=BOTH), students=BOTH)
    assert found["students"] == list(BOTH) == [answer["student"] for answer in found["answers"]]
    for answer, paths in zip(found["answers"], (2, 4), strict=True):
        assert len(answer["ranking"]) == paths and answer["best"] is answer["ranking"][0]
        assert {outcome["path"][-1] for outcome in ways([answer])} == {answer["student"]}
        assert answer["baseline"]["path"] == [answer["student"]]
        best = answer["best"]
        assert best["gain_over_baseline"] == best["score"] - answer["baseline"]["score"]
        assert best["parameters"] == SIZES[answer["student"]] and best["latency_ms"] > 0


def test_the_verdict_says_of_each_student_which_way_is_best_and_once_that_there_is_one_seed():
    said = verdict(summary(board(students=BOTH), students=BOTH))
    assert said[0].startswith("The best way from r101 to r34 is r101 > r50 > r34: AP ")
    second = next(line for line in said if line.startswith("The best way from r101 to r18 is "))
    assert said.index(second) > 0 and Counter(said)["Measured with one seed: a difference may be noise."] == 1


def test_the_best_of_each_student_stands_beside_its_own_yardsticks_in_the_terminal():
    lines = beside(summary(board(students=BOTH), students=BOTH))
    names = [line.rsplit("  ", 1)[1] for line in lines[1:]]
    assert names[1:3] == ["r34 alone", "r101 > r34 directly"] and "r18 alone" in names[3:]
    assert names[0].endswith("> r34") and names[3].endswith("> r18")


def test_whether_assistants_paid_is_no_question_for_a_student_that_has_none():
    """r50 comes right after the teacher."""
    found = summary(board(students=("r50", "r34")), students=("r50", "r34"))
    said = verdict(found)
    assert said[1].startswith("The best way from r101 to r34 ") and said[2].startswith("Did the assistants pay?")


def test_a_students_latency_is_the_median_of_its_trainings_as_all_are_one_model():
    filled = board(students=BOTH)
    own = [row for row in filled.rows.values() if row.path.models[-1] == "r18"]
    for row, ms in zip(own, (5.0, 90.0, 4.0, 6.0, 7.0), strict=True):
        row.usage = {"latency_ms": ms}
    assert {outcome["latency_ms"] for outcome in ways(summary(filled, students=BOTH)["answers"][1:])} == {6.0}


def test_the_leader_names_the_best_path_to_each_student():
    filled = board(students=BOTH)
    said, found = leader(filled), summary(filled, students=BOTH)
    for answer in found["answers"]:
        assert f"{' > '.join(answer['best']['path'])}  {answer['best']['score']:.3f}, " in said


def test_a_student_of_which_nothing_is_trained_is_said_to_have_no_path():
    filled = board(students=BOTH)
    for row in filled.rows.values():
        if row.path.models[-1] == "r34":
            row.state, row.score = "failed", None
    found = summary(filled, students=BOTH)
    assert found["answers"][0]["best"] is None and found["answers"][1]["best"] is not None
    assert verdict(found)[0] == "No path from r101 to r34 is trained to the end."
    page = Page(render(found))
    assert any("nothing is trained to its end" in "".join(row) for row in page.rows)


def test_the_page_has_every_students_paths_and_what_each_student_takes():
    found = summary(board(students=BOTH), students=BOTH)
    page = Page(render(found))
    assert page.text["p"][0].replace("\u00a0", " ").startswith("The best way from r101 to r34")
    assert [row[0] for row in page.table("path")] == [
        " > ".join(outcome["path"]) + (" alone" if len(outcome["path"]) == 1 else "")
        for answer in found["answers"]
        for outcome in (*answer["ranking"], answer["baseline"])
    ]
    students = {row[0]: row[1:] for row in page.rows if row[0] in BOTH and len(row) == 7}
    assert students["r34"][0] == "21.7 M" and students["r18"][0] == "11.6 M"
    assert students["r18"][1] == f"{found['answers'][1]['best']['latency_ms']:.3g}"
    assert page.data["best"] == [answer["best"]["path"] for answer in found["answers"]]
    assert any(attributes.get("id") == "against" for _, attributes in page.tags)


def test_with_one_student_the_page_has_no_table_of_students():
    tags = Page(render(summary(board()))).tags
    assert not {"students", "against"} & {attributes.get("id") for _, attributes in tags}


def test_an_edge_is_marked_that_the_best_path_to_any_student_uses():
    found = summary(board(students=BOTH), students=BOTH)
    marked = {tuple(edge["ends"]) for edge in drawing(found)["edges"] if edge["best"]}
    best = [answer["best"]["path"] for answer in found["answers"]]
    assert marked == {pair for path in best for pair in pairwise(path)}


# Fronts


def answers(points):
    """One answer with these (seconds, parameters, latency, score)."""
    outcomes = [
        {"path": [str(i)], "seconds": seconds, "parameters": size, "latency_ms": latency, "score": score}
        for i, (seconds, size, latency, score) in enumerate(points)
    ]
    return [{"ranking": outcomes, "baseline": None, "same_compute": None}]


def test_on_the_front_is_what_no_cheaper_path_beats():
    found = answers([(1, 9, 4, 0.5), (2, 8, 4, 0.4), (3, 7, None, 0.6), (1, 9, 4, 0.5), (4, 7, 9, 0.6)])
    mark_fronts(found)
    marked = [outcome["front"] for outcome in found[0]["ranking"]]
    assert [("seconds" in front) for front in marked] == [True, False, True, True, False]
    assert [("parameters" in front) for front in marked] == [False, False, True, False, True]
    assert [("latency_ms" in front) for front in marked] == [True, False, False, True, True], "unknown is on none"


FIGURE = st.none() | st.integers(0, 4)


@given(st.lists(st.tuples(FIGURE, FIGURE, FIGURE, st.integers(0, 4)), max_size=12))
def test_the_front_is_paretos(points):
    found = answers(points)
    mark_fronts(found)
    known = ways(found)
    for axis in AXES:
        for one in known:
            beaten = any(
                other[axis] <= one[axis]
                and other["score"] >= one["score"]
                and (other[axis], other["score"]) != (one[axis], one["score"])
                for other in known
                if one[axis] is not None and other[axis] is not None
            )
            assert (axis in one["front"]) == (one[axis] is not None and not beaten)


def test_the_report_is_json_whatever_is_known():
    filled = board(students=BOTH)
    for row in filled.rows.values():
        row.usage = {}
    found = summary(filled, students=BOTH)
    assert all(outcome["latency_ms"] is None for outcome in ways(found["answers"]))
    assert json.loads(json.dumps(drawing(found), allow_nan=False))["points"]
