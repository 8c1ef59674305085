"""What a run found out: scores, costs, gains and the sentence that says them."""

import json
import math
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.board import Board
from orchestrator.lattice import Entry, Lattice, Path
from orchestrator.summary import summarize
from orchestrator.verdict import leader, verdict
from tests.orchestrator.boards import SIZES, board, fail, lattice, model, summary, the_answer, train, want
from trainers.spec import Data, Recipe

NAMES = tuple(SIZES)


def row(filled, *path, seed=0):
    return next(r for r in filled.rows.values() if r.path == Path(path) and r.seed == seed)


def rate(filled, scores):
    for path, score in scores.items():
        row(filled, *path.split()).score = score


def test_every_finished_path_is_ranked_and_gains_are_over_the_student_alone_and_the_direct_path():
    filled = board()
    rate(
        filled,
        {"r101 r18": 0.6, "r101 r50 r18": 0.7, "r101 r34 r18": 0.5, "r101 r50 r34 r18": 0.65, "r18": 0.55},
    )
    found = summary(filled)
    assert [(o["path"], o["score"]) for o in the_answer(found)["ranking"]] == [
        (["r101", "r50", "r18"], 0.7),
        (["r101", "r50", "r34", "r18"], 0.65),
        (["r101", "r18"], 0.6),
        (["r101", "r34", "r18"], 0.5),
    ]
    assert the_answer(found)["best"] == the_answer(found)["ranking"][0]
    assert the_answer(found)["best"]["gain_over_baseline"] == pytest.approx(0.15)
    assert the_answer(found)["best"]["gain_over_direct"] == pytest.approx(0.1)
    assert the_answer(found)["baseline"]["path"] == ["r18"] and the_answer(found)["baseline"]["gain_over_baseline"] == 0
    assert the_answer(found)["direct"]["path"] == ["r101", "r18"]


def test_a_path_costs_all_its_stages_and_the_run_only_what_it_trained():
    filled = board()
    for i, each in enumerate(filled.rows.values()):
        each.seconds = 10.0**i
    row(filled, "r101").state = "reused"
    best = next(o for o in the_answer(summary(filled))["ranking"] if len(o["path"]) == 4)
    names = best["path"]
    assert best["seconds"] == sum(row(filled, *names[:n]).seconds for n in (1, 2, 3, 4))
    assert summary(filled)["compute_seconds"] == sum(r.seconds for r in filled.rows.values()) - 1


def test_a_reused_student_whose_teacher_was_never_looked_at_has_a_score_but_no_cost():
    filled = board()
    row(filled, "r101", "r18").state = "reused"
    del filled.rows[row(filled, "r101").key]
    found = summary(filled)
    assert the_answer(found)["direct"]["seconds"] is None and the_answer(found)["direct"]["score"] is not None
    assert len(the_answer(found)["ranking"]) == 4


def test_a_path_has_a_score_only_once_every_seed_is_trained():
    filled = board(seeds=(0, 1, 2))
    row(filled, "r101", "r50", "r18", seed=2).state = "running"
    found = summary(filled, seeds=(0, 1, 2))
    assert ["r101", "r50", "r18"] not in [o["path"] for o in the_answer(found)["ranking"]]
    direct = the_answer(found)["direct"]
    scores = [row(filled, "r101", "r18", seed=seed).score for seed in (0, 1, 2)]
    assert direct["scores"] == scores and direct["score"] == pytest.approx(fmean(scores))
    assert direct["spread"] == pytest.approx(math.sqrt(sum((s - fmean(scores)) ** 2 for s in scores) / 2))


def test_one_seed_has_no_spread():
    assert the_answer(summary(board()))["best"]["spread"] is None


def test_of_equal_scores_the_cheaper_path_is_better():
    filled = board()
    for each in filled.rows.values():
        each.score = 0.5
    ranking = the_answer(summary(filled))["ranking"]
    assert [o["seconds"] for o in ranking] == sorted(o["seconds"] for o in ranking)
    assert ranking[0]["path"] == ["r101", "r18"]


def test_a_short_training_is_listed_but_not_ranked():
    filled, all_paths = board(), lattice(NAMES)
    short = Path(("r101", "r50", "r18"), 0.25)
    want(filled, all_paths, short, 0)
    for each in filled.rows.values():
        if each.path.budget != 1:
            train(each, NAMES)
            each.score = 0.99
    found = summary(filled)
    assert the_answer(found)["best"]["score"] < 0.99
    assert [s["budget"] for s in found["stages"] if s["path"] == ["r101", "r50", "r18"]] == [1, 0.25]


def twins(*rows):
    """A lattice whose assistant is the same model as its student, and a run in which it was wanted first."""
    entry = Entry(model(3), Recipe(epochs=2))
    both = Lattice(
        {"big": Entry(model(0), Recipe(epochs=2)), "first": entry, "second": entry},
        Data(fingerprint="0", classes=("a",)),
    )
    filled = Board("twins")
    for path in rows:
        want(filled, both, Path(path), 0)
    for i, each in enumerate(filled.rows.values()):
        each.state, each.score = "done", 0.5 + i / 10
    return filled, both


def summarize_twins(filled, both, **more):
    models = {name: entry.model for name, entry in both.models.items()}
    return summarize(
        name="t",
        text="",
        metric="AP",
        search="s",
        seeds=[0],
        models=models,
        edges=both.edges,
        board=filled,
        **more,
    )


def test_a_stage_that_was_wanted_under_an_equal_models_name_counts_for_the_student():
    filled, both = twins(("big", "first"), ("big", "first", "second"), ("big", "second"), ("first",), ("second",))
    assert len(filled.rows) == 4  # the stages of `first` and `second` under `big` are one, and so are those alone
    found = summarize_twins(filled, both)
    assert the_answer(found)["direct"]["score"] == row(filled, "big", "first").score
    assert the_answer(found)["baseline"]["score"] == row(filled, "first").score
    assert sorted(o["path"] for o in the_answer(found)["ranking"]) == [["big", "first", "second"], ["big", "second"]]


def test_an_equal_model_counts_for_the_student_only_where_the_student_could_have_been_taught():
    entry = Entry(model(3), Recipe(epochs=2))
    both = Lattice(
        {"big": Entry(model(0), Recipe(epochs=2)), "first": entry, "second": entry},
        Data(fingerprint="0", classes=("a",)),
        edges=[("big", "first"), ("first", "second")],
    )
    filled, _ = twins(("big", "first"), ("big", "first", "second"))
    found = summarize_twins(filled, both)
    assert [o["path"] for o in the_answer(found)["ranking"]] == [["big", "first", "second"]]
    assert the_answer(found)["direct"] is None


def test_failed_and_lost_stages_are_told_with_their_reason_and_not_ranked():
    filled = board()
    fail(filled, Path(("r101", "r50")), "CUDA out of memory")
    found = summary(filled)
    assert {state: n for state, n in found["counts"].items() if n} == {"done": 5, "failed": 1, "lost": 3}
    assert [o["path"] for o in the_answer(found)["ranking"] if "r50" in o["path"]] == []
    assert (
        "1 stage failed, and 3 that needed them could not start. The first was r101 > r50: CUDA" in verdict(found)[-1]
    )


@given(st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 0.5, None]), min_size=9, max_size=9))
def test_the_summary_is_json_without_nan_or_infinity(scores):
    filled = board(epochs=2)
    for each, score in zip(filled.rows.values(), scores, strict=True):
        each.score = score
        each.history[-1]["train/loss"] = math.nan if score is None else score
    found = summary(filled)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(o["score"] == 0.5 for o in the_answer(found)["ranking"])


def test_nothing_trained_is_no_answer_and_no_error():
    found = summary(Board("empty"))
    assert (
        the_answer(found)["best"],
        the_answer(found)["baseline"],
        the_answer(found)["direct"],
        the_answer(found)["ranking"],
    ) == (None, None, None, [])
    assert verdict(found) == ["No path from r101 to r18 is trained to the end."]


def test_stages_carry_what_they_were_and_who_taught_them():
    found = summary(board())
    by_path = {tuple(s["path"]): s for s in found["stages"]}
    assert by_path["r101", "r50", "r18"]["teacher"] == by_path["r101", "r50"]["key"]
    assert by_path["r101",]["teacher"] is None and by_path["r18",]["role"] == "alone"
    assert by_path["r101", "r50"]["epoch"] == len(by_path["r101", "r50"]["history"]) == 12


def test_the_answer_names_the_path_its_score_and_what_it_gains_and_that_one_seed_may_be_noise():
    filled = board()
    rate(
        filled,
        {"r101 r18": 0.6, "r101 r50 r18": 0.7, "r101 r34 r18": 0.5, "r101 r50 r34 r18": 0.65, "r18": 0.55},
    )
    assert verdict(summary(filled)) == [
        "The best way from r101 to r18 is r101 > r50 > r18: "
        "AP 0.700, +0.150 over r18 alone, +0.100 over r101 > r18 directly.",
        "Did the assistants pay? It looks so: r101 > r50 > r18 is ahead of r18 alone and r101 > r18 directly.",
        "Measured with one seed: a difference may be noise.",
    ]


def test_the_answer_says_when_the_direct_path_is_best():
    filled = board()
    rate(filled, {"r101 r18": 0.9, "r18": 0.55})
    assert verdict(summary(filled))[0].endswith("is r101 > r18: AP 0.900, +0.350 over r18 alone.")


def test_the_answer_says_when_no_path_beats_the_student_alone():
    filled = board()
    rate(filled, {"r101 r50 r18": 0.7, "r18": 0.8})
    said = verdict(summary(filled))[0]
    assert said.startswith(
        "No path from r101 to r18 beats r18 alone, AP 0.800: the best, r101 > r50 > r18, has AP 0.700"
    )


def test_the_answer_of_an_unfinished_run_is_so_far():
    filled = board()
    row(filled, "r101", "r34", "r18").state = "running"
    said = verdict(summary(filled))
    assert said[0].startswith("So far the best way") and "1 stage still to be trained." in said


def test_the_leader_of_a_board_is_the_best_of_its_summary():
    filled = board(seeds=(0, 1))
    best = the_answer(summary(filled, seeds=(0, 1)))["best"]
    assert leader(filled).startswith(f"best {' > '.join(best['path'])}  {best['score']:.3f}, ")
    assert leader(Board("empty")) == ""


def test_a_stage_that_several_paths_want_counts_for_each_of_them():
    filled = board(("r101", "r50", "r18"))
    (taught,) = [row for row in filled.rows.values() if row.path.models == ("r101", "r50")]
    taught.others.append(Path(("r101", "r18"), settings=((("LD.weight", "2"),),)))
    taught.score = 0.99
    assert the_answer(summary(filled, ("r101", "r50", "r18")))["best"]["path"] == ["r101", "r18"]
    assert the_answer(summary(filled, ("r101", "r50", "r18")))["best"]["settings"] == [{"LD.weight": 2}]
