"""`tapath reproduce`: the same seed gives the same weights, and if not, other seeds tell whether it is noise."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path as File

import pytest
from click.testing import CliRunner
from scipy import stats

from orchestrator import noise, reproduce
from orchestrator.cli import main
from orchestrator.originals import Original, of_model, of_study, same
from orchestrator.study import load
from tests.orchestrator.stored import stage_of, store
from tests.orchestrator.studies import changed, tapath, without, write
from trainers.call import Invalid
from trainers.result import Result

SHORT = without("mid", "low")


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (2, 2), (3, 2), (5, 4), (3, 8)])
def test_the_test_is_students_with_one_spread(sizes: tuple[int, int]) -> None:
    draw = random.Random(str(sizes))
    before, after = ([draw.gauss(0.5, 0.1) for _ in range(size)] for size in sizes)
    found = noise.compared(before, after)
    if min(sizes) > 1:
        assert found.chance == pytest.approx(stats.ttest_ind(before, after).pvalue)
    assert found.alike == (found.chance >= 0.05) and 0 <= found.chance <= 1


def test_far_apart_is_no_noise_and_near_is() -> None:
    assert not noise.compared([0.5, 0.51, 0.49], [0.7, 0.71]).alike
    assert noise.compared([0.5], [0.48, 0.53]).alike
    assert noise.compared([0.5, 0.5], [0.5]).alike and not noise.compared([0.5, 0.5], [0.6]).alike


def test_one_score_on_each_side_is_not_enough() -> None:
    assert [noise.enough(*one) for one in ((1, 1), (0, 3), (1, 2), (2, 1))] == [False, False, True, True]


@pytest.mark.usefixtures("in_a_folder")
def test_a_stage_is_found_by_path_and_seed_with_the_scores_of_the_other_seeds() -> None:
    study = load(write(File(), SHORT))
    store(study, ("big",), score=0.5)
    found = of_study(study, "big", None)
    assert found.stage == stage_of(study, "big") and found.scores == {0: 0.5} and found.score == 0.5
    assert found.sha256 and found.device == "cpu"
    with pytest.raises(Invalid, match="no finished stage big > wee"):
        of_study(study, "big > wee", None)
    with pytest.raises(Invalid, match="no finished stage big"):
        of_study(study, "big", 7)


@pytest.mark.usefixtures("in_a_folder")
def test_other_data_or_settings_are_named_before_anything_is_trained() -> None:
    study = load(write(File(), SHORT))
    store(study, ("big",))
    found = of_study(study, "big", None)
    other = load(write(File(), changed(("classes: 3", "classes: 2"), ("lr: 0.008", "lr: 0.01"), text=SHORT)))
    with pytest.raises(Invalid, match=r"recipe.lr: 0.01 here, 0.008 there") as caught:
        same(found, stage_of(other, "big"))
    assert "other annotations" in str(caught.value) and "--set" in str(caught.value)


@pytest.mark.usefixtures("in_a_folder")
def test_a_store_that_has_the_stage_is_refused() -> None:
    study = load(write(File(), SHORT))
    store(study, ("big",))
    with pytest.raises(Invalid, match="has this stage already"):
        reproduce.reproduce(of_study(study, "big", None), store="store", seeds=0)
    with pytest.raises(Invalid, match="train more"):
        reproduce.reproduce(of_study(study, "big", None), store=None, seeds=1)


def test_what_is_no_model_is_refused(uri: str) -> None:
    for name in ("demo", "models:/demo", "models:/demo/best", "runs:/1/model"):
        with pytest.raises(Invalid, match="models:/NAME@best"):
            of_model(name, tracking=uri)
    with pytest.raises(Invalid, match="has no model demo; none is registered there"):
        of_model("models:/demo@best", tracking=uri)


@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.parametrize(
    "words", [("models:/tiny@best", "--seed", "7"), ("tiny.yaml", "big", "--tracking", "sqlite:///x.db")], ids=str
)
def test_an_option_that_says_nothing_of_what_is_named_is_refused(words: tuple[str, ...]) -> None:
    store(load(write(File(), SHORT)), ("big",))
    ended = CliRunner().invoke(main, ["reproduce", *words])
    assert ended.exit_code == 2 and f"{words[-2]} says nothing of what is named here" in ended.stderr, ended.output


def outcome(original: Original, *, equal: bool, compared: noise.Compared | None = None) -> reproduce.Outcome:
    differs = {"torch": ("2.12.0", "2.12.1"), "device": ("cpu", "NVIDIA H100")}
    return reproduce.Outcome(original, equal, 0.4, "b" * 64, differs, {1: 0.4, 2: 0.5} if compared else {}, compared)


@pytest.mark.usefixtures("in_a_folder")
def test_what_differs_is_printed_and_the_exit_code_says_whether_it_is_the_same() -> None:
    study = load(write(File(), SHORT))
    store(study, ("big",))
    original = of_study(study, "big", None)
    made = {
        "equal": outcome(original, equal=True),
        "other": outcome(original, equal=False),
        "inside": outcome(original, equal=False, compared=noise.Compared(0.5, 0.45, 0.3)),
        "outside": outcome(original, equal=False, compared=noise.Compared(0.5, 0.2, 0.01)),
    }
    assert {name: one.code for name, one in made.items()} == {"equal": 0, "other": 3, "inside": 0, "outside": 3}
    assert "bit for bit" in reproduce.text(made["equal"])
    said = reproduce.text(made["other"])
    assert "torch: 2.12.0 then, 2.12.1 here" in said and "device: cpu then" in said and "--seeds 3" in said
    assert "inside the noise" in reproduce.text(made["inside"]) and "OUTSIDE" in reproduce.text(made["outside"])
    assert json.loads(json.dumps(reproduce.as_json(made["inside"])))["inside_noise"] is True


def trained(monkeypatch: pytest.MonkeyPatch, scores: dict[int, float]) -> list[list[int]]:
    """In place of trainings other weights, and by seed these scores. -> the seeds, training by training."""
    asked: list[list[int]] = []

    def train(original: Original, place: str, seeds: Sequence[int], *_: object) -> dict[int, Result]:
        asked.append(list(seeds))
        facts = {"metrics": {}, "history": [], "seconds": 1.0, "device": "cpu", "sha256": "b" * 64, "size": 1}
        return {seed: Result(stage=original.stage, score=scores[seed], **facts) for seed in seeds}

    monkeypatch.setattr(reproduce, "_trained", train)
    return asked


@pytest.mark.usefixtures("in_a_folder")
@pytest.mark.parametrize(("others", "code", "said"), [((0.45, 0.55), 0, "inside"), ((0.1, 0.101), 3, "OUTSIDE")])
def test_where_a_study_has_one_seed_two_others_say_whether_it_is_noise(
    others: tuple[float, float], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load(write(File(), SHORT))
    store(study, ("big",), score=0.5)
    asked = trained(monkeypatch, {0: 0.4, 1: others[0], 2: others[1]})
    ended = CliRunner().invoke(main, ["reproduce", "tiny.yaml", "big"])
    assert ended.exit_code == code and asked == [[0], [1, 2]], ended.output
    assert "other weights" in ended.stdout and f"{said} the noise of seeds" in ended.stdout
    assert "0.5000 over 1 before" in ended.stdout and "over 2 others" in ended.stdout


@pytest.mark.usefixtures("in_a_folder")
def test_where_it_has_several_its_score_is_held_against_them(monkeypatch: pytest.MonkeyPatch) -> None:
    study = load(write(File(), SHORT))
    store(study, ("big",), score=0.5)
    original = of_study(study, "big", None)._replace(scores={0: 0.5, 1: 0.52, 2: 0.48})
    for score, code in ((0.51, 0), (0.9, 3)):
        asked = trained(monkeypatch, {0: score})
        made = reproduce.reproduce(original, store=None)
        assert asked == [[0]] and made.code == code and made.compared is not None
        assert made.compared.before == pytest.approx(0.5) and made.compared.after == score
        said = reproduce.text(made)
        assert f"{score:.4f} here" in said and ("inside" if code == 0 else "OUTSIDE") in said
        assert reproduce.as_json(made)["inside_noise"] is (code == 0)


@pytest.mark.usefixtures("in_a_folder")
def test_no_seed_is_trained_where_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    study = load(write(File(), SHORT))
    store(study, ("big",), score=0.5)
    asked = trained(monkeypatch, {0: 0.5})
    made = reproduce.reproduce(of_study(study, "big", None), store=None, seeds=0)
    assert asked == [[0]] and made.code == 3 and "--seeds 3" in reproduce.text(made)


@pytest.mark.ray
def test_a_training_that_rounds_otherwise_gives_other_weights_within_the_noise(finished: File, tmp_path: File) -> None:
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    words = ("reproduce", "tiny.yaml", "wee", "--set", "resources.micro_batch=2", "--seeds", "2", "--json")
    ended = tapath(folder, *words, "--store", "again")
    made = json.loads(ended.out)
    assert made["equal"] is False and made["sha256"]["again"] != made["sha256"]["before"]
    assert set(made["scores"]["again"]) == {"1", "2"}
    assert ended.code == (0 if made["inside_noise"] else 3)
    assert len(list((folder / "again").glob("*/result.json"))) == 3
    assert len(list((folder / "store").glob("*/result.json"))) == 9, "the study's own store is as it was"


@pytest.mark.ray
def test_the_study_of_a_registered_model_is_rebuilt_from_mlflow_alone(finished: File, tmp_path: File) -> None:
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    (folder / "tiny.yaml").unlink()
    shutil.rmtree(folder / "store")
    ended = tapath(folder, "reproduce", "models:/tiny/1", "--json")
    made = json.loads(ended.out)
    assert ended.code == 0 and made["equal"] is True and made["versions_known"] is True, ended.err
    assert made["differs"] == {}
