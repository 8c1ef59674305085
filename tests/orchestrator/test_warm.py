"""A sweep that starts from what earlier studies in MLflow found: asked once, kept in the store, and said."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from collections.abc import Mapping
from pathlib import Path as File
from types import MappingProxyType
from typing import Any

import pytest

from orchestrator import facts, why
from orchestrator import plan as planning
from orchestrator.board import Row
from orchestrator.lattice import Path
from orchestrator.prepared import Prepared, prepare
from orchestrator.session import rewrite, session, summary_of
from orchestrator.settings import values
from orchestrator.study import Study, load
from orchestrator.warm import lines
from tests.orchestrator.studies import TEXT, changed, without, write
from tests.orchestrator.tracked import begin, settle
from trainers.call import Invalid

pytestmark = pytest.mark.usefixtures("in_a_folder")

THREE = without("low")
LINE = THREE.count("\n") + 1  # of `sweep:`
SWEEP = "sweep:\n  warm_start: true\n  LD.temperature: {uniform: [1, 20]}\n  sampler: sobol\n  samples: 8\n"
SWEPT = THREE + SWEEP
DIRECT, TAUGHT = ("big", "wee"), ("big", "mid", "wee")
EDGES = [("big", "mid"), ("big", "wee"), ("mid", "wee")]
Scores = Mapping[float, float]  # by temperature


def study(folder: File, uri: str, text: str = SWEPT, **resources: str) -> Study:
    places = {"store": str(folder / "store"), "runs": str(folder / "runs"), "tracking": uri, **resources}
    return load(write(folder, text), tuple(f"resources.{name}={where}" for name, where in places.items()))


def record(
    uri: str,
    name: str,
    scores: Scores,
    *,
    models: tuple[str, ...] = DIRECT,
    text: str = THREE,
    loss: str = "LD: {weight: 0.25, temperature: TEMPERATURE}",
    metric: str = "AP",
    seeds: Mapping[int, float] = MappingProxyType({0: 0.0}),
    state: Any = "done",
    budget: float = 1.0,
) -> None:
    """An earlier study without a sweep, of each temperature; `seeds`: what each adds to the score."""
    tracking = begin(uri, name, metric=metric)
    for temperature, score in scores.items():
        named = loss.replace("TEMPERATURE", str(temperature))
        own = load(write(File("earlier"), changed(("LD: {weight: 0.25, temperature: 10}", named), text=text)))
        lattice = prepare(own).lattice
        for seed, more in seeds.items():
            for end in range(1, len(models) + 1):
                path = Path(models[:end], budget if end > 1 else 1.0)
                found = score + more if end == len(models) else 0.9
                epoch = {"epoch": 2.0, f"val/{metric}": found}
                row = Row(lattice.stage(path, seed), path, seed, lattice.role(path), state=state, score=found)
                row.history, row.metrics, row.seconds = [{**epoch, "epoch": 1.0}, epoch], epoch, 3.0
                settle(tracking, row)
    tracking.close("FINISHED")


def starts(prepared: Prepared) -> dict[tuple[str, ...], list[float]]:
    """The temperatures that each edge starts from, as far as it has some."""
    return {
        place: [one.values["LD.temperature"] for one in found] for place, found in prepared.warm.found.items() if found
    }


def tried(prepared: Prepared, *models: str) -> list[float]:
    """The temperatures that a fresh study asks for on the last edge of a path, in order; the root is trained."""
    root = prepared.lattice.stage(Path(("big",)), 0)
    frontier = prepared.frontier(lambda stage: 0.5 if stage == root else None)
    wanted = [node.path for node in frontier.wanted() if node.path.models == models]
    return [values(path.setting)["LD.temperature"] for path in wanted]


def kept(folder: File) -> dict[str, Any]:
    return {file.name: json.loads(file.read_text()) for file in (folder / "store" / "warm").glob("*")}


def dead() -> str:
    """The address of a server that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# What is found


def test_each_edge_starts_from_the_best_that_was_found_on_like_edges_and_the_sampler_fills_the_rest(
    uri: str, tmp_path: File
) -> None:
    record(uri, "direct", {4.0: 0.2, 6.5: 0.4, 12.0: 0.3})
    record(uri, "through", {8.25: 0.3}, models=TAUGHT)
    prepared = prepare(study(tmp_path, uri))
    # An assistant was taught too, by the same teacher, at the temperature of its study.
    assert starts(prepared) == {DIRECT: [6.5, 12.0], ("mid", "wee"): [8.25], ("big", "mid"): [8.25]}
    cold = prepare(study(tmp_path, uri, changed(("warm_start: true", "warm_start: false"), text=SWEPT)))
    assert tried(prepared, *DIRECT) == [6.5, 12.0, *tried(cold, *DIRECT)[:6]]
    assert starts(cold) == {} and cold.warm.as_json() is None and cold.warm.lines() == []


def test_names_and_the_root_play_no_part_but_detectors_and_backbones_do(uri: str, tmp_path: File) -> None:
    renamed = changed(("  big:", "  huge:"), ("  wee:", "  tiny:"), text=THREE)
    record(uri, "renamed", {5.0: 0.3}, models=("huge", "tiny"), text=renamed)
    other = changed(("TinyResNet: {width: 4}", "TinyResNet: {width: 5}"), text=THREE)
    record(uri, "other", {6.0: 0.9}, text=other)
    assert starts(prepare(study(tmp_path, uri))) == {DIRECT: [5.0]}


def test_other_data_count_after_the_same_data_and_are_named_as_such(uri: str, tmp_path: File) -> None:
    record(uri, "ours", {5.0: 0.25})
    record(uri, "theirs", {7.0: 0.75}, text=changed(("val: 16", "val: 17"), text=THREE))
    prepared = prepare(study(tmp_path, uri))
    assert starts(prepared) == {DIRECT: [5.0, 7.0]}
    assert prepared.warm.lines() == [
        "the sweep of big > wee starts from 2 settings that earlier studies found: "
        "LD.temperature 5 (experiment ours, AP 0.25), "
        "LD.temperature 7 (experiment theirs on other data, AP 0.75)"
    ]


def test_a_setting_is_as_good_as_its_mean_over_the_seeds(uri: str, tmp_path: File) -> None:
    record(uri, "noisy", {4.0: 0.4}, seeds={0: 0.3, 1: -0.3})
    record(uri, "steady", {9.0: 0.5}, seeds={0: 0.0, 1: 0.1})
    assert starts(prepare(study(tmp_path, uri))) == {DIRECT: [9.0, 4.0]}


def test_what_was_not_trained_whole_or_lies_outside_the_space_is_no_start(uri: str, tmp_path: File) -> None:
    record(uri, "running", {4.0: 0.9}, state="running")
    record(uri, "brief", {5.0: 0.9}, budget=0.5)
    record(uri, "hot", {30.0: 0.9})
    record(uri, "strange", {6.0: 0.9}, loss="KD: {}")
    prepared = prepare(study(tmp_path, uri))
    assert starts(prepared) == {}
    assert prepared.warm.lines() == [
        "no earlier study found a setting on an edge like these; no sweep has one to start from"
    ]


def test_where_a_setting_holds_along_a_path_all_paths_start_from_what_taught_the_student(
    uri: str, tmp_path: File
) -> None:
    record(uri, "direct", {4.0: 0.2})
    record(uri, "through", {8.0: 0.3}, models=TAUGHT)
    prepared = prepare(study(tmp_path, uri, f"{SWEPT}  scope: path\n"))
    assert starts(prepared) == {(): [8.0, 4.0]}
    assert tried(prepared, *DIRECT)[:2] == tried(prepared, *TAUGHT)[:2] == [8.0, 4.0]
    assert prepared.warm.lines()[0].startswith("the sweeps of all paths start from 2 settings that earlier")


def test_a_database_that_is_not_there_yet_has_no_earlier_study_and_is_not_made(tmp_path: File) -> None:
    prepared = prepare(study(tmp_path, f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}"))
    assert prepared.warm.found == dict.fromkeys(EDGES, ()) and not prepared.warm.unknown
    assert not (tmp_path / "none").exists()


def test_asking_writes_nothing_into_mlflow_or_the_store(uri: str, tmp_path: File) -> None:
    def rows() -> dict[str, list[Any]]:
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            return {name: database.execute(f"select * from {name}").fetchall() for name in names}

    record(uri, "direct", {4.0: 0.2})
    before = rows()
    asked = study(tmp_path, uri)
    planning.plan(asked)
    planning.status(asked)
    why.why(asked)
    assert rows() == before and before["experiments"] and not (tmp_path / "store" / "warm").exists()


# What is kept


def test_what_mlflow_said_first_is_kept_whatever_it_has_later(uri: str, tmp_path: File) -> None:
    record(uri, "direct", {4.0: 0.2})
    asked = study(tmp_path, uri)
    prepare(asked).keep()
    first = tried(prepare(asked), *DIRECT)
    assert first[0] == 4.0 and len(kept(tmp_path)) == len(EDGES), "what was found, and that nothing was"
    record(uri, "better", {6.0: 0.9})
    record(uri, "tiny", {7.0: 0.9}, models=TAUGHT)
    again = prepare(asked)
    assert tried(again, *DIRECT) == first and starts(again) == {DIRECT: [4.0]}
    again.keep()
    away = prepare(study(tmp_path, dead()))
    assert tried(away, *DIRECT) == first and not away.warm.unknown
    assert starts(prepare(study(tmp_path, uri, store=str(tmp_path / "other")))) == {
        DIRECT: [6.0, 4.0],
        ("big", "mid"): [7.0],
        ("mid", "wee"): [7.0],
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 2", "epochs: 3"),
        ("uniform: [1, 20]", "uniform: [1, 19]"),
        ("samples: 8", "samples: 12"),
        ("val: 16", "val: 17"),
        ("weight: 0.25", "weight: 0.5"),
    ],
)
def test_another_sweep_asks_anew_on_every_edge(uri: str, tmp_path: File, old: str, new: str) -> None:
    prepare(study(tmp_path, uri)).keep()
    record(uri, "later", {6.0: 0.9})
    assert starts(prepare(study(tmp_path, uri, changed((old, new), text=SWEPT)))) == {DIRECT: [6.0]}


def test_an_edge_keeps_its_start_when_a_model_is_added_or_the_sampler_or_name_is_another(
    uri: str, tmp_path: File
) -> None:
    record(uri, "direct", {4.0: 0.2})
    prepare(study(tmp_path, uri)).keep()
    record(uri, "later", {6.0: 0.9})
    for old, new in ((THREE, TEXT), ("sampler: sobol", "sampler: tpe"), ("name: tiny", "name: same")):
        assert starts(prepare(study(tmp_path, uri, changed((old, new), text=SWEPT))))[DIRECT] == [4.0]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("", "it is damaged"),
        ('{"settings": [', "it is damaged"),
        ('{"settings": [{"values": {"LD.temperature": 4}}]}', "it is damaged"),
        ('{"settings": [{"values": {"LD.temperature": 400.0}, %s}]}', r"cannot have the setting .*400"),
        ('{"settings": [{"values": {"KD.weight": 1.0}, %s}]}', r"cannot have the setting .*KD"),
        ('{"settings": [{"values": {}, %s}]}', "cannot have the setting {}"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(
    uri: str, tmp_path: File, damage: str, reason: str
) -> None:
    asked = study(tmp_path, uri)
    prepare(asked).keep()
    file = sorted((tmp_path / "store" / "warm").iterdir())[1]
    rest = '"experiment": "x", "metric": "AP", "score": 0.5, "other_data": false'
    file.write_text(damage.replace("%s", rest))
    for command in (planning.plan, planning.status, why.why, session):
        with pytest.raises(
            Invalid, match=rf"(?s)tiny.yaml:{LINE + 1}: sweep.warm_start: .*{reason}.*remove"
        ) as refused:
            command(asked)
        assert str(file) in str(refused.value)
    file.unlink()
    prepare(asked).keep()
    assert prepare(asked).warm.new == {}


def test_a_file_that_is_a_folder_is_named_too(uri: str, tmp_path: File) -> None:
    asked = study(tmp_path, uri)
    file = File(asked.resources.store) / next(iter(prepare(asked).warm.new.values()))
    file.mkdir(parents=True)
    with pytest.raises(Invalid, match=f"cannot be read from {file}: Is a directory"):
        prepare(asked)


def test_of_two_runs_that_begin_at_once_the_second_is_told(uri: str, tmp_path: File) -> None:
    asked = study(tmp_path, uri)
    slow, same = prepare(asked), prepare(asked)
    record(uri, "meanwhile", {6.0: 0.9})
    prepare(asked).keep()
    with pytest.raises(Invalid, match="another run has just begun with other settings"):
        slow.keep()
    shutil.rmtree(tmp_path / "store")
    slow.keep()
    same.keep()


def test_a_store_that_takes_no_file_is_refused(uri: str, tmp_path: File) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "warm").write_text("in the way")
    with pytest.raises(Invalid, match="cannot write") as refused:
        prepare(study(tmp_path, uri)).keep()
    assert refused.value.where == ("resources", "store")


# MLflow is away


def test_run_refuses_to_begin_without_knowing_and_writes_nothing(tmp_path: File) -> None:
    away = dead()
    with pytest.raises(Invalid, match=rf"tiny.yaml:{LINE + 1}: sweep.warm_start: .*{away}.*or remove warm_start"):
        session(study(tmp_path, away))
    assert not list((tmp_path / "store").glob("*")) and not (tmp_path / "runs").exists()


def test_plan_status_why_and_report_go_on_without_and_say_so(
    tmp_path: File, capsys: pytest.CaptureFixture[str]
) -> None:
    away = dead()
    asked = study(tmp_path, away)
    made = planning.plan(asked)
    assert made["warm_start"] == {"known": False, "reason": made["warm_start"]["reason"], "sweeps": []}
    assert away in made["warm_start"]["reason"] and len(json.dumps(made))
    said = "it is not known what earlier studies found, so this is planned without: MLflow at"
    assert said in planning.text(made)
    assert said in planning.status_text(planning.status(asked)) and said in why.text(why.why(asked))
    assert made["trainings"] == planning.plan(study(tmp_path, "sqlite:///none.db"))["trainings"]
    assert File(rewrite(asked)).is_file() and capsys.readouterr().err.startswith(f"warning: {said}")


def test_a_plan_without_the_data_looks_at_neither_store_nor_mlflow(uri: str, tmp_path: File) -> None:
    record(uri, "direct", {4.0: 0.2})
    made = planning.plan(study(tmp_path, uri), data=False)
    assert made["warm_start"]["known"] is False and "without the data" in planning.text(made)


# It is said


def test_a_plan_says_what_each_sweep_starts_from(uri: str, tmp_path: File) -> None:
    record(uri, "direct", {4.0: 0.2, 6.5: 0.4})
    made = planning.plan(study(tmp_path, uri))
    assert made["warm_start"]["known"] and made["warm_start"]["reason"] is None
    by_edge = {tuple(one["edge"]): one["settings"] for one in made["warm_start"]["sweeps"]}
    assert set(by_edge) == set(EDGES) and by_edge["big", "mid"] == by_edge["mid", "wee"] == []
    assert by_edge[DIRECT][0] == {
        "values": {"LD.temperature": 6.5},
        "text": "LD.temperature 6.5",
        "experiment": "direct",
        "metric": "AP",
        "score": 0.4,
        "other_data": False,
        "origin": "experiment direct, AP 0.4",
    }
    said = "the sweep of big > wee starts from 2 settings that earlier studies found: LD.temperature 6.5 (experiment"
    assert said in planning.text(made)
    assert "earlier studies" not in planning.status_text(planning.status(study(tmp_path, uri)))


def test_many_settings_and_sweeps_are_said_in_few_lines() -> None:
    settings = [{"text": f"LD.weight {i}", "origin": "experiment x, AP 0.5"} for i in range(5)]
    sweeps = [{"edge": ["a", f"b{i}"], "settings": settings[: 5 - i % 2 * 4]} for i in range(11)]
    said = lines({"known": True, "sweeps": sweeps})
    assert len(said) == 9 and said[-1] == "... and 3 more sweeps start from some"
    assert said[0].endswith("LD.weight 2 (experiment x, AP 0.5), and 2 more")
    assert said[1].startswith("the sweep of a > b1 starts from 1 setting that")
    evil = [{"text": "LD.weight 1", "origin": "experiment \x1b[2J, AP 0.5"}]
    assert "\x1b" not in lines({"known": True, "sweeps": [{"edge": None, "settings": evil}]})[0]


def test_a_trial_and_its_point_in_the_report_name_where_their_setting_comes_from(uri: str, tmp_path: File) -> None:
    record(uri, "direct", {4.0: 0.2})
    prepared = prepare(study(tmp_path, uri))
    root = prepared.lattice.stage(Path(("big",)), 0)
    board = prepared.board(prepared.frontier(lambda stage: 0.5 if stage == root else None))
    rows = [row for row in board.rows.values() if row.path.models == DIRECT]
    warm = [row for row in rows if row.warm]
    assert [facts.tags(row)["warm_start"] for row in warm] == ["experiment direct, AP 0.2"]
    assert not [row for row in board.rows.values() if row not in warm and "warm_start" in facts.tags(row)]
    (edge,) = (one for one in summary_of(prepared, board, {})["sweeps"] if one["path"] == list(DIRECT))
    assert len(edge["points"]) == 8
    told = {point["values"]["LD.temperature"]: point["warm"] for point in edge["points"]}
    assert told.pop(4.0) == "experiment direct, AP 0.2" and set(told.values()) == {None}


def test_checkpoints_that_others_logged_on_the_same_server_are_passed_over(uri: str, tmp_path: File) -> None:
    record(uri, "direct", {4.0: 0.2})
    client = begin(uri, "theirs").client
    theirs = client.get_experiment_by_name("theirs")
    model = client.create_logged_model(theirs.experiment_id, name="forest", tags={"setting": "default"})
    client.finalize_logged_model(model.model_id, "READY")
    assert starts(prepare(study(tmp_path, uri))) == {DIRECT: [4.0]}
