"""Gains are compared seed by seed; what cannot be told from the best is tied with it, and the verdict says so."""

import json
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.answers import ties
from orchestrator.board import Board
from orchestrator.verdict import beside, verdict
from tests.orchestrator.boards import board, longer, summary, the_answer
from tests.orchestrator.test_summary import rate, row

# Scores of three seeds that differ from path to path by more or by less than their noise.
NOISY = {
    "r101 r50 r18": (0.70, 0.72, 0.74),
    "r101 r34 r18": (0.695, 0.722, 0.733),  # behind by .005, -.002 and .007: 0.0033 on average, give or take .0117
    "r101 r18": (0.65, 0.671, 0.69),  # behind by .05, .049 and .05
    "r101 r50 r34 r18": (0.60, 0.64, 0.61),
    "r18": (0.55, 0.571, 0.59),
}


def noisy(*, long=(0.60, 0.62, 0.65), **more):
    filled = board(seeds=(0, 1, 2))
    longer(filled, seeds=(0, 1, 2))
    for path, scores in (NOISY | {path.replace("_", " "): scores for path, scores in more.items()}).items():
        for seed, score in enumerate(scores):
            row(filled, *path.split(), seed=seed).score = score
    for seed, score in enumerate(long):
        next(r for r in filled.rows.values() if r.path.budget == 4 and r.seed == seed).score = score
    return filled


def told(filled):
    return summary(filled, seeds=(0, 1, 2))


def test_gains_are_compared_seed_by_seed():
    best = the_answer(told(noisy()))["best"]
    assert best["path"] == ["r101", "r50", "r18"]
    # The deviation of the differences to the direct path is .001 / sqrt(3), so the error .001 / 3; t is 4.3.
    middle, reach = 0.149 / 3, 4.302653 * 0.001 / 3
    assert best["gain_over_direct"] == pytest.approx(middle)
    assert best["interval_over_direct"] == pytest.approx([middle - reach, middle + reach], abs=1e-6)
    # The scores themselves differ much more from seed to seed: their deviation is .02.
    assert best["interval"] == pytest.approx([0.72 - 4.302653 * 0.02 / 3**0.5, 0.72 + 4.302653 * 0.02 / 3**0.5])


def test_a_path_is_no_gain_over_itself_and_has_no_interval_of_it():
    found = told(noisy())
    assert (
        the_answer(found)["direct"]["interval_over_direct"] is None
        and the_answer(found)["direct"]["gain_over_direct"] == 0
    )
    assert the_answer(found)["baseline"]["interval_over_baseline"] is None
    assert the_answer(found)["ranking"][2]["interval_over_direct"] is None and the_answer(found)["ranking"][2][
        "path"
    ] == ["r101", "r18"]


def test_a_path_is_tied_with_the_best_where_the_interval_of_their_difference_holds_0_and_the_cheapest_is_recommended():
    filled = noisy()
    found = told(filled)
    assert the_answer(found)["tied"] == [["r101", "r50", "r18"], ["r101", "r34", "r18"]]
    costs = {tuple(o["path"]): o["seconds"] for o in the_answer(found)["ranking"]}
    assert the_answer(found)["recommended"] == ["r101", "r34", "r18"]
    assert costs["r101", "r34", "r18"] < costs["r101", "r50", "r18"]
    for seed in (0, 1, 2):
        row(filled, "r101", "r34", seed=seed).seconds *= 100
    assert the_answer(told(filled))["recommended"] == ["r101", "r50", "r18"]


@pytest.mark.parametrize(("paths", "least", "most"), [(2, 0.03, 0.07), (8, 0.06, 0.10)])
def test_of_equal_paths_one_is_rarely_called_behind_though_the_best_of_many_is_lucky(paths, least, most):
    chance, behind = random.Random(0), 0
    for _ in range(500):
        luck = [chance.gauss(0, 0.02) for _ in range(3)]  # of the seeds, shared by all
        drawn = ([own + chance.gauss(0, 0.01) for own in luck] for _ in range(paths))
        ranking = sorted(({"scores": one, "score": fmean(one)} for one in drawn), key=lambda o: -o["score"])
        behind += paths - len(ties(ranking))
    assert least < behind / 500 / (paths - 1) < most


def test_where_no_cost_is_known_the_best_of_the_tied_is_recommended():
    filled = noisy()
    for seed in (0, 1, 2):
        del filled.rows[row(filled, "r101", seed=seed).key]
    found = told(filled)
    assert the_answer(found)["best"]["seconds"] is None and len(the_answer(found)["tied"]) == 2
    assert the_answer(found)["recommended"] == the_answer(found)["best"]["path"]


def test_the_student_alone_may_be_tied_and_then_it_is_the_cheapest():
    found = told(noisy(r18=(0.69, 0.73, 0.735)))
    assert the_answer(found)["tied"] == [["r101", "r50", "r18"], ["r18"], ["r101", "r34", "r18"]]
    assert the_answer(found)["recommended"] == ["r18"]
    assert "it is the cheapest" not in verdict(found)[2] and "r18 alone is the cheapest of them" in verdict(found)[2]


def test_one_seed_claims_no_tie_and_recommends_the_best():
    found = summary(board())
    first = max([*the_answer(found)["ranking"], the_answer(found)["baseline"]], key=lambda outcome: outcome["score"])[
        "path"
    ]
    assert the_answer(found)["tied"] == [first] and the_answer(found)["recommended"] == first
    assert the_answer(found)["best"]["interval"] is None and the_answer(found)["best"]["interval_over_baseline"] is None
    assert not any("tie" in line for line in verdict(found))


def test_the_order_of_the_seeds_decides_nothing():
    filled = noisy()
    one, other = summary(filled, seeds=(0, 1, 2)), summary(filled, seeds=(2, 0, 1))
    assert (
        the_answer(one)["tied"] == the_answer(other)["tied"]
        and the_answer(one)["recommended"] == the_answer(other)["recommended"]
    )
    assert the_answer(one)["best"]["interval_over_direct"] == pytest.approx(
        the_answer(other)["best"]["interval_over_direct"]
    )


def test_the_student_alone_with_the_compute_of_the_best_path_is_no_path_and_stands_beside_it():
    filled = noisy()
    found = told(filled)
    long = the_answer(found)["same_compute"]
    assert long["path"] == ["r18"] and long["epochs"] == 48 and long["score"] == pytest.approx(1.87 / 3)
    assert long["seconds"] == pytest.approx(4 * the_answer(found)["baseline"]["seconds"])
    assert the_answer(found)["baseline"]["scores"] == list(NOISY["r18"]) and len(the_answer(found)["ranking"]) == 4
    assert the_answer(found)["best"]["gain_over_same_compute"] == pytest.approx(0.72 - 1.87 / 3)
    next(r for r in filled.rows.values() if r.path.budget == 4 and r.seed == 1).state = "running"
    assert (
        the_answer(told(filled))["same_compute"] is None
        and the_answer(told(filled))["best"]["gain_over_same_compute"] is None
    )


def test_the_verdict_names_gains_over_all_three_and_ties():
    assert verdict(told(noisy())) == [
        "The best way from r101 to r18 is r101 > r50 > r18: AP 0.720, +0.150 over r18 alone, "
        "+0.050 over r101 > r18 directly, +0.097 over r18 alone with the same compute.",
        "Did the assistants pay? Yes: r101 > r50 > r18 is ahead of r18 alone, r101 > r18 directly and "
        "r18 alone with the same compute beyond the noise.",
        "A tie: r101 > r34 > r18 cannot be told from r101 > r50 > r18; "
        "r101 > r34 > r18 is the cheapest of them, and recommended.",
        "Means over 3 seeds, compared seed by seed.",
    ]


def test_the_assistants_did_not_pay_where_the_student_alone_does_better_with_their_compute():
    said = verdict(told(noisy(long=(0.80, 0.821, 0.841))))
    assert "-0.101 over r18 alone with the same compute" in said[0]
    assert said[1] == (
        "Did the assistants pay? No: r101 > r50 > r18 is behind r18 alone with the same compute beyond the noise."
    )


def test_whether_they_paid_is_not_shown_where_the_difference_may_be_noise():
    said = verdict(told(noisy(r101_r18=(0.69, 0.73, 0.735))))
    assert said[1] == (
        "Did the assistants pay? Not shown: the difference of r101 > r50 > r18 to r101 > r18 directly may be noise."
    )


def test_where_the_direct_path_is_best_the_best_through_an_assistant_is_asked_about():
    said = verdict(told(noisy(r101_r18=(0.80, 0.821, 0.841))))
    assert said[1] == "Did the assistants pay? No: r101 > r50 > r18 is behind r101 > r18 directly beyond the noise."
    filled = board()
    rate(filled, {"r101 r18": 0.9, "r18": 0.55})
    assert "It does not look so: " in verdict(summary(filled))[1]
    assert verdict(summary(filled))[1].endswith(" is not ahead of r101 > r18 directly.")


def test_where_no_path_through_an_assistant_is_trained_in_full_that_is_said():
    filled = board()
    for path in ("r101 r50 r18", "r101 r34 r18", "r101 r50 r34 r18"):
        del filled.rows[row(filled, *path.split()).key]
    assert verdict(summary(filled))[1] == "Did the assistants pay? No path through one is trained in full."


def test_without_assistants_nobody_asks_whether_they_paid():
    filled = board(("r101", "r18"))
    assert not any("assistants" in line for line in verdict(summary(filled, ("r101", "r18"))))


def test_beside_the_best_path_stand_its_yardsticks_with_gain_interval_and_time():
    lines = [line.split() for line in beside(told(noisy()))]
    assert lines[0] == ["AP", "gain", "95%", "time"]
    assert lines[1][:1] == ["0.720"] and lines[1][2:] == ["r101", ">", "r50", ">", "r18"]
    assert lines[2] == ["0.570", "+0.150", "+0.148", "to", "+0.151", "1:36", "r18", "alone"]
    assert lines[3][1:5] == ["+0.050", "+0.048", "to", "+0.051"] and lines[3][-1] == "directly"
    assert lines[4][-7:] == ["alone", "with", "the", "same", "compute,", "48", "epochs"]
    assert beside(summary(board()))[0].split() == ["AP", "gain", "time"]
    assert beside(summary(Board("empty"))) == []


@given(st.lists(st.lists(st.sampled_from([0.5, 0.6, 0.61, 0.7]), min_size=3, max_size=3), min_size=5, max_size=5))
def test_whatever_the_scores_the_best_is_among_the_tied_and_the_recommended_costs_least_of_them(scores):
    found = told(noisy(**{path.replace(" ", "_"): own for path, own in zip(NOISY, scores, strict=True)}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    every = {tuple(o["path"]): o for o in [*the_answer(found)["ranking"], the_answer(found)["baseline"]]}
    tied = [every[tuple(path)] for path in the_answer(found)["tied"]]
    assert tied[0]["score"] == max(outcome["score"] for outcome in every.values())
    assert every[tuple(the_answer(found)["recommended"])]["seconds"] == min(outcome["seconds"] for outcome in tied)
    assert verdict(found)
