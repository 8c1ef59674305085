"""A report made from MLflow alone has every figure that the run's own report has, whatever became of the stages."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator import expectations, notes, remembered
from orchestrator.board import Board, Row
from orchestrator.connection import connect
from orchestrator.lattice import Lattice, Path
from orchestrator.rungs import rungs
from orchestrator.summary import summarize
from orchestrator.sweep import sweep
from orchestrator.swept import swept
from tests.orchestrator.boards import SIZES, board, fail, lattice, longer, the_answer, train
from tests.orchestrator.remember import OWN, plain, remember, report, track
from tests.orchestrator.tracked import begin, row, settle
from trainers.call import Invalid

NAMES = ("r101", "r34", "r18")
TEXT = "name: voc-gfl\n# a long comment\n" + "x" * 12_000


def said(filled: Board, own: Lattice, **more: Any) -> dict[str, Any]:
    """The report of the run itself."""
    return summarize(
        name=filled.name,
        text=TEXT,
        metric="AP",
        search="exhaustive",
        seeds=own.seeds,
        models={name: entry.model for name, entry in own.models.items()},
        edges=sorted(own.edges),
        board=filled,
        parameters={name: SIZES[name] for name in own.names},
        **more,
    )


def seeded(*seeds: int) -> Lattice:
    own = lattice(NAMES)
    return Lattice(own.models, own.data, own.distill, seeds=seeds)


def of(filled: Board, *path: str, seed: int = 0) -> Row:
    return next(row for row in filled.rows.values() if row.path == Path(path) and row.seed == seed)


def test_a_finished_study_has_the_same_report_field_by_field(uri: str) -> None:
    filled, own = board(NAMES, seeds=(0, 1)), seeded(0, 1)
    longer(filled, NAMES, seeds=(0, 1))
    track(uri, filled, own, text=TEXT)
    made = report(uri, filled.name)
    assert plain(made, "cost") == plain(said(filled, own), "cost")
    assert set(made) == set(said(filled, own)) and made["cost"]["stages"][0]["seconds"] > 0
    assert remember(uri, filled.name).cautions == [] and OWN == ("created", "seconds")


def test_what_failed_or_was_given_up_or_is_under_way_or_never_began_is_shown_as_such(uri: str) -> None:
    filled, own = board(NAMES), lattice(NAMES)
    fail(filled, Path(("r101", "r34")), "the loss is NaN")
    pruned, under_way, lost = of(filled, "r101", "r18"), of(filled, "r18"), of(filled, "r101", "r34", "r18")
    for each, epochs in ((pruned, 3), (under_way, 5)):
        each.history, each.score = [], None
        train(each, NAMES, epochs=epochs)
    pruned.state, pruned.reason, pruned.started = "pruned", "given up after 3 of 12 epochs", 1.0
    assert lost.state == "lost"
    track(uri, filled, own, text=TEXT, close=False)._background.stop()
    made = report(uri, filled.name)
    assert plain(made, "cost") == plain(said(filled, own), "cost")
    assert {stage["state"] for stage in made["stages"]} == {"done", "failed", "pruned", "running", "lost"}


def test_a_stage_that_waited_when_a_run_ended_and_was_begun_since_is_there_once(uri: str) -> None:
    filled, own = board(NAMES), lattice(NAMES)
    later = of(filled, "r101", "r34", "r18")
    history, later.history, later.state = later.history, [], "waiting"
    track(uri, filled, own)
    assert report(uri, filled.name)["counts"]["waiting"] == 1
    later.history, later.state = history[:2], "running"
    tracking = begin(uri, filled.name)
    tracking.version = notes.version(notes.joined(notes.DESCRIPTION, study_tags(uri, filled.name)))
    settle(tracking, later)
    tracking._background.stop()  # killed: what waits now nobody has noted
    counts = report(uri, filled.name)["counts"]
    assert (counts["waiting"], counts["running"], counts["done"]) == (0, 1, 4)


def study_tags(uri: str, name: str) -> dict[str, str]:
    client = connect(uri)
    experiment = client.get_experiment_by_name(name).experiment_id
    (run,) = client.search_runs([experiment], "tags.role = 'study'")
    tags: dict[str, str] = run.data.tags
    return tags


def test_what_was_interrupted_is_trained_in_part(uri: str) -> None:
    filled = board(NAMES)
    half = of(filled, "r101", "r34", "r18")
    half.history, half.state = half.history[:4], "running"
    track(uri, filled, lattice(NAMES))
    (stage,) = (stage for stage in report(uri, filled.name)["stages"] if stage["key"] == half.key)
    assert (stage["state"], stage["epoch"]) == ("paused", 4)
    assert stage["history"] == half.history


def test_an_epoch_that_was_selected_leaves_the_last_one_as_it_was(uri: str) -> None:
    filled, own = board(NAMES), lattice(NAMES)
    chosen = of(filled, "r101", "r18")
    chosen.selected = 7
    chosen.metrics = {**{n: v for n, v in chosen.history[6].items() if n.startswith("val/")}, "test/AP": 0.25}
    chosen.score = chosen.metrics["val/AP"]
    track(uri, filled, own, text=TEXT)
    made = report(uri, filled.name)
    assert plain(made, "cost") == plain(said(filled, own), "cost")
    (direct,) = (outcome for outcome in the_answer(made)["ranking"] if outcome["path"] == ["r101", "r18"])
    assert direct["test"] == 0.25 and direct["score"] == chosen.history[6]["val/AP"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_known(bad: float, uri: str) -> None:
    filled, own = board(NAMES), lattice(NAMES)
    sick = of(filled, "r101", "r18")
    sick.history[2]["val/AP"] = sick.history[-1]["val/AP"] = sick.history[4]["train/loss"] = sick.score = bad
    track(uri, filled, own, text=TEXT)
    made = report(uri, filled.name)
    assert plain(made, "cost") == plain(said(filled, own), "cost")
    (stage,) = (stage for stage in made["stages"] if stage["key"] == sick.key)
    assert stage["score"] is None and stage["history"][2]["val/AP"] is None


def test_names_that_mlflow_refuses_come_back_as_they_were(uri: str) -> None:
    filled, own = board(NAMES), lattice(NAMES)
    for each in filled.rows.values():
        for entry in each.history:
            entry["val/AP_café: small"] = 0.5
    track(uri, filled, own, text=TEXT)
    assert plain(report(uri, filled.name), "cost") == plain(said(filled, own), "cost")


def test_published_weights_that_were_only_measured_have_their_figures(uri: str) -> None:
    filled = board(NAMES)
    measured = of(filled, "r101")
    measured.history, measured.metrics, measured.score = [], {"val/AP": 0.7, "val/AP_a b:c": 0.6}, 0.7
    track(uri, filled, lattice(NAMES))
    (row,) = (row for row in remember(uri, filled.name).rows if row.key == measured.key)
    assert row.history == [] and row.score == 0.7
    assert {name: row.metrics[name] for name in measured.metrics} == measured.metrics


def test_what_was_published_stands_beside_what_was_measured(uri: str) -> None:
    filled, own = board(NAMES, seeds=(0, 1)), seeded(0, 1)
    published = {"r101 > r18": {"AP": 36.5, "AP50": 50.0}, "r18": {"AP": 35.8}, "r101 > r34": {"AP75": 40.0}}
    for each in filled.rows.values():
        each.metrics = {name: value for name, value in each.history[-1].items() if name.startswith("val/")}
    track(uri, filled, own, text=TEXT, expected=published, source="https://me:secret@example.org/paper")
    made = report(uri, filled.name)
    found = expectations.compared(published, own, filled, own.seeds)
    before = said(filled, own, expected=found, source="https://example.org/paper")
    assert plain(made, "cost") == plain(before, "cost")
    assert [row["measured"] is None for row in made["expected"]] == [False, False, False, True]


KNOBS = {
    "LD.weight": [0.1, 0.5],
    "LD.temperature": {"uniform": [1, 10]},
    "sampler": "random",
    "samples": 3,
    "stop": "asha",
}


def swept_board() -> tuple[Board, Lattice]:
    """Every edge with three settings, of which one is given up."""
    own, filled = lattice(NAMES), Board("swept")
    settings = [(("LD.temperature", f"{t}"), ("LD.weight", f"{w}")) for t, w in ((2.5, 0.1), (5.0, 0.5), (9.0, 0.1))]
    paths = [Path(("r101",)), Path(("r18",))]
    for one in settings:
        paths += [Path(("r101", "r34"), settings=(one,)), Path(("r101", "r18"), settings=(one,))]
        paths += [Path(("r101", "r34", "r18"), settings=(settings[0], one))]
    for path in paths:
        stage = own.stage(path, 0)
        filled.rows[stage.key] = each = Row(stage, path, 0, own.role(path))
        train(each, NAMES, epochs=3 if settings[2] == path.setting else None)
        if each.state == "running":
            each.state, each.reason, each.started = "pruned", "given up after 3 of 12 epochs", 1.0
    return filled, own


def test_a_sweep_has_its_settings_its_winners_and_what_mattered(uri: str) -> None:
    (filled, own), knobs = swept_board(), sweep(KNOBS)
    track(uri, filled, own, text=TEXT, sweep=knobs)
    made = report(uri, filled.name)
    found = rungs(filled, stop=knobs.stop, seeds=own.seeds, metric="AP", students=["r18"])
    before = said(filled, own, sweeps=swept(filled, knobs, own.seeds, "AP"), rungs=found)
    assert plain(made, "cost") == plain(before, "cost")
    assert (
        len(made["sweeps"]) == 3
        and len(found) == 3
        and sum(p["won"] for edge in made["sweeps"] for p in edge["points"]) == 3
    )


def test_a_stage_that_two_names_want_is_there_under_both(uri: str) -> None:
    """As in self-distillation, where two names stand for one model; the second comes when the first is written."""
    filled, own = board(NAMES), lattice(NAMES)
    tracking = track(uri, filled, own, close=False)
    both = of(filled, "r18")
    both.others.append(Path(("other",)))
    settle(tracking, both)
    tracking.close("FINISHED")
    (row,) = (row for row in remember(uri, filled.name).rows if row.key == both.key)
    assert row.paths == [Path(("r18",)), Path(("other",))]


def test_stages_of_before_a_change_of_the_study_are_left_out_and_counted(uri: str) -> None:
    filled = board(NAMES)
    track(uri, filled, lattice(NAMES))
    shorter = board(NAMES, epochs=6)
    track(uri, shorter, lattice(NAMES, epochs=6))
    found = remember(uri, filled.name)
    assert {row.key for row in found.rows} == set(shorter.rows)
    assert found.cautions == [
        f"5 stages are left out, which the study of {filled.name} does not want as it was run last."
    ]


def test_a_stage_that_another_version_gave_another_key_is_shown_and_said(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = board(NAMES)
    with monkeypatch.context() as before:
        before.setattr("trainers.spec.SEMANTICS", 1)
        old = board(NAMES)
        track(uri, old, lattice(NAMES))
    assert not set(old.rows) & set(filled.rows)
    found = remember(uri, old.name)
    assert {row.key for row in found.rows} == set(filled.rows)
    assert found.cautions == ["5 stages were trained by another version, for which this one has other keys."]
    ranking = report(uri, old.name)["stages"]
    assert [stage["score"] for stage in ranking] == [row.score for row in old.rows.values()]


def test_a_stage_that_this_version_has_no_words_for_is_left_out_with_all_that_it_taught(uri: str) -> None:
    filled = board(NAMES)
    tracking = track(uri, filled, lattice(NAMES), close=False)
    odd = tracking.logged[of(filled, "r101", "r34").key]
    tracking.client.set_tag(odd.run, "key", "0" * 16)
    tracking.client.set_tag(odd.run, notes.SPEC, '{"model": "of the future"}')
    tracking.close("FINISHED")
    found = remember(uri, filled.name)
    assert "1 stage is left out: another version trained what this one has no words for." in found.cautions
    assert len(found.rows) == 4


# What is refused


def test_an_unknown_experiment_is_refused_with_those_that_are_there(uri: str) -> None:
    begin(uri).close("FINISHED")
    with pytest.raises(Invalid, match="demos is not one of Default, demo; did you mean demo"):
        remembered.read(uri, ["demos"])


def test_an_experiment_without_a_finished_stage_is_refused(uri: str) -> None:
    tracking = begin(uri)
    settle(tracking, row(state="running", done=1))
    tracking.close("FINISHED")
    with pytest.raises(Invalid, match="no stage of the MLflow experiment demo is trained yet"):
        remembered.read(uri, ["demo"])


def without_notes(uri: str, name: str) -> None:
    """As an earlier version left an experiment."""
    client = connect(uri)
    for run in client.search_runs([client.get_experiment_by_name(name).experiment_id]):
        for tag in (notes.DESCRIPTION, notes.TEXT, notes.SPEC, notes.PATHS, notes.PLACE, notes.FIGURES, notes.VERSION):
            for key in (key for key in run.data.tags if key == tag or key.startswith(f"{tag}.")):
                client.delete_tag(run.info.run_id, key)


def test_what_an_earlier_version_logged_needs_one_more_run_which_writes_no_epoch_again(uri: str) -> None:
    filled, own = board(NAMES), lattice(NAMES)
    track(uri, filled, own, text=TEXT)
    before = report(uri, filled.name)
    without_notes(uri, filled.name)
    with pytest.raises(Invalid, match=f"too little of the experiment {filled.name} for a report.*`tapath run`"):
        remembered.read(uri, [filled.name])
    client = connect(uri)
    experiment = client.get_experiment_by_name(filled.name).experiment_id
    runs = {run.info.run_id: run.data.metrics for run in client.search_runs([experiment])}
    for each in filled.rows.values():
        each.state = "reused"
    track(uri, filled, own, text=TEXT)
    assert {run.info.run_id: run.data.metrics for run in client.search_runs([experiment])} == runs
    assert plain(report(uri, filled.name)) == plain(before)
