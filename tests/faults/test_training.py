"""What goes wrong in a training: it is named with all that helps to find it, and costs what it must and no more."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.orchestrator import studies
from tests.orchestrator.studies import tapath, without, write
from tests.trainers.stages import STEPS, stage
from tests.trainers.trainings import BOTH, empty_lesson, guide, identical, lessons_of, taught, training
from tests.trainers.two_workers import together
from tests.trainers.works import ROOT, Crash, raising_at, run
from trainers.data.batches import Batches
from trainers.distill import LD
from trainers.loop import Training
from trainers.nonfinite import NonFinite
from trainers.optim import SGD
from trainers.outputs import Outputs, Targets, Truth
from trainers.teaching import no_lesson


class Planted(nn.Module):
    """A loss that is no number at some of its calls, or whose gradient is none; at the others it is an ordinary one."""

    def __init__(self, *at: int, gradient: bool = False) -> None:
        super().__init__()
        self.at, self.gradient, self.calls = at, gradient, 0

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        self.calls += 1
        loss = student.features[0].square().mean()
        if self.calls not in self.at:
            return loss
        return (loss * 0).sqrt() if self.gradient else loss * float("nan")


def planted(*at: int, gradient: bool = False, **changes: Any) -> Training:
    return training(taught(epochs=3, **changes), {"planted": Planted(*at, gradient=gradient)})


def weights(one: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in one.task.student.state_dict().items()}


# A loss that is no number


def test_it_is_said_which_loss_when_on_which_images_at_what_rate() -> None:
    one = planted(STEPS + 2)
    ids = [truth.ids for _, truth in one.batches.epoch(1)][1]
    with pytest.raises(NonFinite) as caught:
        list(one.epochs(empty_lesson))
    images = ", ".join(map(str, ids))
    rate = f"{one.rate(STEPS + 1):.3g}"
    assert str(caught.value) == f"loss_planted became nan in epoch 2, step 2 (images {images}; learning rate {rate})"


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_a_step_that_may_be_left_out_leaves_no_trace_but_its_count(gradient: bool) -> None:
    """Weights, optimizer, average and the statistics of batch norms are those of before the step."""
    said: list[str] = []
    one = planted(3, gradient=gradient, on_nonfinite={"skip": 1}, ema=0.9, optimizer="AdamW")
    one.say = said.append
    before: list[Any] = []

    def looking(images: Tensor, step: int) -> Any:
        before.append(({**weights(one)}, {**one.average.model.state_dict()} if one.average else {}))
        before[-1] = tuple({name: value.clone() for name, value in part.items()} for part in before[-1])
        return empty_lesson(images, step)

    first = next(iter(one.epochs(looking)))
    for part in (0, 1):
        assert identical(before[2][part], before[3][part]), "as if there had been no third step"
        assert not identical(before[1][part], before[2][part])
    assert {state["step"].item() for state in one.optimizer.state.values()} == {STEPS - 1}
    assert first.metrics["train/skipped"] == 1 and first.state["skipped"] == 1
    assert all(torch.isfinite(torch.tensor(list(first.metrics.values()))))
    name = "the gradient became no number" if gradient else "loss_planted became nan"
    (text,) = said
    assert text.startswith(f"a step is left out, the 1. of 1 that may be: {name} in epoch 1, step 3 (images ")


def test_the_means_of_an_epoch_are_those_of_the_steps_that_were_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    one = planted(2, on_nonfinite={"skip": 1})
    learn = one._learn

    def noting(*args: Any) -> Any:
        losses = learn(*args)
        if torch.isfinite(losses["loss"]):
            seen.append(losses["loss"].item())
        return losses

    monkeypatch.setattr(one, "_learn", noting)
    first = next(iter(one.epochs(empty_lesson)))
    assert len(seen) == STEPS - 1
    assert first.metrics["train/loss"] == pytest.approx(sum(seen) / len(seen))


def test_a_step_too_many_ends_the_training_and_says_how_many_were_left_out() -> None:
    one = planted(2, 3, 4, on_nonfinite={"skip": 2})
    with pytest.raises(NonFinite, match=r"step 4 \(.*\); 2 steps were left out before, and no more may be$"):
        list(one.epochs(empty_lesson))


def test_steps_are_counted_over_all_interruptions() -> None:
    one = planted(1, 2, on_nonfinite={"skip": 2})
    state = next(iter(one.epochs(empty_lesson))).state
    again = planted(1, on_nonfinite={"skip": 2})
    again.restore(state)
    with pytest.raises(NonFinite, match="2 steps were left out before"):
        list(again.epochs(empty_lesson))


def test_an_epoch_of_which_nothing_is_left_is_an_error() -> None:
    with pytest.raises(NonFinite, match="every step of an epoch was left out"):
        list(planted(*range(1, STEPS + 1), on_nonfinite={"skip": 9}).epochs(empty_lesson))


def test_where_nothing_goes_wrong_it_makes_no_difference_whether_something_could_be_left_out() -> None:
    strict, lenient = (training(taught(*BOTH, epochs=2, **more)) for more in ({}, {"on_nonfinite": {"skip": 5}}))
    assert strict.recipe.canonical != lenient.recipe.canonical
    for one in (strict, lenient):
        list(one.epochs(lessons_of(guide())))
    assert identical(weights(strict), weights(lenient))


def test_a_batch_in_pieces_is_left_out_like_a_whole_one() -> None:
    one = planted(3, on_nonfinite={"skip": 1}, fixed_norm=True)
    one.micro_batch = 4
    assert [epoch.metrics["train/skipped"] for epoch in one.epochs(empty_lesson)] == [1, 0, 0]


def test_a_stage_keeps_its_count_when_it_is_interrupted_and_tells_it_in_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = LD.forward

    def spiking(self: LD, *args: Any) -> Tensor:
        calls.append(1)
        return real(self, *args) * (float("nan") if len(calls) == 3 else 1.0)

    run(ROOT, tmp_path)
    monkeypatch.setattr(LD, "forward", spiking)
    one = stage({"LD": {"weight": 2}}, teacher=ROOT, on_nonfinite={"skip": 2}, epochs=2)
    said: list[str] = []
    with pytest.raises(Crash):
        run(one, tmp_path, report=raising_at(1, Crash()), say=said.append)
    result = run(one, tmp_path, say=said.append)
    assert [entry["train/skipped"] for entry in result.history] == [1, 0]
    (text,) = said
    assert text.startswith("a step is left out, the 1. of 2 that may be: loss_ld became nan in epoch 1, step 3 (")


def by_two(rank: int) -> dict[str, Any]:
    """Worker 1's loss is no number in the third step, both gradients in the fifth."""
    said: list[str] = []
    one = planted(*((3, 5) if rank else (5,)), on_nonfinite={"skip": 2})
    one.say = said.append
    one.batches = Batches(one.batches.split, batch=8, seed=0, divisor=16, rank=rank, world=2)
    one.wrapped = DistributedDataParallel(one.task)
    (first, second, _) = one.epochs(empty_lesson)
    numbers = [epoch.metrics["train/skipped"] for epoch in (first, second)]
    return {"said": said, "skipped": numbers, "weights": weights(one), "loss": first.metrics["train/loss"]}


def test_of_several_workers_all_leave_the_step_out_and_those_say_so_whose_loss_it_was(tmp_path: Path) -> None:
    left, right = together(by_two, tmp_path)
    learnt = [{name: x for name, x in one["weights"].items() if "running" not in name} for one in (left, right)]
    assert identical(*learnt)
    assert left["skipped"] == right["skipped"] == [1, 1] and left["loss"] == right["loss"]
    assert [len(one["said"]) for one in (left, right)] == [1, 2]
    assert "1. of 2" in right["said"][0] and "epoch 1, step 3 (images" in right["said"][0]
    assert "2. of 2" in left["said"][0] and "epoch 2, step 1 (images" in left["said"][0]


# float16


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_overflows_of_float16_are_counted_and_are_no_losses_that_are_no_numbers(optimizer: str) -> None:
    """The scaler leaves a step out in whose gradient its scale has no room, the very first one too, and halves it."""
    one = training(stage(epochs=2, warmup=0, ema=0, optimizer=optimizer, lr=0.001))
    one.scaler = torch.amp.grad_scaler.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    learning = list(one.task.student.parameters())
    before: list[list[Tensor]] = []

    def looking(images: Tensor, step: int) -> None:
        before.append([p.detach().clone() for p in learning])

    first, second = (epoch.metrics for epoch in one.epochs(looking))
    assert (first["train/overflows"], first["train/scale"]) == (1, 2.0**126)
    assert (second["train/overflows"], second["train/scale"]) == (0, 2.0**126)
    assert identical(before[0], before[1]) and not identical(before[1], before[2])
    assert "train/overflows" not in next(iter(training(stage()).epochs(no_lesson))).metrics


def test_what_the_memory_held_is_no_momentum_after_an_overflow_in_the_first_step() -> None:
    weight = nn.Parameter(torch.ones(1000))
    optimizer = SGD([weight], 0.1)
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())  # as a scaler tells the kernel
    weight.grad = torch.full_like(weight, float("inf"))
    optimizer.step()
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], torch.zeros(1000))
    optimizer.found_inf, weight.grad = torch.zeros(()), torch.ones(1000)
    optimizer.step()
    plain = torch.optim.SGD([other := nn.Parameter(torch.ones(1000))], 0.1, momentum=0.9, weight_decay=1e-4)
    other.grad = torch.ones(1000)
    plain.step()
    assert torch.equal(weight, other)


# Nothing to find


def test_batches_without_any_box_train_classes_and_end_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Batches.epoch

    def bare(self: Batches, n: int, *, start: int) -> Iterator[tuple[Tensor, Truth]]:
        for images, truth in real(self, n, start=start):
            boxes = [torch.zeros(0, 4) for _ in truth.boxes]
            labels = [torch.zeros(0, dtype=torch.long) for _ in truth.labels]
            yield images, Truth(boxes, labels, truth.sizes, truth.ids, truth.scales)

    monkeypatch.setattr(Batches, "epoch", bare)
    one = training(taught(*BOTH, epochs=2))
    before = weights(one)
    for epoch in one.epochs(lessons_of(guide())):
        assert all(torch.isfinite(torch.tensor(value)) for value in epoch.metrics.values())
        assert epoch.metrics["train/loss_qfl"] > 0 and epoch.metrics["train/loss_dfl"] == 0
    after = weights(one)
    assert not torch.equal(before["head.cls.bias"], after["head.cls.bias"])
    assert all(torch.isfinite(value).all() for value in after.values())


# A whole run


@pytest.mark.ray
@pytest.mark.slow
def test_where_all_paths_fail_the_run_ends_with_3_and_says_what_failed_first(tmp_path: Path) -> None:
    """The root teacher diverges, and so does the student alone."""
    write(tmp_path, without("mid", "low"))
    ran = tapath(tmp_path, "run", "tiny.yaml", "--set", "recipe.lr=1.0e+30")
    assert ran.code == 3, ran.out + ran.err
    first, *others = (line for line in ran.err.splitlines() if "  failed   " in line)
    assert re.search(r"  failed   big: NonFinite: loss\S* became (nan|inf) in epoch \d, step \d \(images \d", first)
    assert "learning rate" in first and ["wee alone" in line for line in others] == [True]
    named = [line for line in ran.out.splitlines() if line.startswith("failed: ")]
    assert [line.partition(": as said above")[0] for line in named] == ["failed: big (seed 0)", "failed: wee (seed 0)"]
    there = studies.stages(tmp_path)
    assert {path: stage["state"] for path, stage in there.items()} == {
        ("big",): "failed",
        ("big", "wee"): "lost",
        ("wee",): "failed",
    }
    assert there["big",]["reason"] in first
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    assert "became" in page and "big" in page
    assert "Traceback" in (tmp_path / "runs" / "tiny" / f"failed-{there['big',]['key']}.txt").read_text()
