"""MLflow answers across studies: by their data, the student and the cost; in a list."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from orchestrator.asked import of_experiments
from orchestrator.board import Row
from orchestrator.choice import limit
from orchestrator.lattice import Path
from orchestrator.ranking import paths
from orchestrator.tracking import Tracking
from tests.orchestrator.answered import best, on, record
from tests.orchestrator.tracked import begin, models, row, run_of, runs, settle
from trainers.call import Invalid


def swept(one: Row, setting: tuple[tuple[str, str], ...]) -> Row:
    """The same as the sample of a sweep."""
    edges = len(one.path.models) - 1
    return replace(one, path=Path(one.path.models, settings=((),) * (edges - 1) + (setting,)))


@pytest.fixture
def two(uri: str) -> str:
    """Experiments `one` and `two` with data of their own in each, and data that both have."""
    teacher = row("r101", "teacher", 0.9)
    record(
        uri,
        "one",
        teacher,
        row("r101 > r34", "assistant", 0.8),
        row("r101 > r18", score=0.5),
        row("r101 > r34 > r18", score=0.6),
        metric="AP",
        data="Digits: {classes: 2}",
        data_fingerprint="abc",
    )
    record(
        uri,
        "two",
        replace(teacher, state="reused"),
        replace(row("r101 > r18", score=0.5), state="reused"),
        row("r34", "alone", 0.4),
        on("fed", row("r18", "alone", 0.7)),
        metric="AP",
        data="COCO: {root: cats}",
        data_fingerprint="fed",
    )
    return uri


def test_a_control_that_trained_for_longer_is_neither_an_answer_nor_another_student(uri: str) -> None:
    longer = replace(row("r18", "alone", 0.9), path=Path(("r18",), 5.25))
    record(uri, "one", row("r101", "teacher", 0.9), row("r101 > r18", score=0.5), longer, metric="AP")
    said = json.loads(best(uri, "--experiment", "one", "--json").stdout)
    assert said["path"] == "r101 > r18"


def test_several_experiments_are_asked_as_one_and_what_both_have_is_there_once(two: str) -> None:
    for asked in (None, ["one", "two"]):
        found = paths(two, asked)
        assert [(one.path, round(one.score, 9), one.experiments) for one in found] == [
            ("r18", 0.7, ["two"]),
            ("r101 > r34 > r18", 0.6, ["one"]),
            ("r101 > r18", 0.5, ["one", "two"]),
            ("r34", 0.4, ["two"]),
        ]
    assert [one.path for one in paths(two, ["two"])] == ["r18", "r101 > r18", "r34"]
    assert (found[0].data, found[0].names, found[0].metric) == ("fed", ["COCO: {root: cats}"], "AP")


def test_seeds_of_one_setting_count_together_whichever_study_trained_them(uri: str) -> None:
    for name, seed, score in (("one", 0, 0.4), ("two", 1, 0.6)):
        record(uri, name, row("r101", "teacher", 0.9, seed=seed), row(seed=seed, score=score), metric="AP")
    (found,) = paths(uri, None)
    assert found.scores == pytest.approx({0: 0.4, 1: 0.6}) and found.score == pytest.approx(0.5)
    assert found.spread == pytest.approx(math.sqrt(0.02)) and found.seconds == 60


def test_scores_that_are_other_figures_are_not_averaged(uri: str) -> None:
    for name, seed, metric in (("one", 0, "AP"), ("two", 1, "AP50")):
        record(uri, name, row(seed=seed, score=0.5 + seed / 10), metric=metric)
    assert [one.metric for one in paths(uri, None)] == ["AP50", "AP"]
    assert "different figures: AP, AP50" in best(uri, "--all").stderr


def test_data_are_chosen_by_fingerprint_or_by_what_the_study_writes(two: str) -> None:
    asked = of_experiments(None, two)
    for said in ("fed", "fe", "COCO", "COCO: {root: cats"):
        assert [one.path for one in asked.paths(data=said)] == ["r18"], said
    assert [one.path for one in asked.paths(data="Digits")] == ["r101 > r34 > r18", "r101 > r18", "r34"]
    with pytest.raises(Invalid, match=r"the data VOC; there are COCO: \{root: cats\}; Digits"):
        asked.paths(data="VOC")


def test_the_student_is_the_last_model_of_the_path(two: str) -> None:
    asked = of_experiments(None, two)
    assert [one.path for one in asked.paths(student="r34")] == ["r34"]
    assert {one.student for one in asked.paths(student="r18")} == {"r18"}
    with pytest.raises(Invalid, match=r"r19 is not one of r18, r34; did you mean"):
        asked.paths(student="r19")


def test_a_limit_counts_the_whole_path_and_may_be_reached(two: str) -> None:
    asked = of_experiments(["one"], two)
    assert asked.paths()[0].path == "r101 > r34 > r18"  # 90 seconds
    for under in ("seconds=60", "gpu_hours=0.0167", "stages=2"):
        assert [one.path for one in asked.paths(under=[under])] == ["r101 > r18"], under
    assert len(asked.paths(under=["seconds=90", "stages=3"])) == 2
    with pytest.raises(Invalid, match=r"under seconds=59; the least is 60"):
        asked.paths(under=["seconds=59"])


def test_hours_are_those_of_all_workers_and_published_weights_are_no_training(tracking: Tracking, uri: str) -> None:
    published = replace(row("r101", "teacher", done=0), score=0.9, metrics={"val/AP": 0.9}, seconds=6.0)
    settle(tracking, published, row(usage={"workers": 4.0}))
    (found,) = paths(uri, ["demo"])
    assert found.seconds == pytest.approx(36) and found.worker_seconds == pytest.approx(6 + 4 * 30)
    assert found.stages == 1


def test_what_is_not_known_whole_is_under_no_limit(tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101 > r18"))  # its teacher is in no experiment
    (found,) = paths(uri, ["demo"])
    assert not found.whole and "at least 30 s" in best(uri, "--experiment", "demo", "--top", "1").stdout
    with pytest.raises(Invalid, match="it is not known of any path"):
        of_experiments(["demo"], uri).paths(under=["seconds=1000"])


@pytest.mark.parametrize("text", ["hours=2", "gpu_hours", "seconds=", "seconds=-1", "seconds=nan", "stages=inf"])
def test_a_limit_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        limit(text)


def test_top_lists_paths_with_spread_cost_and_settings(uri: str) -> None:
    rows = [row("r101", "teacher", 0.9, seed=seed) for seed in (0, 1)]
    rows += [row(seed=seed, score=0.5 + seed / 10) for seed in (0, 1)]
    rows += [swept(row(seed=seed, score=0.3, weight=0.5), (("LD.weight", "0.5"),)) for seed in (0, 1)]
    record(uri, "demo", *rows, metric="AP")
    said = best(uri, "--experiment", "demo", "--top", "5").stdout.splitlines()
    assert said[0] == "r101 > r18  score 0.5500 +- 0.0707 over 2 seeds, 60 s, demo"
    assert said[1].startswith("r101 > r18  score 0.3000 +- 0.0000") and said[2] == "  r101 > r18: LD.weight 0.5"
    made = json.loads(best(uri, "--experiment", "demo", "--top", "5", "--json").stdout)
    assert [one["score"] for one in made] == pytest.approx([0.55, 0.3])
    assert made[0]["spread"] == pytest.approx(math.sqrt(0.005)) and made[1]["settings"] == ["LD.weight 0.5"]
    assert len(json.loads(best(uri, "--experiment", "demo", "--top", "1", "--json").stdout)) == 1
    assert json.loads(best(uri, "--experiment", "demo", "--json").stdout)["path"] == "r101 > r18"


def test_scores_on_different_data_are_said_not_to_compare(two: str) -> None:
    said = best(two, "--all")
    assert said.stdout.startswith("r18  score 0.7000") and "of different data" in said.stderr
    assert best(two, "--all", "--data", "Digits").stderr == ""


def test_one_question_at_a_time(uri: str) -> None:
    for words in ((), ("--all", "--experiment", "one"), ("--all", "--compare", "one", "two")):
        ended = best(uri, *words)
        assert ended.exit_code == 2 and "--compare" in ended.stderr, words
    record(uri, "one", row())
    assert "leave --top out" in best(uri, "--compare", "one", "one", "--top", "2").stderr


# MLflow's own pages.


def test_the_runs_of_a_sweep_have_the_same_columns(tracking: Tracking, uri: str) -> None:
    rows = [swept(row(weight=weight, score=weight), (("LD.weight", str(weight)),)) for weight in (0.1, 0.25, 0.5)]
    settle(tracking, *rows)
    own = [run_of(uri, one).data for one in rows]
    assert len({frozenset(run.params) for run in own}) == 1
    assert [float(run.params["distill.LD.weight"]) for run in own] == [0.1, 0.25, 0.5]
    assert [run.tags["sweep"] for run in own] == ["LD.weight 0.1", "LD.weight 0.25", "LD.weight 0.5"]
    assert {(run.tags["path"], run.tags["role"], run.tags["state"]) for run in own} == {
        ("r101 > r18", "student", "done")
    }


def test_a_path_says_what_it_took_unless_a_teacher_is_missing(tracking: Tracking, uri: str) -> None:
    settle(tracking, row("r101", "teacher", 0.9), row("r101 > r18"), row("r101 > r34 > r18"))
    tracking.close("FINISHED")
    again = begin(uri)  # reads the teachers back
    settle(again, row("r101 > r34", "assistant", 0.7))
    again.close("FINISHED")
    named = {one["path"]: own for run in runs(uri).values() if (own := run.data.metrics) and (one := run.data.tags)}
    assert named["r101"]["path_seconds"] == 30 and named["r101 > r18"]["path_seconds"] == 60
    assert named["r101 > r34"]["path_seconds"] == 60 and "path_seconds" not in named["r101 > r34 > r18"]
    (checkpoint,) = [model for model in models(uri) if model.tags["path"] == "r101 > r18"]
    assert {one.key: one.value for one in checkpoint.metrics}["path_seconds"] == 60


def test_a_parameter_that_is_back_at_its_first_value_is_not_noted_as_changed(uri: str) -> None:
    for epochs in ("a", "b", "a"):
        begin(uri, data=epochs).close("FINISHED")
    (study,) = runs(uri).values()
    assert (study.data.params["data"], study.data.tags["now.data"]) == ("a", "a")


def test_a_path_that_has_not_all_seeds_of_its_study_is_no_match_for_one_that_has(uri: str) -> None:
    few = [replace(row("r101 > r18", score=0.9), seed=0)]
    all_seeds = [row("r101 > r34 > r18", score=0.5, seed=seed) for seed in (0, 1)]
    record(uri, "raced", *few, *all_seeds)
    plain, of_two = of_experiments(["raced"], uri), replace(of_experiments(["raced"], uri), seeds=2)
    assert [found.path for found in plain.paths()] == ["r101 > r18", "r101 > r34 > r18"]
    assert [found.path for found in of_two.paths()] == ["r101 > r34 > r18"]
    assert [found.path for found in replace(of_two, seeds=3).paths()] == ["r101 > r18", "r101 > r34 > r18"]


def test_where_no_study_says_how_many_seeds_there_are_a_path_with_few_is_named(uri: str) -> None:
    few, whole = row("r101 > r18", score=0.9), [row("r101 > r34 > r18", seed=seed) for seed in (0, 1)]
    record(uri, "raced", few, *whole, on("bbbb", row("r34 > r18", score=0.2)), row("r101 > r34", score=0.1))
    said = "warning: r101 > r18 has 1 of 2 seeds"
    assert said in best(uri, "--experiment", "raced", "--student", "r18").stderr
    assert said in best(uri, "--experiment", "raced", "--top", "3").stderr
    for words in (("--data", "bbbb"), ("--student", "r34")):
        ended = best(uri, "--experiment", "raced", *words)
        assert ended.exit_code == 0 and "seeds" not in ended.stderr, ended.stderr


def test_a_study_answers_with_its_own_stages_whatever_they_were_called_when_they_were_logged(uri: str) -> None:
    rung = replace(row("r101 > r18", score=0.7), path=Path(("r101", "r18"), 0.5))
    record(uri, "demo", rung)
    asked = of_experiments(["demo"], uri)
    with pytest.raises(Invalid, match="no student of"):
        asked.paths()
    (found,) = replace(asked, keys={rung.key}).paths()
    assert found.keys == {rung.seed: rung.key}
