"""Several experiments in one report, if a path means the same in all of them; and what `tapath report` says of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator.board import Board
from orchestrator.connection import connect
from orchestrator.lattice import Entry, Lattice, Path
from orchestrator.sweep import sweep
from tests.orchestrator import studies
from tests.orchestrator.boards import board, lattice, train, want
from tests.orchestrator.commands import folder as folder  # a fixture: the commands run in it
from tests.orchestrator.commands import run
from tests.orchestrator.remember import plain, remember, report, track
from tests.orchestrator.studies import tapath
from trainers.call import Invalid, Term
from trainers.spec import Data, Recipe

NAMES = ("r101", "r34", "r18")
WHOLE = lattice(NAMES)


def part(
    *names: str,
    seeds: tuple[int, ...] = (0,),
    edges: list[tuple[str, str]] | None = None,
    data: str = "0123456789abcdef",
    epochs: int = 12,
    losses: tuple[Term, ...] = (Term(name="LD"),),
) -> Lattice:
    """A study of some of the three models, which are what they are there."""
    models = {name: Entry(WHOLE.models[name].model, Recipe(epochs=epochs)) for name in names}
    return Lattice(models, Data(fingerprint=data, classes=("zero", "one")), losses, edges=edges, seeds=seeds)


def trained(name: str, own: Lattice) -> Board:
    filled = Board(name)
    for path in (*own.paths(), *(Path((student,)) for student in own.students)):
        for seed in own.seeds:
            want(filled, own, path, seed)
    for row in filled.rows.values():
        train(row, NAMES)
    return filled


def two(uri: str, one: Lattice, other: Lattice, **said: Any) -> None:
    track(uri, trained("one", one), one, text="name: one\n")
    track(uri, trained("other", other), other, text="name: other\n", **said)


def test_two_halves_of_a_study_make_the_report_of_the_whole(uri: str) -> None:
    """Where the experiments share stages each is there once."""
    two(uri, part("r101", "r18"), part("r101", "r34", "r18", edges=[("r101", "r34"), ("r34", "r18")]))
    track(uri, trained("whole", WHOLE), WHOLE)
    made, whole = report(uri, "one", "other"), report(uri, "whole")
    assert sorted(stage["key"] for stage in made["stages"]) == sorted(stage["key"] for stage in whole["stages"])
    for name in ("models", "edges", "seeds", "metric", "counts", "compute_seconds", "search"):
        assert made[name] == whole[name], name
    assert len(made["stages"]) == 5 and made["study"] == "one + other"
    assert made["studies"] == [
        {"study": name, "study_yaml": f"name: {name}\n", "made": remember(uri, name).made} for name in ("one", "other")
    ]
    assert made["study_yaml"] == "" and made["made"] is None and whole["studies"] == []
    assert answers(made) == answers(whole)


def answers(summary: dict[str, Any]) -> dict[str, Any]:
    """All that is said of paths."""
    other = ("study", "search", "study_yaml", "studies", "stages", "cost", "edges", "models")
    return plain(summary, *other)


def test_in_the_other_order_they_say_the_same(uri: str) -> None:
    two(uri, part("r101", "r18"), part("r101", "r34", "r18"))
    assert answers(report(uri, "one", "other")) == answers(report(uri, "other", "one"))


def test_an_experiment_named_twice_is_one(uri: str) -> None:
    own = part("r101", "r18")
    track(uri, trained("one", own), own)
    assert plain(report(uri, "one", "one")) == plain(report(uri, "one"))


@pytest.mark.parametrize(
    ("here", "there", "both"),
    [((0, 1), (1, 2), (1,)), ((0,), (0,), (0,)), ((0,), (1,), (0, 1)), ((0, 1, 2), (2, 0), (0, 2))],
)
def test_compared_are_the_seeds_that_all_have_or_else_all_there_are(
    here: tuple[int, ...], there: tuple[int, ...], both: tuple[int, ...], uri: str
) -> None:
    two(uri, part("r101", "r18", seeds=here), part("r101", "r18", seeds=there))
    made = report(uri, "one", "other")
    assert made["seeds"] == list(both)
    assert {row.seed for row in remember(uri, "one", "other").rows} == {*here, *there}


def test_a_stage_that_one_experiment_has_half_is_that_of_the_other(uri: str) -> None:
    own = part("r101", "r18")
    half, whole = trained("one", own), trained("other", own)
    for row in half.rows.values():
        if row.path == Path(("r18",)):
            row.history, row.state, row.reason = row.history[:3], "failed", "out of memory"
    track(uri, half, own)
    track(uri, whole, own)
    for names in (("one", "other"), ("other", "one")):
        made = report(uri, *names)
        assert [stage["state"] for stage in made["stages"]] == ["done"] * 3


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (part("r101", "r18", data="fedcba9876543210"), r"not the same data \(one: 0123456789abcdef; other: fedcba98"),
        (part("r101", "r18", epochs=24), "not the same recipe of r101"),
        (
            part("r101", "r18", losses=(Term(name="KD"),)),
            r"not the same losses \(one: .*LD.*; other: .*KD",
        ),
    ],
)
def test_experiments_in_which_a_path_is_another_are_refused_with_what_differs(
    other: Lattice, what: str, uri: str
) -> None:
    two(uri, part("r101", "r18"), other)
    with pytest.raises(Invalid, match=f"the MLflow experiments one, other do not go into one report: {what}"):
        remember(uri, "one", "other")


def test_the_students_of_several_experiments_each_have_an_answer(uri: str) -> None:
    two(uri, part("r101", "r18"), part("r101", "r34"))
    made = report(uri, "one", "other")
    assert made["students"] == ["r34", "r18"]
    assert [answer["best"]["path"] for answer in made["answers"]] == [["r101", "r34"], ["r101", "r18"]]


def test_another_metric_is_refused(uri: str) -> None:
    two(uri, part("r101", "r18"), part("r101", "r18"), metric="AP50")
    with pytest.raises(Invalid, match=r"not the same metric \(one: AP; other: AP50\)"):
        remember(uri, "one", "other")


def test_other_knobs_are_refused_and_none_are_no_other_knobs(uri: str) -> None:
    own = part("r101", "r18")
    two(uri, own, own, sweep=sweep({"LD.weight": [0.1, 0.2]}))
    assert remember(uri, "one", "other").described["sweep"]["LD.weight"] == {"choice": [0.1, 0.2]}
    track(uri, trained("third", own), own, sweep=sweep({"LD.weight": [0.1, 0.3]}))
    with pytest.raises(Invalid, match="they sweep other knobs"):
        remember(uri, "one", "other", "third")


def test_a_student_of_before_a_change_of_order_is_refused(uri: str) -> None:
    two(uri, part("r101", "r34", "r18"), part("r34", "r101", "r18"))
    with pytest.raises(Invalid, match="their models come in another order"):
        remember(uri, "one", "other")


# The command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a study file, or experiments with --experiment NAME"),
        (("tiny.yaml", "--experiment", "tiny"), "name a study file, or experiments with --experiment NAME"),
        (("tiny.yaml", "--tracking", "sqlite:///mlflow.db"), "--tracking goes with --experiment"),
        (("--experiment", "tiny", "--store", "store"), "--store and --set change a study"),
        (("--experiment", "tiny"), "/mlflow.db yet; it is made by `tapath run`"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: tuple[str, ...], message: str, folder: File) -> None:
    ended = run("report", *words)
    assert ended.exit_code == 2 and message in ended.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("experiment", "place"), [("one", "one"), ("../up/../one two", "up-one-two"), ("..", "experiment")]
)
def test_a_report_is_written_below_runs_whatever_mlflow_says_of_the_studys_name(
    experiment: str, place: str, uri: str, folder: File
) -> None:
    own = part("r101", "r18")
    track(uri, trained(experiment, own), own)
    client = connect(uri)
    (identifier,) = [one.experiment_id for one in client.search_experiments() if one.name == experiment]
    (run_id,) = [one.info.run_id for one in client.search_runs([identifier]) if one.data.tags["role"] == "study"]
    client.set_tag(run_id, "study", "../../escaped")
    ended = run("report", "--experiment", experiment, "--tracking", uri)
    assert ended.exit_code == 0, ended.output
    assert (folder / "runs" / place / "report.html").is_file() and not (folder.parents[1] / "escaped").exists()
    assert [one.name for one in (folder / "runs").iterdir()] == [place]


def test_what_was_left_out_is_a_warning(uri: str, folder: File) -> None:
    track(uri, board(NAMES, epochs=6), lattice(NAMES, epochs=6))
    track(uri, board(NAMES), lattice(NAMES))
    ended = run("report", "--experiment", "voc-gfl", "--tracking", uri, "--out", "here")
    assert ended.exit_code == 0 and ended.stdout == "here/report.html\n"
    assert ended.stderr.startswith("warning: 5 stages are left out")
    assert (folder / "here" / "report.html").is_file()


@pytest.mark.ray
def test_with_nothing_but_the_database_the_report_is_that_of_the_run_and_that_of_the_store(
    finished: File, tmp_path: File
) -> None:
    shutil.copy(finished / "mlflow.db", tmp_path)
    ended = tapath(tmp_path, "report", "--experiment", "tiny")
    assert ended.code == 0, ended.err
    assert ended.out == "runs/tiny/report.html\n" and ended.err == ""
    made = studies.report(tmp_path)
    # What it cost was predicted in the run, and MLflow was not told.
    own = studies.report(finished)
    assert plain(made, "cost") == plain(own, "cost")
    assert made["made"]["command"].startswith("tapath run tiny.yaml") and "torch" in made["made"]["versions"]
    assert [one | {"predicted": None, "basis": "unknown"} for one in own["cost"]["stages"]] == made["cost"]["stages"]

    stored = tapath(finished, "report", "tiny.yaml", "--out", str(tmp_path / "stored"))
    assert stored.code == 0, stored.err
    again = json.loads((tmp_path / "stored" / "report.json").read_text())
    for summary in (made, again):
        for stage in summary["stages"]:  # to the store all of it was there before
            assert stage.pop("state") in ("done", "reused") and stage.pop("reused") is (summary is again)
    but = ("cost", "counts", "compute_seconds")
    assert plain(made, *but) == plain(again, *but)
    for name in ("device", "seconds", "images_per_second", "peak_memory_bytes", "measuring_seconds", "workers"):
        assert [one[name] for one in made["cost"]["stages"]] == [one[name] for one in again["cost"]["stages"]]
    pages = [(place / "report.html").read_text() for place in (tmp_path / "runs" / "tiny", finished / "runs" / "tiny")]
    assert pages[0].count("<section") == pages[1].count("<section") - 1, "pictures need weights and data"
