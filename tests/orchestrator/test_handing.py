"""A run hands out what there is room for, and what there is none for beside its like."""

from pathlib import Path as File

import pytest

from orchestrator.prepared import prepare
from orchestrator.resources import Placement
from orchestrator.room import Node, Room
from orchestrator.study import load
from orchestrator.underway import Run
from tests.orchestrator.studies import write


def began(folder: File, *, slots: int, sets: tuple[str, ...] = ()) -> Run:
    """A run on so many slots, of a study of which three models may be trained at once: none has a teacher."""
    made = Run(prepare(load(write(folder), (f"resources.store={folder / 'store'}", "search=exhaustive", *sets))))
    made.refresh()
    made.handing.nodes = lambda: [Node("here", {"CPU": float(slots)})]
    placements = {name: one.resources for name, one in made.prepared.study.models.items()}
    made.handing.room = Room(made.handing.nodes(), placements)
    return made


def handed(run: Run) -> list[list[str]]:
    """All that is handed out now, cohort by cohort."""
    found: list[list[str]] = []
    while stages := run.next():
        found.append([stage.key for stage in stages])
        for stage in stages:
            run.started(stage.key)
    return found


def test_on_one_slot_those_who_share_their_batches_are_handed_out_together(tmp_path: File) -> None:
    run = began(tmp_path, slots=1)
    ready = [stage.key for stage in run.frontier.waiting.values() if stage.teacher is None]
    assert len(ready) > 1
    (cohort,) = handed(run)
    assert sorted(cohort) == sorted(ready)
    assert run.handing.room and list(run.handing.room.taken) == [run.handing.cohorts.group(cohort[0])]


def test_where_there_is_room_for_each_nobody_shares(tmp_path: File) -> None:
    assert {len(cohort) for cohort in handed(began(tmp_path, slots=8))} == {1}


def test_a_study_may_have_it_that_each_trains_alone(tmp_path: File) -> None:
    run = began(tmp_path, slots=1, sets=("resources.cohort=1",))
    assert [len(cohort) for cohort in handed(run)] == [1]


def test_those_who_have_several_workers_share_them(tmp_path: File) -> None:
    run = began(tmp_path, slots=1, sets=("resources.workers=2", "resources.cpus=0.5"))
    (cohort,) = handed(run)
    assert len(cohort) > 1


def test_those_whose_workers_may_change_in_number_have_them_for_themselves(tmp_path: File) -> None:
    run = began(tmp_path, slots=1, sets=("resources.workers=2", "resources.min_workers=1", "resources.cpus=0.5"))
    assert [len(cohort) for cohort in handed(run)] == [1]


def test_a_model_that_runs_on_something_else_does_not_share(tmp_path: File) -> None:
    run = began(tmp_path, slots=1, sets=("models.big.resources.cpus=0.5",))
    big = run.frontier.waiting
    cohorts = handed(run)
    models = [{run.frontier.model(key) for key in cohort} for cohort in cohorts]
    assert big and all(len(names) == 1 or "big" not in names for names in models)


def test_a_model_with_a_limit_of_its_own_joins_nobody(tmp_path: File) -> None:
    run = began(tmp_path, slots=1, sets=("models.wee.resources.stages_at_once=1",))
    (cohort,) = handed(run)
    assert [run.frontier.model(key) for key in cohort] == ["big"]


def test_a_place_is_given_up_by_the_last_who_leaves_it(tmp_path: File) -> None:
    run = began(tmp_path, slots=1)
    ((first, *others),) = handed(run)
    room = run.handing.room
    assert room is not None
    run.failed(first, "stopped", "")
    assert len(room.taken) == 1 and run.next() == []
    for key in others:
        run.failed(key, "stopped", "")
    assert not room.taken


def test_who_died_beside_others_is_tried_again_alone(tmp_path: File) -> None:
    run = began(tmp_path, slots=1)
    (cohort,) = handed(run)
    assert all(run.again(key, "died") for key in cohort)
    ((again,),) = handed(run)
    assert again in cohort
    assert run.again(again, "died") is False, "alone it goes on where it was"


def test_who_left_with_its_node_may_come_back_beside_others(tmp_path: File) -> None:
    run = began(tmp_path, slots=1)
    (cohort,) = handed(run)
    assert all(run.again(key, "left") for key in cohort)
    assert [sorted(one) for one in handed(run)] == [sorted(cohort)]


def test_for_whom_there_is_no_memory_waits_for_a_place(tmp_path: File) -> None:
    run = began(tmp_path, slots=1)
    said: list[str] = []
    run.say = said.append
    (cohort,) = handed(run)
    row = run.board.rows[cohort[-1]]
    assert run.again(row.key, "crowded")
    assert row.state == "waiting"
    why = "no memory beside the others; it goes on apart from them, from epoch 0"
    assert said == [f"{row.path} (seed 0): {why}"]
    assert run.next() == [], "those who train have the place"
    for key in cohort[:-1]:
        run.failed(key, "stopped", "")
    assert handed(run)[0][0] == cohort[-1]


def test_what_was_to_go_to_a_node_that_is_gone_is_handed_out_elsewhere(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = began(tmp_path, slots=2)
    nodes = [Node(name, {"CPU": 1.0}) for name in ("here", "there")]
    run.handing.nodes = lambda: nodes
    assert run.handing.room is not None
    run.handing.room.change(nodes)
    first = run.next()
    for stage in first:
        run.started(stage.key)
    where = run.handing.cohorts.places[first[0].key]
    (place,) = run.handing.room.taken[where][1]
    nodes[:] = [node for node in nodes if node.name == place]
    monkeypatch.setattr("orchestrator.handing.LOOK", 0.0)
    assert run.next() == []
    assert list(run.handing.room.taken) == [where]
    assert set(run.frontier.running) == {stage.key for stage in first}


FOR_ALL = {"workers": 2, "cpus": 0.5, "loader_workers": 1, "micro_batch": 2, "sync_batch_norm": True, "compile": True}
FOR_ALL |= {"gpus": 0.5, "memory": 1, "accelerator": "A100", "custom": {"camera": 1}, "labels": {"disk": "ssd"}}
FOR_ALL |= {"teacher_precision": "bf16", "channels_last": False}


@pytest.mark.parametrize("field", sorted(Placement.model_fields.keys() - {"min_workers", "stages_at_once"}))
def test_models_share_a_process_only_where_it_has_all_as_both_want_it(field: str) -> None:
    other = Placement(**{field: FOR_ALL[field]})
    assert not Placement().shares(other) and not other.shares(Placement()) and other.shares(other)


@pytest.mark.parametrize(
    "sets",
    [
        ("models.wee.resources.channels_last=false",),
        ("models.wee.backbone={Swin: {size: micro}}", "models.wee.detector.GFL.channels=16", "distill=[PKD]"),
        ("models.wee.detector={MaskRCNN: {channels: 16, hidden: 64, pooled: 5}}", "distill=[PKD]"),
    ],
    ids=["another layout", "other padding", "masks"],
)
def test_who_could_share_no_guide_or_no_batch_with_others_trains_apart(tmp_path: File, sets: tuple[str, ...]) -> None:
    run = began(tmp_path, slots=1, sets=sets)
    alone = {run.frontier.model(stage.key) for stage in run.frontier.waiting.values() if stage.teacher is None}
    (cohort,) = handed(run)
    assert {run.frontier.model(key) for key in cohort} == alone - {"wee"} and "wee" in alone
