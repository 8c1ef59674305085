"""Stages that are trained together get, each of them, exactly what they would have got alone."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from tests.trainers.kept import kept_state
from tests.trainers.stages import CPU, STEPS, model, order, stage
from tests.trainers.trainings import identical
from tests.trainers.works import ROOT, run, untimed
from trainers import cohort, headroom, usage, worker
from trainers.backbones import TinyResNet
from trainers.cohort import Crowded, train_together
from trainers.loop import Paused, Stopped, Training
from trainers.memory import OutOfMemory
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import Store
from trainers.workplace import Workplace

Outcome = Result | BaseException
WIDE = {"model": model(width=16, norm="batch")}
SIBLINGS = [
    stage({"LD": {"weight": 2}}, "KD", teacher=ROOT, epochs=3, optimizer="AdamW", lr=0.003, ema=0.5),
    stage({"LD": {"temperature": 3}}, teacher=ROOT, epochs=2, clip=1.0),
    stage("PKD", teacher=ROOT, epochs=2).model_copy(update=WIDE),
    stage("FGD", teacher=ROOT, epochs=2),  # learns weights of its own
]
HALF = {"precision": "fp16"}


def history(one: Stage, folder: Path) -> Sequence[dict[str, float]]:
    result = Store(folder).get(one)
    assert result is not None
    return result.history


def together(
    stages: Sequence[Stage], folder: Path, *, hooks: dict[int, Any] | None = None, **facts: Any
) -> list[Outcome]:
    """What becomes of them, in their order. `hooks`: of the workplaces, by number."""
    ended: dict[str, Outcome] = {}
    places = [Workplace(CPU, **(hooks or {}).get(number, {})) for number in range(len(stages))]
    train_together([order(one, folder, **facts) for one in stages], places, lambda key, how: ended.update({key: how}))
    return [ended[one.key] for one in stages]


def assert_same(alone: Path, shared: Path, stages: Sequence[Stage]) -> None:
    """To the bit: weights, scores, and all that was noted of every epoch but its seconds."""
    for one in stages:
        mine, theirs = Store(alone).get(one), Store(shared).get(one)
        assert mine is not None and theirs is not None
        assert mine.score == theirs.score and untimed(mine.history) == untimed(theirs.history)
        assert mine.sha256 == theirs.sha256
        for name, value in Store(alone).weights(mine).items():
            assert torch.equal(value, Store(shared).weights(theirs)[name]), name


@pytest.fixture(scope="module")
def rooted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    run(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, rooted: Path) -> Path:
    """A store with each of the siblings, trained alone."""
    folder = tmp_path_factory.mktemp("stores") / "alone"
    shutil.copytree(rooted, folder)
    for one in SIBLINGS:
        run(one, folder)
    return folder


@pytest.fixture
def store(tmp_path: Path, rooted: Path) -> Path:
    return Path(shutil.copytree(rooted, tmp_path / "store"))


def test_siblings_are_as_if_trained_alone(alone: Path, store: Path) -> None:
    together(SIBLINGS, store)
    assert_same(alone, store, SIBLINGS)


def test_those_without_a_teacher_share_their_batches(store: Path, tmp_path: Path, epochs: list[int]) -> None:
    pair = [stage(epochs=2), stage(epochs=2, lr=0.01)]
    together(pair, store)
    assert epochs == [0, 1]
    for one in pair:
        run(one, tmp_path / "alone")
    assert_same(tmp_path / "alone", store, pair)


def test_data_are_opened_once_batches_made_once_and_guides_loaded_and_asked_once(
    store: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[int]
) -> None:
    counts: dict[str, list[int]] = {"opened": [], "verified": [], "asked": []}

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **knobs: Any) -> Any:
            counts[name].append(1)
            return real(*args, **knobs)

        return called

    def verified(*args: Any, **knobs: Any) -> Any:
        guide = real_guide(*args, **knobs)
        guide.forward = counted("asked", guide.forward)
        return guide

    real_guide = worker.teacher.verified
    monkeypatch.setattr(worker, "opened", counted("opened", worker.opened))
    monkeypatch.setattr(worker.teacher, "verified", counted("verified", verified))
    together(SIBLINGS, store)
    longest = max(one.recipe.epochs for one in SIBLINGS)
    assert epochs == list(range(longest))
    assert {name: len(calls) for name, calls in counts.items()} == {
        "opened": 1,
        "verified": 1,
        "asked": longest * STEPS,
    }


@pytest.mark.parametrize(("stages", "times"), [(SIBLINGS[2:], 0), (SIBLINGS[1:], 2 * STEPS), (SIBLINGS, 3 * STEPS)])
def test_a_guides_head_is_left_out_unless_one_of_them_reads_it(
    store: Path, monkeypatch: pytest.MonkeyPatch, stages: Sequence[Stage], times: int
) -> None:
    """PKD and FGD read features, LD and KD the head; whether the first who asks reads it or not."""
    called: list[int] = []

    def verified(*args: Any, **knobs: Any) -> Any:
        guide = real_guide(*args, **knobs)
        guide.head.cls.register_forward_hook(lambda *said: called.append(1))
        return guide

    real_guide = worker.teacher.verified
    monkeypatch.setattr(worker.teacher, "verified", verified)
    together(stages[::-1], store)
    levels = 3
    assert len(called) == levels * times


def test_one_that_fails_leaves_the_others_alone(alone: Path, store: Path) -> None:
    def fails(entry: dict[str, float]) -> None:
        raise RuntimeError("no disk")

    outcomes = together(SIBLINGS, store, hooks={1: {"report": fails}})
    assert isinstance(outcomes[1], RuntimeError)
    assert_same(alone, store, [one for one in SIBLINGS if one is not SIBLINGS[1]])


def test_one_that_was_stopped_within_an_epoch_catches_up_and_all_are_as_if_alone(alone: Path, store: Path) -> None:
    asked = iter([False] * (STEPS + 2) + [True] * 9)
    outcomes = together(SIBLINGS, store, hooks={0: {"stop": lambda: next(asked)}})
    assert isinstance(outcomes[0], Stopped) and all(isinstance(one, Result) for one in outcomes[1:])
    fresh = stage("KD", teacher=ROOT, epochs=2)
    together([fresh, SIBLINGS[0]], store)
    assert_same(alone, store, SIBLINGS)


def test_one_that_pauses_leaves_the_others_alone_and_goes_on_later(alone: Path, store: Path) -> None:
    outcomes = together(SIBLINGS[:2], store, until=2)
    assert isinstance(outcomes[0], Paused) and isinstance(outcomes[1], Result)
    together(SIBLINGS[:1], store)
    assert_same(alone, store, SIBLINGS[:2])


def test_the_seconds_of_all_are_not_more_than_went_by(store: Path) -> None:
    import time

    started = time.perf_counter()
    outcomes = together(SIBLINGS, store)
    passed = time.perf_counter() - started
    assert 0 < sum(one.seconds for one in outcomes if isinstance(one, Result)) < passed


def test_where_there_is_no_memory_for_another_it_is_given_back_and_the_others_are_as_alone(
    tmp_path: Path, rooted: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first begins in any case; of what it took there must be as much for the next, and there is for one."""
    shutil.copytree(rooted, tmp_path, dirs_exist_ok=True)
    left = iter([10_000, 999])
    monkeypatch.setattr(cohort, "used", lambda device: 0)
    monkeypatch.setattr(cohort, "most", lambda device: 1_000)
    monkeypatch.setattr(cohort, "free", lambda device: next(left))
    first, second, third = together(SIBLINGS[:3], tmp_path)
    assert isinstance(first, Result) and isinstance(second, Result) and isinstance(third, Crowded)
    assert_same(alone, tmp_path, SIBLINGS[:2])
    assert Store(tmp_path).get(SIBLINGS[2]) is None
    assert not list(tmp_path.rglob("lease-*"))


@pytest.mark.parametrize("limit", [3, 0])
def test_one_that_runs_out_of_memory_in_a_step_leaves_the_others_alone_and_is_itself_as_alone(
    tmp_path: Path, rooted: Path, alone: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """From its third step on the wide one has room for so many images; with 0 it is to be tried without the others."""
    plain, wide = SIBLINGS[1:3]
    looks: list[int] = []
    forward = TinyResNet.forward

    def looking(self: TinyResNet, images: torch.Tensor) -> list[torch.Tensor]:
        if self.training and self.channels[0] == 16:
            looks.append(len(images))
            if len(looks) > 2 and len(images) > limit:
                raise torch.OutOfMemoryError(f"no room for {len(images)} images")
        return forward(self, images)

    monkeypatch.setattr(TinyResNet, "forward", looking)
    for name in ("alone", "together"):
        shutil.copytree(rooted, tmp_path / name)
    said: list[str] = []
    outcomes = together([wide, plain], tmp_path / "together", hooks={0: {"say": said.append}})
    assert said[0] == "out of memory in epoch 1, step 3 with 8 images at once; from now on 4 at once"
    assert_same(alone, tmp_path / "together", [plain])
    if limit == 0:
        assert isinstance(outcomes[0], Crowded) and Store(tmp_path / "together").get(wide) is None
        (alone_now,) = together([wide], tmp_path / "together")
        assert isinstance(alone_now, OutOfMemory), "nobody is beside it who could take its room"
        return
    looked, before = looks.copy(), said.copy()
    looks.clear()
    said.clear()
    run(wide, tmp_path / "alone", say=said.append)
    assert (looks, said) == (looked, before)
    assert_same(tmp_path / "alone", tmp_path / "together", [wide])


def test_one_that_lacks_memory_to_be_measured_beside_others_goes_on_without_them(
    tmp_path: Path, rooted: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, wide = SIBLINGS[1:3]
    forward = TinyResNet.forward

    def looking(self: TinyResNet, images: torch.Tensor) -> list[torch.Tensor]:
        if not self.training and self.channels[0] == 16 and crowded:
            raise torch.OutOfMemoryError("no room beside the other")
        return forward(self, images)

    monkeypatch.setattr(TinyResNet, "forward", looking)
    shutil.copytree(rooted, tmp_path, dirs_exist_ok=True)
    crowded = True
    outcomes = together([wide, plain], tmp_path)
    assert isinstance(outcomes[0], Crowded) and isinstance(outcomes[1], Result)
    crowded = False
    run(wide, tmp_path)
    assert_same(alone, tmp_path, [wide, plain])


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> list[GradScaler]:
    """Whatever is trained, its losses are scaled, as on a GPU in float16; -> the scalers that were made.

    The scale is doubled after three steps. The third step of the wide one overflows on its way back.
    """
    made: list[GradScaler] = []

    def make(*, enabled: bool) -> GradScaler:
        made.append(GradScaler("cpu", init_scale=2.0**10, growth_interval=3))
        return made[-1]

    def looking(self: TinyResNet, images: torch.Tensor) -> list[torch.Tensor]:
        maps = forward(self, images)
        if self.training and self.channels[0] == 16:
            steps[self] = steps.get(self, 0) + 1
            if steps[self] == 3:
                maps[0].register_hook(lambda gradient: gradient * float("inf"))
        return maps

    steps: WeakKeyDictionary[TinyResNet, int] = WeakKeyDictionary()
    forward = TinyResNet.forward
    monkeypatch.setattr(torch.amp.grad_scaler, "GradScaler", make)
    monkeypatch.setattr(TinyResNet, "forward", looking)
    return made


def test_each_has_a_scaler_of_its_own_and_one_that_overflows_leaves_that_of_the_others_alone(
    rooted: Path, store: Path, tmp_path: Path, scaled: list[GradScaler]
) -> None:
    """To the bit: weights, moments, the scale and the steps that are skipped, after every epoch."""
    halves = [one.model_copy(update={"recipe": one.recipe.model_copy(update=HALF)}) for one in SIBLINGS]
    states: dict[tuple[Path, str], list[Any]] = {}

    def noting(folder: Path, one: Stage) -> dict[str, Any]:
        def note(entry: dict[str, float]) -> None:
            left = kept_state(Store(folder), one.key)
            assert left is not None and left["training"]["epoch"] == entry["epoch"]
            kept.append(left["training"])

        kept = states[folder, one.key] = []
        return {"report": note}

    outcomes = together(halves, store, hooks={n: noting(store, one) for n, one in enumerate(halves)})
    assert all(isinstance(one, Result) for one in outcomes) and len(scaled) == len(halves)
    alone = Path(shutil.copytree(rooted, tmp_path / "alone"))
    for one in halves:
        run(one, alone, **noting(alone, one))
        assert len(states[alone, one.key]) == one.recipe.epochs
        assert identical(states[alone, one.key], states[store, one.key])
    assert_same(alone, store, halves)

    # Doubled by every three of 12, 8, 8 and 8 steps; the wide one's is halved by the third, doubled by the next three.
    assert [states[store, one.key][-1]["scaler"]["scale"] for one in halves] == [2.0**14, 2.0**12, 2.0**10, 2.0**12]
    overflows = [[entry["train/overflows"] for entry in history(one, store)] for one in halves]
    assert overflows == [[0, 0, 0], [0, 0], [1, 0], [0, 0]]


class Memory:
    """A device's, in which a stage has so much for its weights, leaves as much again with its first step, for gradients
    and moments, and needs far more within each step."""

    WEIGHTS, STEP = 100, 1_000

    def __init__(self, size: int, patch: pytest.MonkeyPatch) -> None:
        self.size, self.now, self.most, self.greatest = size, 0, 0, 0
        self.stepped: set[int] = set()
        patch.setattr(cohort, "used", lambda device: self.now)
        patch.setattr(cohort, "most", lambda device: self.most)
        patch.setattr(cohort, "free", lambda device: self.size - self.now)
        prepared, step, forget = worker._prepared, Training._step, usage.forget

        def preparing(*given: Any) -> Any:
            self.take(self.WEIGHTS)
            return prepared(*given)

        def stepping(training: Training, *given: Any) -> Any:
            self.take(self.STEP)
            self.now -= self.STEP
            if id(training) not in self.stepped:
                self.stepped.add(id(training))
                self.take(self.WEIGHTS)
            return step(training, *given)

        def counting_anew(device: torch.device) -> bool:
            self.most = self.now
            return forget(device)

        patch.setattr(worker, "_prepared", preparing)
        patch.setattr(Training, "_step", stepping)
        patch.setattr(usage, "forget", counting_anew)

    def take(self, amount: int) -> None:
        self.now += amount
        self.most, self.greatest = max(self.most, self.now), max(self.greatest, self.now)


@pytest.mark.parametrize(("size", "count"), [(1_300, 1), (1_600, 2), (3_000, 3)])
def test_one_begins_only_where_there_is_memory_for_a_whole_step_of_its_own_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, count: int
) -> None:
    memory, alike = Memory(size, monkeypatch), [stage(epochs=1, lr=rate) for rate in (0.01, 0.02, 0.03)]
    outcomes = together(alike, tmp_path)
    assert [isinstance(one, Result) for one in outcomes] == [number < count for number in range(3)]
    assert all(isinstance(one, Crowded) for one in outcomes[count:])
    assert memory.greatest <= size


def test_what_a_stage_takes_of_this_machine_is_known() -> None:
    before = headroom.used(CPU)
    held = torch.ones(2**27)  # more than others have freed
    assert headroom.used(CPU) - before > 2**28 and headroom.most(CPU) >= headroom.used(CPU) - 2**20
    assert 0 < headroom.free(CPU) < 2**50
    del held
