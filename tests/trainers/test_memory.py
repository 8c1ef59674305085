"""A step that runs out of memory is tried again with half as many images at once, and is the step that it was."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.kept import kept_state
from tests.trainers.stages import STEPS, stage
from tests.trainers.trainings import identical, lessons, taught, training
from tests.trainers.works import ROOT, Crash, raising_at, run
from trainers import workers
from trainers.backbones import TinyResNet
from trainers.balance import Balance
from trainers.loop import Training
from trainers.memory import Fewer, OutOfMemory, is_of_memory, sparing
from trainers.spec import Stage
from trainers.store import Store

PLAIN = taught("LD", "PKD", epochs=2, fixed_norm=True)  # PKD, which takes statistics of the whole batch
Forward = Callable[[TinyResNet, Tensor], list[Tensor]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Have memory for so many images in a student's forward pass; -> how many each such pass was asked to look at."""

    def room(limit: int) -> list[int]:
        seen = list[int]()
        real: Forward = TinyResNet.forward

        def forward(self: TinyResNet, images: Tensor) -> list[Tensor]:
            if not self.training:
                return real(self, images)
            seen.append(len(images))
            if len(images) > limit:
                raise torch.OutOfMemoryError(f"no room for {len(images)} images\nand a second line")
            return real(self, images)

        monkeypatch.setattr(TinyResNet, "forward", forward)
        return seen

    return room


def told(of: Stage, **facts: Any) -> tuple[Training, list[str]]:
    """A training with what it says."""
    one, said = training(of), list[str]()
    one.say = said.append
    for name, value in facts.items():
        setattr(one, name, value)
    return one, said


def trained(of: Stage) -> Training:
    one, said = told(of)
    list(one.epochs(lessons(of)))
    assert not said
    return one


def check_alike(one: Training, other: Training) -> None:
    """The same weights within the noise of summation order: a few units in the last place."""
    ours, theirs = dict(one.task.state_dict()), dict(other.task.state_dict())
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=2e-6)


def test_with_memory_for_three_images_a_batch_of_eight_teaches_the_same_and_each_halving_is_said_once(
    asked: Callable[[int], list[int]],
) -> None:
    undisturbed = trained(PLAIN)
    seen = asked(3)
    one, said = told(PLAIN)
    list(one.epochs(lessons(PLAIN)))
    check_alike(undisturbed, one)
    where = "out of memory in epoch 1, step 1 with"
    assert said == [f"{where} {n} images at once; from now on {n // 2} at once" for n in (8, 4)]
    assert one.micro_batch == 2 and [n for n in seen if n > 2] == [8, 4]


@pytest.mark.parametrize("size", [1, 3, 4, 8, 100])
def test_a_batch_in_pieces_of_any_size_teaches_the_same(size: int) -> None:
    one, said = told(PLAIN, micro_batch=size)
    list(one.epochs(lessons(PLAIN)))
    check_alike(trained(PLAIN), one)
    assert not said


def test_what_a_student_then_draws_for_each_piece_is_said_once_and_again_when_the_training_goes_on(
    asked: Callable[[int], list[int]],
) -> None:
    asked(4)
    one, said = told(PLAIN)
    one.task.student.add_module("some", nn.Dropout(0.1))
    states = [copy.deepcopy(epoch.state) for epoch in one.epochs(lessons(PLAIN))]
    halved, drawn = said
    assert halved == "out of memory in epoch 1, step 1 with 8 images at once; from now on 4 at once"
    expected = "what the student leaves out at random is drawn for 4 of a worker's 8 images at once"
    assert drawn == f"{expected}, which is as with another seed"
    again, said = told(PLAIN)
    again.task.student.add_module("some", nn.Dropout(0.1))
    again.restore(states[0])
    list(again.epochs(lessons(PLAIN)))
    assert said == [drawn]


def test_a_training_that_goes_on_does_not_run_out_of_memory_again(asked: Callable[[int], list[int]]) -> None:
    seen = asked(3)
    first, _ = told(PLAIN)
    state = next(first.epochs(lessons(PLAIN))).state
    second, said = told(PLAIN)
    second.restore(state)
    seen.clear()
    list(second.epochs(lessons(PLAIN)))
    assert not said and max(seen) == 2
    third, _ = told(PLAIN, micro_batch=1)
    third.restore(state)
    assert third.micro_batch == 1, "whoever wants fewer gets fewer"


class Spilling(torch.autograd.Function):
    """Lets what it is given pass, and runs out of memory on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no room on the way back")


def test_a_step_that_fails_on_its_way_back_begins_as_if_nothing_had_been(monkeypatch: pytest.MonkeyPatch) -> None:
    """With live batch norms, whose statistics it has noted by then, with an alpha that is looked for, and by chance."""
    of = taught("LD", epochs=1, optimizer="AdamW")

    def fresh() -> tuple[Training, list[str]]:
        return told(of, balance=Balance({"ld": 0.5}, {"ld": 3}))

    known, _ = fresh()
    steps = iter(range(STEPS))

    def quarter() -> bool:
        if next(steps) == 2:
            known.micro_batch = 2
        return False

    list(known.epochs(lessons(of), stop=quarter))

    disturbed, said = fresh()
    real: Forward = TinyResNet.forward
    now = iter(range(STEPS))
    reached = [0]

    def noted() -> bool:
        reached[0] = next(now)
        return False

    def forward(self: TinyResNet, images: Tensor) -> list[Tensor]:
        torch.rand(1)  # something is drawn
        maps = real(self, images)
        if self.training and reached[0] == 2 and len(images) > 2:
            return [Spilling.apply(x) for x in maps]
        return maps

    monkeypatch.setattr(TinyResNet, "forward", forward)
    list(disturbed.epochs(lessons(of), stop=noted))
    first, warning, second = said
    assert first == "out of memory in epoch 1, step 3 with 8 images at once; from now on 4 at once"
    assert warning == "batch norms learn from 4 of a worker's 8 images at once, which is another training"
    assert second == "out of memory in epoch 1, step 3 with 4 images at once; from now on 2 at once"
    assert len(disturbed.balance.norms["ld"]) == 3
    assert identical(known.state(), disturbed.state())


def test_where_one_image_has_no_room_it_is_said_what_was_tried_and_what_helps(
    asked: Callable[[int], list[int]],
) -> None:
    asked(0)
    one, said = told(PLAIN)
    with pytest.raises(OutOfMemory) as failure:
        list(one.epochs(lessons(PLAIN)))
    words = (
        "epoch 1, step 1",
        "1 image at once",
        "a worker has 8",
        "more memory",
        "bf16",
        "resize",
        "no room for 1 images",
    )
    assert all(word in str(failure.value) for word in words) and "second line" not in str(failure.value)
    assert [line.split(" with ")[1].split()[0] for line in said] == ["8", "4", "2"]


def test_other_errors_are_nobodys_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: TinyResNet, images: Tensor) -> list[Tensor]:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(TinyResNet, "forward", forward)
    one, said = told(PLAIN)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(one.epochs(lessons(PLAIN)))
    assert not said


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("out of bounds"), False),
    ],
)
def test_libraries_that_find_no_room_are_understood(error: RuntimeError, lacks: bool) -> None:
    assert is_of_memory(error) == lacks


def test_of_several_workers_all_begin_again_because_others_may_wait_for_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, said = told(PLAIN, micro_batch=6)
    monkeypatch.setattr(workers, "count", lambda: 2)

    def learn() -> None:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(Fewer, match="epoch 7 with 4 images at once; from now on 2 at once for each worker") as failure:
        sparing(one, learn, images=4, where="epoch 7")
    sent = pickle.loads(pickle.dumps(failure.value))
    assert (str(sent), sent.micro_batch) == (str(failure.value), 2) and not said and one.micro_batch == 6


def test_what_was_found_outlives_a_crash_in_the_store(tmp_path: Path, asked: Callable[[int], list[int]]) -> None:
    of = stage("KD", teacher=ROOT, epochs=3, fixed_norm=True)
    run(ROOT, tmp_path)
    said = list[str]()
    seen = asked(4)
    with pytest.raises(Crash):
        run(of, tmp_path, report=raising_at(1, Crash()), say=said.append)
    left = kept_state(Store(tmp_path), of.key)
    assert left is not None and left["training"]["micro_batch"] == 4
    assert len([line for line in said if "out of memory" in line]) == 1
    said.clear()
    seen.clear()
    result = run(of, tmp_path, say=said.append)
    assert not said and max(seen) == 4 and len(result.history) == 3


def test_a_stage_takes_what_its_order_says(tmp_path: Path, asked: Callable[[int], list[int]]) -> None:
    """One worker alone shares its statistics with nobody."""
    of = stage(epochs=1)
    seen = asked(8)
    whole = run(of, tmp_path / "whole")
    assert seen == [8] * STEPS
    assert run(of, tmp_path / "shared", sync_batch_norm=True).sha256 == whole.sha256
    seen.clear()
    said = list[str]()
    run(of, tmp_path / "pieces", micro_batch=3, say=said.append)
    assert seen == [3, 3, 2] * 2 * STEPS and ["batch norms learn from 3 of" in line for line in said] == [True]


def test_of_a_training_that_ends_within_an_epoch_nothing_stays() -> None:
    one, _ = told(PLAIN)
    turns = one.turns(lessons(PLAIN))
    next(turns)
    assert one.meter is not None
    kept = weakref.ref(one.task)
    gc.disable()
    try:
        del turns, one
        assert kept() is None
    finally:
        gc.enable()
