"""The stage that trains the last model of a path."""

from __future__ import annotations

from orchestrator.lattice import Lattice, Path
from tests.orchestrator.test_lattice import DATA, FOUR, LD, entry, lattice, published
from trainers.spec import Recipe


def test_a_stage_holds_its_teachers_down_from_the_root_with_one_seed():
    stage = lattice(FOUR).stage(Path(("r101", "r34", "r18")), 3)
    assert [s.model.backbone.name for s in stage.lineage] == ["r101", "r34", "r18"]
    assert [s.seed for s in stage.lineage] == [3, 3, 3]
    assert [s.distill for s in stage.lineage] == [(), (LD,), (LD,)]


def test_the_student_alone_has_no_teacher_and_no_losses():
    stage = lattice(FOUR).stage(Path(("r18",)), 0)
    assert stage.teacher is None and stage.distill == ()


def test_each_model_keeps_its_own_recipe():
    uneven = Lattice({"big": entry("big", 24), "small": entry("small", 8)}, DATA)
    epochs = [s.recipe.epochs for s in uneven.stage(Path(("big", "small")), 0).lineage]
    assert epochs == [24, 8]


def test_a_budget_shortens_every_model_but_the_root_teacher():
    path = Path(("r101", "r34", "r18"), 0.25)
    assert [s.recipe.epochs for s in lattice(FOUR).stage(path, 0).lineage] == [12, 3, 3]
    assert lattice(FOUR).stage(Path(("r18",), 0.25), 0).recipe.epochs == 3
    assert lattice(FOUR).stage(Path(("r101",), 0.25), 0).recipe.epochs == 12
    assert lattice(FOUR).stage(Path(("r101", "r18"), 0.001), 0).recipe.epochs == 1


def test_the_root_is_one_stage_whatever_the_budget_below_it():
    four = lattice(FOUR)
    brief, full = Path(("r101", "r18"), 0.25), Path(("r101", "r18"))
    assert four.stage(brief, 0).key != four.stage(full, 0).key
    assert four.stage(brief, 0).teacher.key == four.stage(full, 0).teacher.key


def test_a_stage_is_built_once():
    four = lattice(FOUR)
    path = Path(("r101", "r50", "r18"))
    assert four.stage(path, 0) is four.stage(Path(path.models), 0)
    assert four.stage(path, 0).teacher is four.stage(path.teacher, 0)
    assert four.stage(path, 0) is not four.stage(path, 1)


def test_equal_models_under_two_names_share_a_stage_so_that_a_model_can_teach_itself():
    twin = {"r101": entry("r101"), "a": entry("r18"), "b": entry("r18"), "r18": entry("r18")}
    twins = Lattice(twin, DATA, [LD])
    assert twins.stage(Path(("r101", "a", "r18")), 0).key == twins.stage(Path(("r101", "b", "r18")), 0).key
    assert twins.stage(Path(("r101", "a")), 0).key == twins.stage(Path(("r101", "r18")), 0).key
    assert twins.stage(Path(("r101", "a", "b")), 0).key != twins.stage(Path(("r101", "a")), 0).key


def test_a_published_detector_that_nobody_teaches_is_only_measured_and_how_it_would_be_trained_is_no_part_of_it():
    lattice = published()
    for name in ("r101", "r18"):
        stage = lattice.stage(Path((name,)), 0)
        assert stage.published
        assert stage.recipe == Recipe(batch=8, resize=(800, 1333))


def test_a_published_detector_that_is_taught_is_trained_from_its_weights():
    stage = published().stage(Path(("r101", "r18")), 0)
    assert not stage.published and stage.teacher.published
    assert stage.model.weights is not None and stage.recipe.epochs == 3


def test_a_published_backbone_is_where_a_training_starts():
    stage = published("backbone").stage(Path(("r101",)), 0)
    assert not stage.published and stage.recipe.epochs == 24


def test_the_last_model_of_a_path_has_a_role():
    roles = {
        ("r101",): "teacher",
        ("r18",): "alone",
        ("r101", "r34"): "assistant",
        ("r101", "r18"): "student",
    }
    assert {models: lattice(FOUR).role(Path(models)) for models in roles} == roles
