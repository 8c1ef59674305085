"""`plan` and `status` count what is wanted, stored and begun, and train nothing."""

from __future__ import annotations

import time
from pathlib import Path as File
from typing import Any

import pytest

from orchestrator import plan as planning
from orchestrator.prepared import prepare
from orchestrator.study import Study, load
from tests.orchestrator.stored import stage_of, store
from tests.orchestrator.studies import PATHS, STAGES, changed, without, write
from tests.trainers.kept import weights_file
from trainers.call import Invalid
from trainers.store import Store


@pytest.fixture
def study(tmp_path: File) -> Study:
    return load(write(tmp_path), (f"resources.store={tmp_path / 'store'}",))


def marks(made: dict[str, Any], field: str) -> dict[tuple[str, ...], Any]:
    return {tuple(stage["path"]): stage[field] for stage in made["stages"]}


def test_four_models_need_nine_trainings_where_the_naive_way_needs_thirteen(study: Study) -> None:
    made = planning.plan(study)
    assert made["paths"] == len(PATHS)
    assert set(marks(made, "key")) == STAGES
    # Each path on its own: 2 + 3 + 3 + 4 trainings; and the student alone.
    assert made["trainings"] == {"naive": 13, "needed": 9, "exact": True, "stored": 0, "missing": 9}


def test_a_result_is_found_and_ranked_by_whichever_figure_the_study_names(study: Study, tmp_path: File) -> None:
    def judged(metric: str) -> Study:
        text = changed(("{Digits: {classes: 3,", f"{{Digits: {{metric: {metric}, classes: 3,"))
        return load(write(tmp_path, text), (f"resources.store={tmp_path / 'store'}",))

    store(judged("VocAP"), ("big",), score=0.25, AP50=0.75)
    for metric, score in (("VocAP", 0.25), ("{VocAP: {score: AP50}}", 0.75)):
        made = planning.status(judged(metric))
        assert marks(made, "state")["big",] == "done" and marks(made, "score")["big",] == score
        assert prepare(judged(metric)).stored(stage_of(judged(metric), "big")) == score
    assert planning.plan(study)["trainings"]["stored"] == 0  # by COCO's AP it is another stage
    assert planning.plan(judged("{VocAP: {points: area}}"))["trainings"]["stored"] == 0
    with pytest.raises(Invalid, match="has no AP60, only AP, AP50; remove its folder"):
        planning.status(judged("{VocAP: {score: AP60}}"))
    with pytest.raises(Invalid, match=r"tiny.yaml:2: data.Digits.metric.CocoAP: .* nothing that APl could be measured"):
        prepare(judged("{CocoAP: {score: APl}}"))


def test_every_seed_is_trained_for_itself(tmp_path: File) -> None:
    made = planning.plan(load(write(tmp_path), ("seeds=[0, 1, 2]", f"resources.store={tmp_path / 'store'}")))
    assert (made["trainings"]["naive"], made["trainings"]["needed"]) == (39, 27)
    assert len({stage["key"] for stage in made["stages"]}) == 27


def test_a_plan_names_each_stages_teacher_and_role(study: Study) -> None:
    made = planning.plan(study)
    keys, teachers, roles = (marks(made, field) for field in ("key", "teacher", "role"))
    assert {path: teachers[path] for path in STAGES} == {path: keys.get(path[:-1]) for path in STAGES}
    assert roles["big",] == "teacher" and roles["wee",] == "alone"
    assert roles["big", "mid"] == roles["big", "low"] == roles["big", "mid", "low"] == "assistant"
    assert {roles[path] for path in PATHS} == {"student"}


def test_a_plan_makes_nothing(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = load(write(tmp_path))
    planning.plan(made)
    planning.status(made)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


FAR = """\
data: {{COCO: {{root: /nowhere/coco}}}}
models:
  big: {{detector: GFL, backbone: {{ResNet: {{depth: 34}}}}, weights: {big}}}
  low: {{detector: GFL, backbone: {{ResNet: {{depth: 18}}}}, weights: {low}}}
recipe: {{epochs: 12, resize: [800, 1333]}}
distill: [LD]
"""
BIG = "{file: /nowhere/gfl.pth, part: detector}"
LOW = '{file: "https://nowhere.invalid/resnet18-f37072fd.pth", part: backbone}'


def test_without_data_nothing_is_read_and_the_keys_are_provisional(tmp_path: File) -> None:
    file = write(tmp_path, FAR.format(big=BIG, low=LOW))
    with pytest.raises(Invalid, match="there is no folder /nowhere/coco"):
        planning.plan(load(file))
    made = planning.plan(load(file), data=False)
    assert made["provisional"] and made["data"] is None and len(made["classes"]) == 80
    assert {path: stage for path, stage in marks(made, "epochs").items()} == {
        ("big",): 0, ("big", "low"): 12, ("low",): 12,
    }  # fmt: skip
    assert all(model["flops"] > 1e11 for model in made["models"]), "of an image of 800 x 1333"
    text = planning.text(made)
    assert "provisional key" in text and "planned without the data" in text and "in the store" not in text


def test_without_data_what_the_store_has_is_not_looked_up(study: Study) -> None:
    store(study, ("big",))
    assert marks(planning.plan(study), "stored")["big",]
    made = planning.plan(study, data=False)
    assert not any(marks(made, "stored").values()) and made["trainings"]["missing"] == 9
    assert not planning.plan(study)["provisional"]


def test_without_data_a_model_or_a_loss_that_does_not_fit_is_refused_all_the_same(tmp_path: File) -> None:
    other = changed(("GFL: {channels: 8, convs: 1, extra: 0, reg_max: 8}", "GFL: {channels: 8, extra: 0, reg_max: 4}"))
    with pytest.raises(Invalid, match="cannot teach wee"):
        planning.plan(load(write(tmp_path, other)), data=False)


def test_unread_weights_must_say_which_part_they_are(tmp_path: File) -> None:
    file = write(tmp_path, FAR.format(big="/nowhere/gfl.pth", low=LOW))
    with pytest.raises(Invalid, match=r"tiny.yaml:3: models.big.weights: unread, /nowhere/gfl.pth may be any part"):
        planning.plan(load(file), data=False)


def test_a_plan_marks_what_is_stored(study: Study) -> None:
    store(study, ("big",), ("big", "mid"), ("wee",))
    made = planning.plan(study)
    assert {path for path, stored in marks(made, "stored").items() if stored} == {("big",), ("big", "mid"), ("wee",)}
    assert (made["trainings"]["stored"], made["trainings"]["missing"]) == (3, 6)
    text = planning.text(made)
    assert "9 trainings (13 if every path were trained on its own), 3 in the store, 6 to do" in text
    assert sum(line.endswith("stored") for line in text.splitlines()) == 3


def test_a_result_whose_weights_are_gone_is_not_stored(study: Study) -> None:
    store(study, ("big",))
    weights_file(Store(study.resources.store), stage_of(study, "big").key).unlink()
    assert not any(marks(planning.plan(study), "stored").values())


def test_a_plan_of_the_same_models_under_other_names_has_the_same_keys(study: Study, tmp_path: File) -> None:
    renamed = changed(("  big:", "  teacher:"), ("  wee:", "  pupil:"), ("name: tiny", "name: other"))
    other = load(write(tmp_path / "other", renamed))
    assert [s["key"] for s in planning.plan(other)["stages"]] == [s["key"] for s in planning.plan(study)["stages"]]


def test_machines_are_no_part_of_a_key_and_the_recipe_is(study: Study, tmp_path: File) -> None:
    keys = marks(planning.plan(study), "key")
    file, own = write(tmp_path), f"resources.store={tmp_path / 'store'}"
    for same in ("resources.workers=2", "resources.cpus=3", "resources.stages_at_once=1", "name=other"):
        assert marks(planning.plan(load(file, (own, same))), "key") == keys, same
    for another in ("recipe.epochs=3", "seeds=[1]", "data.Digits.seed=1"):
        assert not set(marks(planning.plan(load(file, (own, another))), "key").values()) & set(keys.values()), another
    # What a distillation loss is given changes those that are distilled and no others.
    other = marks(planning.plan(load(write(tmp_path / "t", changed(("temperature: 10", "temperature: 5"))))), "key")
    assert {path for path in STAGES if other[path] == keys[path]} == {("big",), ("wee",)}


def test_a_strategy_that_looks_at_scores_is_counted_as_if_all_models_scored_alike(tmp_path: File) -> None:
    made = planning.plan(load(write(tmp_path), ("search=best_predecessor", f"resources.store={tmp_path / 's'}")))
    # Dynamic programming: an edge is one training, whatever the scores: 1 + 1 + 2 + 3, and the student alone.
    assert made["trainings"]["needed"] == 8 and not made["trainings"]["exact"]
    assert planning.text(made).splitlines()[-1].startswith("about 8 trainings (13 ")


ALL = "controls=[alone, direct, alone_same_compute]"


def test_a_plan_says_what_the_controls_cost(tmp_path: File) -> None:
    made = planning.plan(load(write(tmp_path), (ALL, "seeds=[0, 1]", f"resources.store={tmp_path / 's'}")))
    # The student alone and the student alone for longer, with two seeds; direct distillation is among the paths.
    assert made["trainings"] == {"naive": 28, "needed": 20, "exact": True, "stored": 0, "missing": 20}
    own, (low, high) = made["controls"], made["controls"]["share"]
    assert (own["trainings"], own["later"], own["names"][1]) == (4, 2, "direct")
    assert 0.1 < low < high < 0.6
    said = next(line for line in planning.text(made).splitlines() if line.startswith("controls"))
    assert "alone, direct, alone_same_compute: 4 trainings for them alone" in said and f"{100 * high:.0f}%" in said


def test_a_study_without_controls_trains_the_paths_alone(tmp_path: File) -> None:
    made = planning.plan(load(write(tmp_path), ("controls=[]", f"resources.store={tmp_path / 's'}")))
    assert set(marks(made, "key")) == STAGES - {("wee",)}
    assert (made["trainings"]["naive"], made["controls"]["trainings"]) == (12, 0)
    assert not any(line.startswith("controls ") for line in planning.text(made).splitlines())


def test_the_longer_training_is_planned_once_every_path_is_trained(tmp_path: File) -> None:
    study = load(write(tmp_path), (ALL, f"resources.store={tmp_path / 'store'}"))
    store(study, *sorted(STAGES, key=len))
    made = planning.plan(study)
    (long,) = (stage for stage in made["stages"] if stage["budget"] > 1)
    assert long["path"] == ["wee"] and long["epochs"] > 2 and long["role"] == "alone" and not long["stored"]
    assert made["trainings"] == {"naive": 14, "needed": 10, "exact": True, "stored": 9, "missing": 1}
    assert made["controls"]["later"] == 0
    counts = planning.status(study)
    assert counts["counts"] == {"done": 9, "begun": 0, "missing": 1}
    assert f"wee @{long['budget']:g} (seed 0)" in planning.status_text(counts)


def test_status_tells_done_from_begun_and_missing(study: Study) -> None:
    store(study, ("big",), score=0.25)
    half = stage_of(study, "big", "mid")
    Store(study.resources.store).save_state(half.key, 1, {"epoch": 1})
    made = planning.status(study)
    assert made["counts"] == {"done": 1, "begun": 1, "missing": 7}
    states, epochs, scores = (marks(made, field) for field in ("state", "epoch", "score"))
    assert (states["big",], epochs["big",], scores["big",]) == ("done", 2, 0.25)
    assert (states["big", "mid"], epochs["big", "mid"], scores["big", "mid"]) == ("begun", 1, None)
    assert states["wee",] == "missing"
    text = planning.status_text(made)
    assert "0.2500" in text and "1/2" in text


def test_a_model_on_no_path_is_named_and_not_counted(tmp_path: File) -> None:
    text = changed(("distill:", "edges: [[big, low], [low, wee], [big, mid]]\ndistill:"))
    made = planning.plan(load(write(tmp_path, text)))
    assert made["isolated"] == ["mid"]
    assert set(marks(made, "key")) == {("big",), ("big", "low"), ("big", "low", "wee"), ("wee",)}
    assert "mid lies on no path" in planning.text(made)


def test_sizes_are_those_of_the_built_models(study: Study) -> None:
    from trainers import build

    for model in planning.plan(study)["models"]:
        built = build.network(study.models[model["name"]].model, 3)
        assert model["parameters"] == sum(p.numel() for p in built.parameters())
        assert model["flops"] > 0


def test_twelve_models_are_2048_stages_and_the_student(tmp_path: File) -> None:
    detector = "detector: {GFL: {channels: 8, extra: 0, reg_max: 8}}"
    models = "".join(f"  m{i}: {{{detector}, backbone: {{TinyResNet: {{width: {52 - 4 * i}}}}}}}\n" for i in range(12))
    text = changed(("models:\n", f"models:\n{models}"), text=without("big", "mid", "low", "wee"))
    since = time.perf_counter()
    made = planning.plan(load(write(tmp_path, text), (f"resources.store={tmp_path / 'store'}",)))
    print(f"a plan of 12 models took {time.perf_counter() - since:.1f} s")
    assert (made["paths"], made["trainings"]["needed"]) == (1024, 2049)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            ["search={budget: {of: {budget: {stages: 9}}, stages: 8}}", "sweep={LD.weight: [1, 2]}"],
            "let budget come first",
        ),
        (["search={budget: {stages: 1.5}}", "sweep={LD.weight: [1, 2]}"], "path, big > wee, which needs 2"),
        (["search={budget: {of: racing, stages: 9}}", "sweep={LD.weight: [1, 2]}"], "list several"),
        (["search={budget: {gpu_hours: 2}}"], "GPU hours a stage takes is not known"),
    ],
)
def test_a_search_that_cannot_be_had_is_refused_before_anything_is_planned(
    tmp_path: File, sets: Any, said: str
) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        planning.plan(load(write(tmp_path), (*sets, f"resources.store={tmp_path / 'store'}")))
    assert "search" in str(caught.value)


@pytest.mark.parametrize(
    ("search", "most"), [("probe", 9), ("{promising: {at: 0.5}}", 9), ("{budget: {of: racing, stages: 12}}", 14)]
)
def test_what_a_search_that_trains_in_part_would_train_is_counted(tmp_path: File, search: str, most: int) -> None:
    sets = (f"search={search}", f"resources.store={tmp_path / 'store'}")
    made = planning.plan(load(write(tmp_path), (*sets, "seeds=[0, 1]") if "racing" in search else sets))
    assert 4 <= made["trainings"]["needed"] <= most


@pytest.mark.parametrize(
    ("search", "trainings"),
    [
        # The student alone, the teacher, and on each of the seven edges of four models two settings.
        ("exhaustive", 2 + 14),
        ("{budget: {stages: 100}}", 2 + 14),
        ("{budget: {stages: 6}}", 1 + 6),
        ("{budget: {stages: 2}}", 1 + 2),
        # With the first of two seeds two settings of each edge, and the better one of each with the second.
        ("racing", 2 * 2 + 7 * 3),
        # Two probes, of which one is kept; the direct path, and the two assistants.
        ("probe", 2 + 2 * 5),
        # All that pauses goes on where all score alike.
        ("promising", 2 + 14),
        # The edges keep their settings.
        ("successive_halving", 2 + 14 + 3),
    ],
)
def test_what_a_search_would_sweep_is_counted(tmp_path: File, search: str, trainings: int) -> None:
    sets = (f"search={search}", "sweep={LD.weight: [0.1, 0.5]}", "controls=[alone]")
    sets += ("seeds=[0, 1]",) if search == "racing" else ()
    made = planning.plan(load(write(tmp_path), (*sets, f"resources.store={tmp_path / 'store'}")))
    assert made["trainings"]["needed"] == trainings and made["trainings"]["naive"] is None
    assert made["cost"]["trainings"] == trainings and "on its own" not in planning.text(made)


def test_students_that_would_share_a_name_in_the_registry_are_refused(tmp_path: File) -> None:
    alike = changed(("  low:", "  s.1:"), ("  wee:", "  s-1:"), ("controls:", "students: [s.1, s-1]\ncontrols:"))
    with pytest.raises(Invalid, match=r"s\.1 and s-1 would both be s-1 in MLflow's registry; rename one") as caught:
        prepare(load(write(tmp_path, alike)))
    assert "tiny.yaml:10: students.1: " in str(caught.value)
