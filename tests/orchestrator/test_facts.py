"""Everything that a stage says arrives as flat text."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.facts import entity, metric, parameters, parts, setting
from trainers.call import Call
from trainers.spec import Data, Model, Recipe, Stage


def stage(seed: int = 0, distill: tuple[Call, ...] = (), teacher: Stage | None = None, lr: float = 0.01) -> Stage:
    return Stage(
        model=Model(
            detector=Call(name="GFL", args={"channels": 32}),
            backbone=Call(name="TinyResNet", args={"widths": [8, 16], "note": None}),
        ),
        data=Data(fingerprint="abc", classes=("cat", "dog")),
        recipe=Recipe(lr=lr, optimizer=Call(name="SGD", args={"momentum": 0.9})),
        distill=distill,
        seed=seed,
        teacher=teacher,
    )


def test_parameters_are_dotted_and_calls_name_themselves() -> None:
    found = parameters(stage())
    assert found["model.detector"] == "GFL" and found["model.detector.GFL.channels"] == "32"
    assert found["model.backbone.TinyResNet.widths"] == "[8, 16]"
    assert found["model.backbone.TinyResNet.note"] == "null"
    assert found["recipe.optimizer"] == "SGD" and found["recipe.optimizer.SGD.momentum"] == "0.9"
    assert found["recipe.lr"] == "0.01" and found["recipe.resize"] == "null" and found["seed"] == "0"
    assert found["data.classes"] == '["cat", "dog"]'
    assert not {"teacher", "distill"} & set(found)


def test_the_teacher_is_there_by_its_key_alone() -> None:
    teacher = stage()
    found = parameters(stage(distill=(Call(name="KD", args={"weight": 1.0}),), teacher=teacher))
    assert found["teacher"] == teacher.key and found["distill"] == "KD" and found["distill.KD.weight"] == "1.0"
    assert not [name for name in found if name.startswith("teacher.")]


def test_a_loss_that_is_there_twice_is_told_apart_by_its_number() -> None:
    twice = (Call(name="LD", args={"temperature": 1}), Call(name="LD", args={"temperature": 10}))
    found = parameters(stage(distill=twice, teacher=stage()))
    assert found["distill.0.LD.temperature"] == "1" and found["distill.1.LD.temperature"] == "10"


def test_a_setting_is_the_same_for_all_seeds_and_for_nothing_else() -> None:
    students = [stage(seed, teacher=stage(seed)) for seed in (0, 1)]
    assert setting(students[0]) == setting(students[1])
    others = [stage(), stage(lr=0.02), stage(teacher=stage(lr=0.02)), stage(teacher=stage(teacher=stage()))]
    assert len({setting(other) for other in (students[0], *others)}) == 5


@given(
    sizes=st.lists(st.integers(1, 12), max_size=20),
    limit=st.integers(1, 15),
)
def test_parts_keep_the_order_and_cut_only_between_epochs(sizes: list[int], limit: int) -> None:
    epochs = [{str(i): float(n) for i in range(size)} for n, size in enumerate(sizes)]
    found = list(parts(epochs, limit))
    assert [epoch for part in found for epoch in part] == epochs
    assert all(len(part) == 1 or sum(map(len, part)) <= limit for part in found)
    for part, following in pairwise(found):
        assert sum(map(len, part)) + len(following[0]) > limit  # no more requests than need be


def test_names_have_only_what_mlflow_allows() -> None:
    assert metric("val/AP/fire hydrant") == "val/AP/fire hydrant" and metric("val/AP:50%") == "val/AP_50_"
    assert entity("r18.v2/x:y") == "r18-v2-x-y"
