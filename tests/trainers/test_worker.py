"""A stage goes from its teacher to its stored result, by one of several workers too, or it is said why it cannot."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.trainers.data.folders import made, read, write
from tests.trainers.stages import CPU, DIGITS, STEPS, order, stage
from tests.trainers.works import ROOT, TAUGHT, Crash, crash, names, run, untimed
from trainers import build, data, sources, teacher, visible, worker
from trainers.atomic import digest
from trainers.call import Call, Invalid
from trainers.data import COCO
from trainers.evaluate import measure
from trainers.nonfinite import NonFinite
from trainers.order import Order
from trainers.outputs import Network
from trainers.result import Result
from trainers.spec import Data, Stage, Weights
from trainers.store import Damaged, Store
from trainers.teacher import NotTheTeacher
from trainers.worker import work
from trainers.workplace import Entry

# One stage in one go


def test_a_stage_is_trained_stored_measured_and_its_state_dropped(undisturbed: tuple[Result, Path]) -> None:
    result, folder = undisturbed
    store = Store(folder)
    assert store.get(TAUGHT) == result and store.check(TAUGHT) and store.measured(result)
    assert names(folder, TAUGHT) == ["measured.json", "result.json", "weights.safetensors"]
    assert result.stage == TAUGHT and result.device == "cpu" and result.seconds == result.history[-1]["seconds"] > 0
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3]
    assert result.score == result.metrics["val/AP"] == result.history[-1]["val/AP"]
    assert {"val/AP", "val/AP50", "val/AP75"} <= result.metrics.keys()
    assert not any(name.startswith("train/") for name in result.metrics)
    assert {"train/loss", "train/loss_ld", "train/loss_kd", "train/lr"} <= result.history[0].keys()
    seconds = [entry["seconds"] for entry in result.history]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_what_is_stored_is_the_average_and_its_score(
    undisturbed: tuple[Result, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result, folder = undisturbed
    products: list[dict[str, torch.Tensor]] = []
    finish = worker._finish

    def look(store: Store, order: Order, product: Network, *rest: Any, **more: Any) -> None:
        products.append({name: tensor.clone() for name, tensor in product.state_dict().items()})
        finish(store, order, product, *rest, **more)

    monkeypatch.setattr(worker, "_finish", look)
    averaged, plain = (run(stage(epochs=1, ema=ema), tmp_path) for ema in (0.9, 0.0))
    for one, product in zip((averaged, plain), products, strict=True):
        kept = Store(tmp_path).weights(one)
        assert kept.keys() == product.keys() and all(torch.equal(kept[name], product[name]) for name in kept)
    assert averaged.sha256 != plain.sha256
    detector = teacher.load(Store(folder), TAUGHT, device=CPU)
    assert measure(detector, build.dataset(DIGITS), TAUGHT.recipe, device=CPU)["AP"] == result.score


@pytest.mark.parametrize(("ema", "learns"), [(0.9, False), (0.0, True)])
def test_what_is_measured_after_an_epoch_is_the_average_where_there_is_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ema: float, learns: bool
) -> None:
    seen: list[bool] = []

    def look(detector: nn.Module, *rest: Any, **more: Any) -> dict[str, float]:
        seen.append(any(p.requires_grad for p in detector.parameters()))
        return measure(detector, *rest, **more)

    monkeypatch.setattr(worker, "measure", look)
    run(stage(ema=ema), folder)
    assert seen == [learns, learns]


def test_training_again_elsewhere_gives_the_same_bytes(undisturbed: tuple[Result, Path], folder: Path) -> None:
    torch.rand(11)
    again = run(TAUGHT, folder)
    assert again.sha256 == undisturbed[0].sha256 and untimed(again.history) == untimed(undisturbed[0].history)


def test_neither_how_often_it_is_measured_nor_loader_processes_change_a_bit(
    undisturbed: tuple[Result, Path], folder: Path
) -> None:
    result = run(TAUGHT, folder, evaluate_every=2, loader_workers=1)
    assert result.sha256 == undisturbed[0].sha256 and result.score == undisturbed[0].score
    assert ["val/AP" in entry for entry in result.history] == [False, True, True]


def test_the_last_epoch_is_always_measured(folder: Path) -> None:
    result = run(stage(), folder, evaluate_every=100)
    assert ["val/AP" in entry for entry in result.history] == [False, True]


def test_a_stored_result_is_returned_without_training(undisturbed: tuple[Result, Path], epochs: list[int]) -> None:
    result, folder = undisturbed
    assert run(TAUGHT, folder, report=crash, stop=crash) == result
    assert epochs == []


def test_an_epoch_is_reported_once_it_can_be_resumed_from(folder: Path) -> None:
    begun: list[tuple[float, int]] = []
    run(TAUGHT, folder, report=lambda entry: begun.append((entry["epoch"], Store(folder).begun(TAUGHT.key))))
    assert begun == [(1, 1), (2, 2), (3, 3)]


def test_the_wrapper_is_what_is_trained(folder: Path, undisturbed: tuple[Result, Path]) -> None:
    class Counting(nn.Module):
        calls = 0

        def __init__(self, task: nn.Module) -> None:
            super().__init__()
            self.task = task

        def forward(self, *inputs: Any) -> Any:
            Counting.calls += 1
            return self.task(*inputs)

    assert run(TAUGHT, folder, wrap=Counting).sha256 == undisturbed[0].sha256
    assert Counting.calls == 3 * STEPS


def test_an_order_survives_json() -> None:
    one = order(TAUGHT, Path("some/store"), evaluate_every=3)
    again = Order.model_validate_json(one.model_dump_json())
    assert again == one and again.stage.key == TAUGHT.key


# What is refused


@pytest.mark.parametrize("change", [{"seed": 5}, {"train": 31}, {"val": 15}, {"classes": 3}])
def test_data_that_changed_is_refused_before_anything_is_written(folder: Path, change: dict[str, int]) -> None:
    other = Call(name="Digits", args={**DIGITS.args, **change})
    with pytest.raises(Invalid, match=r"Digits\(.*\) is not the data of this study any more"):
        work(Order(stage=TAUGHT, data=other, store=str(folder)), device=CPU)
    assert not list(folder.glob(f"{TAUGHT.key}/*"))


def test_weights_that_read_back_have_another_score_are_no_result(
    folder: Path, epochs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage(epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "measure", lambda *_, **__: {"AP": 0.75})
        with pytest.raises(NotTheTeacher, match=r"score 0\.7500 but their record says"):
            run(one, folder)
    assert Store(folder).get(one) is None and epochs == [0]
    assert run(one, folder).key == one.key and epochs == [0]


def test_a_teacher_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visible, "PATIENCE", 0.0)
    with pytest.raises(NotTheTeacher, match=ROOT.key):
        run(TAUGHT, tmp_path)


def test_a_teacher_whose_record_was_edited_teaches_nobody(folder: Path, epochs: list[int]) -> None:
    file = folder / ROOT.key / "result.json"
    score = json.loads(file.read_text())["score"]
    file.write_text(json.dumps({**json.loads(file.read_text()), "score": score + 0.25}))
    with pytest.raises(NotTheTeacher, match=f"score {score:.4f} but their record says {score + 0.25:.4f}"):
        run(TAUGHT, folder)
    assert epochs == []


def test_a_training_that_fails_keeps_its_last_good_epoch_and_fails_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage(lr=1e30, warmup=STEPS, warmup_from=0.0, epochs=2, fixed_norm=True)
    for _ in range(2):
        with pytest.raises(NonFinite, match=r"^loss\w* became \S+ in epoch \d, step \d \(images .*; learning"):
            run(one, folder)
    assert Store(folder).get(one) is None


def test_a_store_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OSError, match="store"):
        run(stage(), tmp_path / "store")


# One of several


def test_only_the_first_worker_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stage(epochs=1)
    monkeypatch.setattr(worker.workers, "rank", lambda: 1)
    words = [(None, True), None, 0]  # that the stage is the first worker's to train, not there yet, and was not begun
    monkeypatch.setattr(worker.workers, "told", lambda word: words.pop(0) if words else crash())  # waits for the result
    monkeypatch.setattr(worker, "measure", lambda *_, **__: {"AP": 0.5})
    entries: list[Entry] = []
    with pytest.raises(Crash):
        run(one, folder, report=entries.append)
    assert len(entries) == 1 and not (folder / one.key).exists()


def test_each_worker_gets_its_part_of_the_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data, student = build.dataset(DIGITS), build.detector(stage())
    monkeypatch.setattr(worker.workers, "count", lambda: 2)
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(worker.workers, "rank", lambda rank=rank: rank)
        halves.append(list(worker.batches(order(stage(), tmp_path), data, student).epoch(0)))
    monkeypatch.undo()
    whole = worker.batches(order(stage(), tmp_path), data, student).epoch(0)
    for (_, truth), (_, first), (_, second) in zip(whole, *halves, strict=True):
        assert truth.ids[0::2] == first.ids and truth.ids[1::2] == second.ids


def test_what_is_to_be_ignored_is_said_to_the_student_unless_the_recipe_has_it_as_background(tmp_path: Path) -> None:
    source, student = made(tmp_path), build.detector(stage())
    (tmp_path / "empty.json").write_text(source.file.read_text())
    coco = read(source)
    coco["annotations"][0]["iscrowd"] = 1
    write(source, coco)
    split = COCO(root=str(tmp_path), val="empty.json", val_images="train2017").train
    for ignore, crowded in ((True, {1}), (False, set())):
        one = stage(ignore=ignore)
        ((_, truth),) = worker.batches(order(one, tmp_path), SimpleNamespace(train=split), student).epoch(0)
        crowds = zip(truth.ids, truth.ignored or [], strict=ignore)
        assert {identity for identity, boxes in crowds if len(boxes)} == crowded


def judged(metric: Any) -> Call:
    return Call(name="Digits", args={**DIGITS.args, "metric": metric}).complete(data)


def test_a_stage_that_is_judged_otherwise_is_another_and_ranked_otherwise_the_same(
    folder: Path, epochs: list[int]
) -> None:
    voc = stage(epochs=1).model_copy(update={"data": build.contents(judged("VocAP"))})
    first = work(Order(stage=voc, data=judged("VocAP"), store=str(folder)), device=CPU)
    assert first.score == first.metrics["val/AP"] == first.figure("AP") and first.key != stage(epochs=1).key
    assert {"val/AP", "val/AP50", "val/AP50_devkit"} <= first.metrics.keys()
    again = work(Order(stage=voc, data=judged({"VocAP": {"score": "AP50"}}), store=str(folder)), device=CPU)
    assert again == first and epochs == [0]
    with pytest.raises(Invalid, match="its metric changed"):
        work(Order(stage=stage(seed=4), data=judged("VocAP"), store=str(folder)), device=CPU)
    with pytest.raises(Invalid, match=r"has no AP51, only AP, .*AP50_devkit; remove its folder to train it anew"):
        first.figure("AP51")


def test_a_stage_is_stored_with_the_score_that_its_data_names(folder: Path) -> None:
    call = judged({"CocoAP": {"score": "AP50"}})
    one = stage(epochs=1)
    result = work(Order(stage=one, data=call, store=str(folder)), device=CPU)
    assert result.score == result.metrics["val/AP50"] and Store(folder).measured(result)
    # It teaches where AP is the score, and is measured there if it never was.
    (folder / one.key / "measured.json").unlink()
    run(stage("KD", teacher=one, epochs=1), folder)
    assert Store(folder).measured(result)


def test_a_stages_data_is_the_fingerprint_and_not_the_call(folder: Path) -> None:
    """The same scenes under another call: COCO's, say, on another machine."""
    shuffled = Call(name="Digits", args=dict(reversed(DIGITS.args.items())))
    result = work(Order(stage=stage(epochs=1), data=shuffled, store=str(folder)), device=CPU)
    assert result.stage.data == Data(fingerprint=build.dataset(DIGITS).fingerprint, classes=("zero", "one"))


# Published weights.


def published(folder: Path, part: str, **changes: Any) -> Weights:
    """What some other training brought, kept in the store. -> how a model refers to it."""
    file = folder / "elsewhere.safetensors"
    torch.manual_seed(99)
    save_file(build.network(ROOT.model, len(ROOT.data.classes)).state_dict(), file)
    sha256 = digest(file)
    Store(folder).keep(file, sha256)
    return Weights(sha256=sha256, part=part)


def started_from(weights: Weights, one: Stage) -> Stage:
    return one.model_copy(update={"model": one.model.model_copy(update={"weights": weights})})


def test_a_published_detector_is_measured_and_stored_without_an_epoch(folder: Path, epochs: list[int]) -> None:
    one = started_from(published(folder, "detector"), stage())
    assert one.published
    seen: list[Entry] = []
    result = run(one, folder, report=seen.append)
    assert epochs == [] and seen == [] and result.history == [] and result.sources == sources.of(one, DIGITS)
    stored = load_file(folder / one.key / "weights.safetensors")
    given = load_file(folder / "elsewhere.safetensors")
    assert all(torch.equal(stored[name], given[name]) for name in given)
    data = build.dataset(DIGITS)
    detector = teacher.load(Store(folder), one, device=CPU)
    assert result.score == measure(detector, data, one.recipe, device=CPU)["AP"]
    assert result.metrics["val/AP"] == result.score


def test_a_published_detector_teaches(folder: Path) -> None:
    root = started_from(published(folder, "detector"), stage())
    run(root, folder)
    assert run(stage("KD", teacher=root, epochs=1), folder).history


def test_a_taught_one_is_trained_from_its_published_weights(folder: Path) -> None:
    weights = published(folder, "detector")
    barely = {"epochs": 1, "lr": 1e-9, "warmup": 0}
    run(started_from(weights, stage("KD", teacher=ROOT, **barely)), folder)
    one = started_from(weights, stage("KD", teacher=ROOT, **barely))
    learnt = load_file(folder / one.key / "weights.safetensors")
    given = load_file(folder / "elsewhere.safetensors")
    names = [name for name, _ in build.network(one.model, 2).named_parameters()]
    assert all(torch.allclose(learnt[name], given[name], atol=1e-6) for name in names)


def test_of_a_published_backbone_only_that_is_taken(folder: Path) -> None:
    barely = {"epochs": 1, "lr": 1e-9, "warmup": 0}
    one = started_from(published(folder, "backbone"), stage(**barely))
    assert not one.published
    run(one, folder)
    plain = stage(**barely)
    run(plain, folder)
    learnt, fresh = (load_file(folder / each.key / "weights.safetensors") for each in (one, plain))
    given = load_file(folder / "elsewhere.safetensors")
    names = [name for name, _ in build.network(one.model, 2).named_parameters()]
    for name in names:
        assert torch.allclose(learnt[name], (given if name.startswith("backbone.") else fresh)[name], atol=1e-6), name


def test_published_weights_that_are_not_in_the_store_are_an_error_that_says_so(folder: Path) -> None:
    one = started_from(Weights(sha256="0" * 64), stage())
    with pytest.raises(Damaged, match="run again to fetch them"):
        run(one, folder)
