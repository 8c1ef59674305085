"""Numbers of workers that change: what a run notes of them, what is refused, and what a plan says."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from orchestrator import plan as planning
from orchestrator.board import Row
from orchestrator.checks import doubts
from orchestrator.elastic import Elastic, told
from orchestrator.lattice import Path
from orchestrator.makespan import Planned, play
from orchestrator.prepared import prepare
from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from orchestrator.study import load
from tests.orchestrator.studies import changed, without, write
from trainers.call import Call, Invalid
from trainers.spec import Data, Model, Recipe, Stage

pytestmark = pytest.mark.usefixtures("in_a_folder")

SPREAD = Placement(workers=4, min_workers=1)
PLACE = "1"  # where it is
STAGE = Stage(
    model=Model(detector=Call(name="GFL"), backbone=Call(name="ResNet")),
    data=Data(fingerprint="", classes=()),
    recipe=Recipe(epochs=12, batch=16),
)


def row(*, epoch: int = 0, seconds: float = 0.0) -> Row:
    history = [{"epoch": float(n + 1)} for n in range(epoch)]
    return Row(STAGE, Path(("big",)), 0, "teacher", state="running", history=history, seconds=seconds)


def room(cpus: int) -> Room:
    made = Room([Node("a", {"CPU": cpus})], {"big": SPREAD})
    assert made.chooser()("big")
    made.take(PLACE, "big", batch=16)
    return made


def asked(where: Room, one: Row, **starting: float) -> list[str]:
    """Whose workers are asked to end once there are two nodes."""
    elastic, found = Elastic(), list[str]()
    post = elastic.named(STAGE.key)
    where.change([*where.nodes.values(), Node("b", {"CPU": 2})])
    where.chooser()
    for _ in range(2):
        elastic.grow(where, {STAGE.key: one}, places={STAGE.key: PLACE}, starting=starting, ask=found.append)
    assert set(found) <= {post}
    return found


def test_workers_are_asked_once_to_make_way_for_more() -> None:
    where = room(2)
    assert len(asked(where, row(epoch=6, seconds=600))) == 1
    assert where.workers(PLACE) == 4


@pytest.mark.parametrize(
    ("one", "starting"),
    [
        (row(epoch=6, seconds=9), False),  # half of what is left would be saved, less than starting anew takes
        (row(epoch=6, seconds=4), False),
        (row(), False),  # nobody knows yet how long an epoch takes
        (row(epoch=6, seconds=600), True),
    ],
)
def test_workers_are_left_alone_where_it_would_not_be_worth_it(one: Row, starting: bool) -> None:
    where = room(2)
    assert asked(where, one, **({STAGE.key: 0.0} if starting else {})) == []
    assert where.workers(PLACE) == 2


def test_setbacks_count_as_long_as_no_epoch_comes_between() -> None:
    elastic, one = Elastic(), row(epoch=1)
    assert [elastic.setback(one) for _ in range(3)] == [1, 2, 3]
    one.history.append({"epoch": 2.0})
    assert [elastic.setback(one) for _ in range(2)] == [1, 2]


def test_the_number_is_told_where_it_does_not_go_without_saying() -> None:
    assert told(row(), 4, SPREAD) == ""
    assert told(row(), 2, SPREAD) == "big (seed 0): 2 of 4 workers"
    assert told(row(epoch=3), 4, SPREAD) == "big (seed 0): 4 of 4 workers, from epoch 4 on"


# Studies

ELASTIC = changed(
    ("big: {detector", "big: {resources: {workers: 8, min_workers: 2}, detector"), text=without("mid", "low")
)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min_workers: 2", "min_workers: 9", "5: models.big.resources.min_workers: a stage of big has 8 worker"),
        ("min_workers: 2", "min_workers: 3", "recipe.batch: a batch of 8 cannot be shared by 3 workers"),
        ("min_workers: 2", "min_workers: 0", "5: models.big.resources.min_workers: "),
        ("seed", "resources: {min_workers: 2}", "9: resources.min_workers: a stage of big has 1 worker"),
    ],
)
def test_fewest_workers_that_contradict_the_rest_are_refused_at_their_key(
    old: str, new: str, said: str, tmp_path: File
) -> None:
    text = without("mid", "low") + new + "\n" if old == "seed" else changed((old, new), text=ELASTIC)
    text = text.replace("  big:", "  # a comment\n  big:") if old != "seed" else text
    with pytest.raises(Invalid) as refusal:
        prepare(load(write(tmp_path, text)))
    assert said in str(refusal.value)


def test_a_model_that_says_how_many_it_has_is_not_held_to_what_others_have_at_the_most(tmp_path: File) -> None:
    study = load(write(tmp_path, ELASTIC), ("resources.min_workers=1", "resources.workers=4"))
    assert [(one.resources.fewest, one.resources.workers) for one in study.models.values()] == [(2, 8), (1, 4)]


def test_a_plan_says_how_many_workers_there_may_be_and_no_key_depends_on_it(tmp_path: File) -> None:
    plain, made = (planning.plan(load(write(tmp_path, text))) for text in (without("mid", "low"), ELASTIC))
    assert [stage["key"] for stage in made["stages"]] == [stage["key"] for stage in plain["stages"]]
    assert made["elastic"] == [{"model": "big", "workers": [2, 8], "steady": True, "doubts": []}]
    assert plain["elastic"] == []
    assert "\nbig: 2 to 8 workers\n" in planning.text(made)
    assert "workers" not in planning.text(plain)


def test_it_warns_of_batch_norms_that_learn_from_what_a_worker_has(tmp_path: File) -> None:
    batch = changed(("{TinyResNet: {width: 16}}", "{TinyResNet: {width: 16, norm: batch}}"), text=ELASTIC)
    for more, steady in ((), False), (("recipe.fixed_norm=true",), True), (("resources.sync_batch_norm=true",), True):
        made = planning.plan(load(write(tmp_path, batch), more))
        assert made["elastic"][0]["steady"] is steady
        assert ("another training with another number" in planning.text(made)) is not steady


def test_it_warns_of_what_each_worker_leaves_out_at_random_for_itself(tmp_path: File) -> None:
    text = changed(*((f"{{TinyResNet: {{width: {n}}}}}", "{Swin: {size: micro}}") for n in (16, 4)), text=ELASTIC)
    for often, steady in (0.2, False), (0.0, True):
        made = planning.plan(load(write(tmp_path, text), (f"models.big.backbone.Swin.drop_path={often}",)))
        assert made["elastic"][0]["steady"] is steady
        assert ("as another seed: write drop_path: 0 into its backbone" in planning.text(made)) is not steady


@pytest.mark.parametrize(
    ("losses", "apart"),
    [
        ("{PKD: {weight: 3}}", ["the statistics of PKD"]),
        ("{PKD: {weight: 0}}", []),
        ("CrossKD, {GI: {relation_weight: 40}}", ["the relations of GI", "the statistics of CrossKD"]),
        ("{CrossKD: {align: false}}, {GI: {relation_weight: 0}}", []),
        ("{GI: {relation_weight: 0, per: batch}}", ["the instances of GI"]),
        ("DeFeat, TADF", []),
    ],
)
def test_it_warns_of_losses_that_look_at_what_a_worker_has(losses: str, apart: list[str], tmp_path: File) -> None:
    old = "distill: [{LD: {weight: 0.25, temperature: 10}}]"
    text = changed((old, f"distill: [{losses}]"), text=without("mid", "low"))
    study = load(write(tmp_path, text), ("models.wee.detector.GFL.channels=16",))
    assert [doubt.partition(" are ")[0] for doubt in doubts(prepare(study), "wee")] == apart


def test_it_warns_of_losses_that_a_sweep_may_choose(tmp_path: File) -> None:
    text = changed(
        ("controls", "sweep: {distill: [[LD], [CWD, GI]], GI.relation_weight: [0, 40]}\ncontrols"),
        text=without("mid", "low"),
    )
    assert any("the relations of GI" in doubt for doubt in doubts(prepare(load(write(tmp_path, text))), "wee"))


@pytest.mark.parametrize("detector", ["FasterRCNN", "MimicDet"])
def test_it_warns_of_what_each_worker_draws_to_learn_from(detector: str, tmp_path: File) -> None:
    models = "".join(
        f"  {name}: {{detector: {{{detector}: {{channels: 16, hidden: 16}}}}, backbone: TinyResNet}}\n" for name in "ab"
    )
    text = f"data: {{Digits: {{classes: 3, train: 32, val: 16}}}}\nmodels:\n{models}distill: [DeFeat, TADF]\n"
    found = doubts(prepare(load(write(tmp_path, text))), "b")
    assert any(f"drawn of {detector}" in doubt for doubt in found)
    for loss in ("DeFeat", "TADF"):
        assert any(f"the regions drawn of {loss}" in doubt for doubt in found) is (detector == "FasterRCNN")


def test_a_schedule_reckons_with_all_workers_where_there_is_room_and_else_with_fewer() -> None:
    for cpus, makespan in ((4, 10.0), (2, 20.0), (3, 20.0), (1, 40.0)):
        where = Room([Node("a", {"CPU": cpus})], {"big": SPREAD})
        made = play(Planned({STAGE.key: STAGE}, lambda stage: 10.0, lambda key: "big"), lambda stage: 10.0, on=where)
        assert (made.makespan, made.total) == (makespan, 10.0)
        assert made.lower_bound == max(10.0, 40 / cpus)


def test_where_the_data_are_copied_is_planned_and_must_be_a_whole_path(tmp_path: File) -> None:
    with pytest.raises(Invalid, match=r"resources.stage_data: write the whole path of a folder"):
        load(write(tmp_path), ("resources.stage_data=scratch",))
    for written in ("true", "/scratch"):
        made = planning.plan(load(write(tmp_path), (f"resources.stage_data={written}",)))
        assert made["stage_data"] is False, "what is drawn is nowhere to be copied from"
