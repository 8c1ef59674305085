"""A forecast says what the store taught it, in seconds or in parts; afterwards the report has both sides."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import pytest
import torch

from orchestrator import forecast, plan
from orchestrator.board import Board
from orchestrator.costs import Costs
from orchestrator.lattice import Path
from orchestrator.prepared import Prepared, prepare
from orchestrator.report import render
from orchestrator.study import Study, load
from tests.orchestrator.boards import board, summary
from tests.orchestrator.studies import PATHS, STAGES, changed, without, write
from tests.orchestrator.test_report import Page
from trainers.call import Call
from trainers.spec import Stage
from trainers.store import Store
from trainers.usage import Usage

ON_CPU = Usage(images_per_second=100.0, measuring=0.5, memory=500_000_000, workers=1, threads=1)


def studied(folder: File, *sets: str) -> Study:
    return load(write(folder), (f"resources.store={folder / 'store'}", *sets))


def trained(prepared: Prepared, *paths: tuple[str, ...], seconds: float = 8.0, **facts: Any) -> None:
    """Results with these paths in the store, as if they had been trained in so many seconds."""
    for node in prepared.frontier(lambda stage: None).wanted():
        if node.path.models in paths:
            prepared.store.put(
                node.stage,
                {"weight": torch.zeros(3)},
                score=0.5,
                metrics={"val/AP": 0.5},
                history=[{"epoch": float(epoch), "val/AP": 0.5} for epoch in (1, 2)],
                seconds=seconds,
                **{"device": "cpu", "usage": ON_CPU, **facts},
            )


def test_a_result_whose_model_cannot_be_built_any_more_hinders_no_plan(tmp_path: File) -> None:
    study = studied(tmp_path)
    prepared = prepare(study)
    trained(prepared, *STAGES)
    stage = prepared.lattice.stage(Path(("wee",)), 1)
    usual = {"score": 0.5, "metrics": {"val/AP": 0.5}, "history": [{"epoch": 1.0, "val/AP": 0.5}], "seconds": 8.0}
    for call in (Call(name="Gone"), Call(name="GFL", args={"gone": 1}), Call(name="GFL", args={"channels": -1})):
        gone = stage.model_copy(update={"model": stage.model.model_copy(update={"detector": call})})
        prepared.store.put(gone, {"weight": torch.zeros(3)}, device="cpu", usage=ON_CPU, **usual)
        assert prepared.forward(gone.model, gone.recipe) is None
    assert plan.plan(study)["cost"]


def costs_of(made: dict[str, Any], study: Study) -> dict[tuple[str, ...], dict[str, Any]]:
    paths = {stage["key"]: tuple(stage["path"]) for stage in plan.plan(study)["stages"]}
    return {paths[key]: stage for key, stage in made["stages"].items()}


# Before


def test_where_nothing_was_measured_costs_are_parts_of_the_whole(tmp_path: File) -> None:
    study = studied(tmp_path)
    made = plan.plan(study)["cost"]
    assert made["unit"] == "parts" and made["total"] == 1 and made["bases"] == {"unknown": 9}
    assert sum(stage["cost"] for stage in made["stages"].values()) == pytest.approx(1)
    spans = {on["slots"]: on["makespan"] for on in made["slots"]}
    assert spans[1] == 1 and spans[2] < 1 and sorted(spans) == [1, 2, 4, 8]
    assert all(on["lower_bound"] <= on["makespan"] for on in made["slots"])
    text = plan.text(plan.plan(study))
    assert "cost: unknown" in text and " on 2 slots (at the least " in text
    # The frontier starts the longest chain first, and that has the teacher on top.
    costs = costs_of(made, study)
    assert costs["big",]["cost"] > costs["wee",]["cost"]


def test_a_stage_costs_what_its_own_images_cost_whoever_it_was_taught_by(tmp_path: File) -> None:
    plain = without("mid", "low")
    large = changed(("big: {detector", "big: {recipe: {resize: [128, 128]}, detector"), text=plain)
    studies = [
        load(write(tmp_path / str(i), text), (f"resources.store={tmp_path}",)) for i, text in enumerate((large, plain))
    ]
    ours, theirs = (costs_of(plan.plan(study)["cost"], study) for study in studies)
    # Four times as many pixels for the teacher alone; its student sees the images that it always saw.
    assert ours["big",]["cost"] / ours["big", "wee"]["cost"] == pytest.approx(
        4 * theirs["big",]["cost"] / theirs["big", "wee"]["cost"]
    )
    assert ours["wee",]["cost"] / ours["big", "wee"]["cost"] == pytest.approx(
        theirs["wee",]["cost"] / theirs["big", "wee"]["cost"]
    )


def test_what_was_measured_with_another_seed_is_predicted_in_seconds(tmp_path: File) -> None:
    trained(prepare(studied(tmp_path)), *STAGES, seconds=8.0)
    made = plan.plan(studied(tmp_path, "seeds=[1]"))["cost"]
    assert made["unit"] == "seconds" and made["bases"] == {"measured": 9}
    assert {stage["cost"] for stage in made["stages"].values()} == {8.0}
    # big, then mid and low, then the four students and mid's low; wee alone fills a gap.
    assert made["total"] == 72 and [on["makespan"] for on in made["slots"]] == [72, 40, 32, 32]
    assert [on["lower_bound"] for on in made["slots"]] == [72, 36, 32, 32]
    assert forecast.text(made) == [
        "cost: 1:12 of training predicted (9 as measured)",
        "it takes 1:12 on 1 slot, 40 s on 2 slots (at the least 36 s), 32 s on 4 slots (at the least 32 s)",
    ]


def test_what_is_stored_costs_nothing_more_and_what_was_begun_its_rest(tmp_path: File) -> None:
    study = studied(tmp_path, "resources.stages_at_once=1")
    prepared = prepare(study)
    trained(prepared, ("big",), ("big", "mid"), ("wee",), seconds=8.0)
    whole = plan.plan(study)["cost"]
    assert whole["trainings"] == 6 and whole["bases"] == {"scaled": 6} and [on["slots"] for on in whole["slots"]] == [1]
    begun = next(key for key, stage in whole["stages"].items() if stage["cost"])
    Store(prepared.store.root).save_state(begun, 1, {"half": "way"})
    rest = plan.plan(study)["cost"]
    assert rest["total"] == pytest.approx(whole["total"] - whole["stages"][begun]["cost"] / 2)
    assert rest["stages"] == whole["stages"]
    lines = plan.text(plan.plan(study)).splitlines()
    assert sum("~" in line for line in lines) == 6, "scaled costs are marked"


def test_of_a_study_that_is_done_there_is_nothing_to_say(tmp_path: File) -> None:
    study = studied(tmp_path)
    trained(prepare(study), *STAGES)
    made = plan.plan(study)["cost"]
    assert (made["trainings"], made["total"], made["stages"]) == (0, 0, {}) and forecast.text(made) == []


def test_what_a_forecast_looks_at_is_not_what_a_run_has_found(tmp_path: File) -> None:
    prepared = prepare(studied(tmp_path))
    trained(prepared, *STAGES)
    assert forecast.forecast(prepared)["trainings"] == 0 and prepared.results == {}


def test_a_strategy_that_looks_at_scores_is_played_through(tmp_path: File) -> None:
    trained(prepare(studied(tmp_path)), *STAGES, seconds=8.0)
    made = plan.plan(studied(tmp_path, "seeds=[1]", "search=best_predecessor", "resources.stages_at_once=2"))["cost"]
    assert made["trainings"] == 8 and made["total"] == 64
    (on,) = made["slots"]
    assert on["slots"] == 2 and 32 <= on["lower_bound"] <= on["makespan"] <= 64


@pytest.mark.parametrize(
    ("facts", "sets"),
    [
        ({"device": "NVIDIA H100"}, ()),
        ({"usage": ON_CPU.model_copy(update={"threads": 4})}, ()),
        ({"usage": ON_CPU.model_copy(update={"workers": 2})}, ()),
        ({}, ("resources.gpus=1",)),
        ({}, ("resources.cpus=2",)),
        ({}, ("data.Digits.seed=1",)),
    ],
)
def test_what_was_measured_elsewhere_or_on_other_data_predicts_nothing(
    tmp_path: File, facts: dict[str, Any], sets: tuple[str, ...]
) -> None:
    trained(prepare(studied(tmp_path)), *STAGES, **facts)
    assert prepare(studied(tmp_path, "seeds=[1]", *sets)).costs.measured == ()


def test_what_had_some_of_the_workers_that_it_may_have_counts_as_if_it_had_had_them_all(tmp_path: File) -> None:
    two = ON_CPU.model_copy(update={"workers": 2})
    trained(prepare(studied(tmp_path)), ("big",), seconds=8.0, usage=two)
    for fewest, seconds in ((1, [4.0]), (2, [4.0]), (4, [])):
        sets = ("seeds=[1]", "resources.workers=4", f"resources.min_workers={fewest}")
        assert [one.seconds for one in prepare(studied(tmp_path, *sets)).costs.measured] == seconds


def test_results_of_before_usage_was_noted_count_by_their_device(tmp_path: File) -> None:
    trained(prepare(studied(tmp_path)), ("big",), usage=None)
    assert len(prepare(studied(tmp_path, "seeds=[1]", "resources.cpus=2")).costs.measured) == 1


def test_on_gpus_the_newest_results_say_which(tmp_path: File) -> None:
    gpu = ON_CPU.model_copy(update={"threads": 7})
    trained(prepare(studied(tmp_path)), ("big",), device="NVIDIA H100", usage=gpu)
    (one,) = prepare(studied(tmp_path, "seeds=[1]", "resources.gpus=1")).costs.measured
    assert one.seconds == 8


def test_models_of_other_studies_on_the_same_data_are_scaled_from(tmp_path: File) -> None:
    trained(prepare(studied(tmp_path)), ("big",), seconds=8.0)
    text = write(tmp_path).read_text().replace("width: 16", "width: 20")
    other = load(write(tmp_path, text, "other.yaml"), (f"resources.store={tmp_path / 'store'}",))
    made = plan.plan(other)["cost"]
    assert made["unit"] == "seconds" and made["bases"] == {"scaled": 9}
    assert costs_of(made, other)["big",]["cost"] > 8


def test_without_data_costs_are_only_compared(tmp_path: File) -> None:
    trained(prepare(studied(tmp_path)), *STAGES)
    assert plan.plan(studied(tmp_path, "seeds=[1]"), data=False)["cost"]["unit"] == "parts"


# Afterwards


def fixed(seconds: float) -> Costs:
    """Predicts the same of every stage of the boards."""

    class Fixed(Costs):
        def predict(self, stage: Stage) -> Any:
            return super().predict(stage)._replace(seconds=seconds, basis="scaled")

    return Fixed(lambda stage: 1.0)


MADE = {
    "unit": "seconds",
    "total": 90.0,
    "trainings": 9,
    "slots": [{"slots": 2, "makespan": 50.0, "lower_bound": 45.0}],
}


def finished() -> Board:
    filled = board()
    for row in filled.rows.values():
        row.device, row.usage = "cpu", {"peak_memory_bytes": 5e8, "images_per_second": 120.0}
    return filled


def test_the_report_has_predicted_and_taken_of_each_stage_in_all_and_the_makespan() -> None:
    filled = finished()
    cost = forecast.compared(filled, costs=fixed(10.0), made=MADE, makespan=60.0)
    total = sum(row.seconds for row in filled.rows.values())
    assert cost["run"]["predicted"] == {
        "seconds": 90.0, "trainings": 9, "slots": 2, "makespan": 50.0, "lower_bound": 45.0,
    }  # fmt: skip
    assert cost["run"]["took"] == {"seconds": total, "trainings": 9, "given_up": 0, "makespan": 60.0}
    assert cost["ratio"] == pytest.approx(total / 90)
    assert [one["seconds"] for one in cost["stages"]] == [row.seconds for row in filled.rows.values()]
    assert {(one["predicted"], one["basis"], one["peak_memory_bytes"]) for one in cost["stages"]} == {
        (10.0, "scaled", 5e8)
    }
    json.dumps(cost, allow_nan=False)


def test_what_this_run_did_not_train_keeps_what_was_predicted_before_it_was() -> None:
    filled = finished()
    before = forecast.compared(filled, costs=fixed(10.0), made=MADE, makespan=60.0)
    for row in filled.rows.values():
        row.state = "reused"
    nothing = {"unit": "seconds", "total": 0.0, "trainings": 0, "slots": [{"slots": 2}]}
    assert forecast.compared(filled, costs=fixed(77.0), made=nothing, makespan=0.1, earlier=before) == before
    assert forecast.compared(filled, earlier=before) == before
    fresh = forecast.compared(filled, costs=fixed(77.0), made=nothing, makespan=0.1)
    assert fresh["run"] is None and fresh["ratio"] is None and {one["predicted"] for one in fresh["stages"]} == {None}


def test_an_earlier_report_that_is_missing_older_or_torn_says_nothing(tmp_path: File) -> None:
    assert forecast.earlier(tmp_path) is None
    for content in ("{", "{}", '{"cost": null}'):
        (tmp_path / "report.json").write_text(content)
        assert forecast.earlier(tmp_path) is None


def page(cost: dict[str, Any] | None) -> Page:
    return Page(render(summary(finished()) | {"cost": cost}))


def test_the_page_has_a_table_of_costs() -> None:
    shown = page(forecast.compared(finished(), costs=fixed(10.0), made=MADE, makespan=60.0))
    heads = next(i for i, row in enumerate(shown.rows) if "predicted" in row)
    assert shown.rows[heads] == [
        "stage", "predicted", "took", "times", "of it measuring", "images/s", "peak memory",
    ]  # fmt: skip
    assert shown.rows[heads + 1] == ["r101", "~10 s", "4:00", "24.00", "", "120", "500 MB"]
    said = " ".join(shown.text["p"])
    assert "9 trainings lay ahead" in said and "50 s to pass with 2 at once (at the least 45 s)" in said
    assert "9 were trained to the end" in said and "1:00 passed" in said
    given_up = finished()
    (last := [*given_up.rows.values()][-1]).state, last.started = "pruned", 1.0
    shown = page(forecast.compared(given_up, costs=fixed(10.0), made=MADE, makespan=60.0))
    assert "9 were trained, 1 until given up" in " ".join(shown.text["p"])


def test_a_page_without_predictions_says_so_and_one_without_costs_has_no_table() -> None:
    bare = page(forecast.compared(finished()))
    assert not any("predicted" in row for row in bare.rows) and any("images/s" in row for row in bare.rows)
    assert any("Nothing was predicted" in text for text in bare.text["p"])
    assert not any("images/s" in row for row in page(None).rows)


@pytest.mark.ray
def test_a_run_says_what_it_will_cost_and_reports_what_it_did(finished: File, tmp_path: File) -> None:
    import shutil

    from tests.orchestrator import studies

    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    first = studies.report(tmp_path)["cost"]
    assert first["run"] is None and all(one["predicted"] is None for one in first["stages"])
    assert all(one["measuring_seconds"] < one["seconds"] for one in first["stages"])
    ran = studies.tapath(tmp_path, "run", "tiny.yaml", "--set", "seeds=[0, 1]")
    assert ran.code == 0, ran.err
    assert " of training predicted (9 as measured)" in ran.err and "it takes " in ran.err
    cost = studies.report(tmp_path)["cost"]
    assert cost["run"]["predicted"]["trainings"] == cost["run"]["took"]["trainings"] == 9
    assert cost["run"]["took"]["makespan"] > 0 and cost["ratio"] > 0
    assert {(one["seed"], one["basis"]) for one in cost["stages"]} == {(0, "unknown"), (1, "measured")}
    assert len(cost["stages"]) == 2 * len(STAGES) and len(PATHS) == 4
    again = studies.tapath(tmp_path, "report", "tiny.yaml", "--set", "seeds=[0, 1]")
    assert again.code == 0 and studies.report(tmp_path)["cost"] == cost
