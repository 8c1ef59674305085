"""`alpha: auto`: what a loss is multiplied by is found in the first batches, and stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.trainers.kept import kept_state
from tests.trainers.stages import CPU, STEPS, stage
from tests.trainers.trainings import guide, identical, lessons, lessons_of, taught, training
from tests.trainers.two_workers import together
from tests.trainers.works import ROOT, Crash, raising_at, run, untimed
from trainers import build
from trainers.balance import LOOKS, Balance, balanced
from trainers.call import Term
from trainers.course import Course
from trainers.loop import Training
from trainers.outputs import Outputs, Targets
from trainers.reach import Unreachable
from trainers.result import Result
from trainers.selection import Selection
from trainers.spec import Stage
from trainers.store import Store
from trainers.task import Lesson, Looks, Losses, Task, nothing
from trainers.teaching import Teaching
from trainers.usage import Watch

OFF = torch.amp.grad_scaler.GradScaler(enabled=False)


# What is measured


def batch(detection: float, loss: float, *, positives: int = 1, on_maps: bool = False) -> Losses:
    """Losses whose gradients at the features, or at the maps, have the norms 10 * detection and 10 * loss."""
    maps = [torch.rand(1, 4, 5, 5, requires_grad=True)]  # 100 numbers, each with a gradient of the factor
    features = [2 * maps[0][:, :1], 2 * maps[0][:, 1:]]
    if on_maps:
        value = loss * maps[0].sum()
        detection = detection / 2  # the features are twice the maps
    else:
        value = loss * (features[0].sum() + features[1].sum())
    looks = Looks({"it": value}, detection * (features[0].sum() - features[1].sum()), features, maps)
    return Losses({"detection": looks.detection}, torch.tensor(positives), frozenset({"it"}), looks)


def found(*batches: Losses, ratio: float = 1.0, looks: int = 3) -> Balance:
    one = Balance({"it": ratio}, {"it": looks})
    for losses in batches:
        one.look(losses, OFF)
    return one


@pytest.mark.parametrize("on_maps", [False, True], ids=["features", "maps"])
def test_an_alpha_is_the_ratio_of_the_medians_of_both_norms(on_maps: bool) -> None:
    batches = [batch(*norms, on_maps=on_maps) for norms in ((3, 0.5), (60, 0.25), (2, 4))]
    one = found(*batches, ratio=0.5)
    torch.testing.assert_close(torch.tensor(one.norms["it"]), torch.tensor([[30.0, 5.0], [600.0, 2.5], [20.0, 40.0]]))
    assert one.alphas == {"it": pytest.approx(0.5 * 30 / 5)}


def test_it_is_known_after_so_many_batches_and_then_stays() -> None:
    assert found(batch(1, 1), batch(1, 1)).alphas == {}
    one = found(batch(1, 1), batch(1, 1), batch(1, 1))
    lesson = Lesson([None], {"it": 0.25, "other": 0.5})
    assert one.alphas == {"it": 1.0} and one.applied(lesson) == Lesson([None], {"it": 0.25, "other": 0.5})
    assert one.applied(None) is None and one.applied(Lesson([None])) == Lesson([None], {"it": 1.0})


def test_until_then_it_is_only_looked_at() -> None:
    lesson = Lesson([None], {"it": 0.25, "other": 0.5})
    assert found(batch(1, 1)).applied(lesson) == lesson._replace(looked_at=frozenset({"it"}))


@pytest.mark.parametrize(
    "silent",
    [batch(5, 5, positives=0), batch(5, 0), batch(0, 5), batch(5, float("inf")), batch(float("nan"), 5)],
    ids=["no objects", "nothing to learn", "no detection", "infinite", "not a number"],
)
def test_a_batch_that_says_nothing_is_passed_over(silent: Losses) -> None:
    one = found(silent, batch(6, 2), silent, looks=2)
    assert one.norms == {"it": [[pytest.approx(60), pytest.approx(20)]]} and not one.alphas


class Scaled(nn.Module):
    """What a scaler of float16 does, by a factor that changes."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.factor

    def get_scale(self) -> float:
        return self.factor


def test_how_a_loss_is_scaled_for_float16_does_not_show() -> None:
    one: Any = Balance({"it": 1.0}, {"it": 2})
    for factor in (65536.0, 1024.0):
        one.look(batch(3, 0.5), Scaled(factor))
    torch.testing.assert_close(torch.tensor(one.norms["it"]), torch.tensor([[30.0, 5.0]] * 2))


def term(**when: Any) -> Term:
    return Term.model_validate({"LD": {}, **when})


@pytest.mark.parametrize(
    ("when", "looks"),
    [
        ({"alpha": "auto"}, LOOKS),
        ({"alpha": {"auto": 0.5}, "epochs": [2, 2]}, 3),  # a tenth of the 30 steps in which it counts
        ({"alpha": "auto", "epochs": [1, 1], "after": 28}, 1),
    ],
)
def test_a_short_training_is_looked_at_for_a_tenth_of_its_time(when: dict[str, Any], looks: int) -> None:
    one = balanced({"it": term(**when), "other": term(alpha=3)}, steps=30, epochs=12)
    assert one.looks == {"it": looks} and one.ratios.keys() == {"it"}


# What comes of it


class Times(nn.Module):
    """A loss, so many times."""

    def __init__(self, loss: nn.Module, times: float) -> None:
        super().__init__()
        self.loss, self.times = loss, times

    def forward(self, student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        value: Tensor = self.times * self.loss(student, teacher, targets)
        return value


def trained(
    of: Stage, *, looks: int = 3, times: float = 1.0, ratio: float = 0.5, wrap: Callable[[Any], Any] = lambda task: task
) -> Training:
    one = prepared(of, looks=looks, times=times, ratio=ratio, wrap=wrap)
    list(one.epochs(lessons(of)))
    return one


def prepared(
    of: Stage, *, looks: int = 3, times: float = 1.0, ratio: float = 0.5, wrap: Callable[[Any], Any] = lambda task: task
) -> Training:
    """A training by LD, whose alpha is found in so many batches."""
    plain = training(of)
    task = Task(plain.task.student, {"ld": Times(plain.task.distill["ld"], times)})
    balance = Balance({"ld": ratio}, {"ld": looks})
    one = Training(task, of.recipe, plain.batches, device=plain.device, balance=balance)
    one.wrapped = wrap(task)
    return one


ONE = taught("LD", epochs=2)


def test_a_loss_of_another_size_trains_to_the_same_weights() -> None:
    plain, large = trained(ONE), trained(ONE, times=1000)
    assert large.balance.alphas["ld"] == pytest.approx(plain.balance.alphas["ld"] / 1000, rel=1e-4)
    other = training(ONE)
    list(other.epochs(lessons(ONE)))
    ours, theirs, fixed = (dict(x.product.named_parameters()) for x in (plain, large, other))

    def apart(these: dict[str, Tensor]) -> float:
        return max((ours[name] - these[name]).abs().max().item() for name in ours)

    assert apart(theirs) < 1e-4 < 1e-2 < apart(fixed)


def test_the_ratio_is_a_factor_of_the_alpha() -> None:
    assert trained(ONE, ratio=2).balance.alphas["ld"] == pytest.approx(4 * trained(ONE).balance.alphas["ld"])


def test_a_loss_whose_alpha_is_not_known_leaves_the_student_as_it_is_without_it() -> None:
    alone, accompanied = training(stage(epochs=2)), trained(ONE, looks=2 * STEPS + 1)
    list(alone.epochs(lessons(stage())))
    assert not accompanied.balance.alphas and len(accompanied.balance.norms["ld"]) == 2 * STEPS
    assert identical(alone.task.student.state_dict(), accompanied.task.student.state_dict())


def test_a_loss_whose_alpha_is_known_is_that_many_times_the_loss() -> None:
    """From the second step on: the first step without, then by the alpha that it brought."""
    one = trained(ONE, looks=1)
    alpha = one.balance.alphas["ld"]
    fixed = training(ONE)
    strengths = [0.0, *[alpha] * (2 * STEPS - 1)]
    teacher = lessons_of(guide())

    def lesson(images: Tensor, step: int) -> Lesson:
        said = teacher(images, step)
        assert said is not None
        return said._replace(strength={"ld": strengths[step]})

    list(fixed.epochs(lesson))
    assert identical(one.task.student.state_dict(), fixed.task.student.state_dict())


@pytest.mark.parametrize("looks", [2, STEPS, STEPS + 2])
def test_a_training_that_is_interrupted_goes_on_to_the_bit(looks: int, tmp_path: Path) -> None:
    straight, first, second = (prepared(ONE, looks=looks) for _ in range(3))
    metrics = [epoch.metrics for epoch in straight.epochs(lessons(ONE))]
    Store(tmp_path).save_state(ONE.key, 1, next(first.epochs(lessons(ONE))).state)
    kept = kept_state(Store(tmp_path), ONE.key)
    assert kept is not None
    second.restore(kept)
    (last,) = (epoch.metrics for epoch in second.epochs(lessons(ONE)))
    assert identical(straight.state(), second.state()) and untimed([last]) == untimed(metrics[1:])
    assert last["train/alpha_ld"] == straight.balance.alphas["ld"] == second.balance.alphas["ld"]


def test_a_loss_without_gradient_is_refused_as_ever() -> None:
    with pytest.raises(Unreachable, match="the distillation loss ld gives the student a gradient of zero"):
        trained(taught("LD", epochs=4), times=0)


def test_only_looking_costs_an_adapter_nothing_but_its_gradient_is_there() -> None:
    adapter = nn.Linear(2, 1)
    nothing(adapter, torch.ones(1)).backward()
    assert all(p.grad is not None and not p.grad.any() for p in adapter.parameters())


# Several workers


def alpha_of_one(rank: int = 0) -> dict[str, Any]:
    """Without batch norm, whose statistics are each worker's own."""
    return shared(lambda task: task, rank, world=1)


def alpha_of_two(rank: int) -> dict[str, Any]:
    return shared(DistributedDataParallel, rank, world=2)


def shared(wrap: Callable[[Any], Any], rank: int, *, world: int) -> dict[str, Any]:
    of = taught("LD", epochs=1, fixed_norm=True)
    one = prepared(of, looks=2, wrap=wrap)
    one.batches.rank, one.batches.world = rank, world
    list(one.epochs(lessons(of)))
    return {**one.balance.state(), "weights": one.task.student.state_dict()}


def test_two_workers_find_the_alpha_that_one_finds(tmp_path: Path) -> None:
    left, right = together(alpha_of_two, tmp_path)
    whole = alpha_of_one()
    assert left["alphas"] == right["alphas"] and left["norms"] == right["norms"]
    torch.testing.assert_close(torch.tensor(left["norms"]["ld"]), torch.tensor(whole["norms"]["ld"]), rtol=1e-4, atol=0)
    assert left["alphas"]["ld"] == pytest.approx(whole["alphas"]["ld"], rel=1e-4)
    for name, value in whole["weights"].items():
        torch.testing.assert_close(left["weights"][name], value, rtol=1e-3, atol=1e-5)


# A stage


BALANCED = stage(
    {"LD": {}, "alpha": {"auto": 0.5}}, {"KD": {}, "alpha": 2}, teacher=ROOT, epochs=3, optimizer="AdamW", lr=0.003
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[str]]:
    folder, said = tmp_path_factory.mktemp("balanced"), list[str]()
    run(ROOT, folder)
    return run(BALANCED, folder, say=said.append), said


def test_an_alpha_is_in_the_stages_record_in_its_curves_and_said_once(whole: tuple[Result, list[str]]) -> None:
    result, said = whole
    alpha = result.alphas["ld"]
    assert result.alphas.keys() == {"ld"} and alpha > 0
    assert [entry["train/alpha_ld"] for entry in result.history] == [alpha] * 3
    part = "its gradient at the student's features is 0.5 times that of the detection losses"
    assert said == [f"alpha of ld is {alpha:.4g}: {part}"]


def test_a_stage_that_is_interrupted_finds_the_same(whole: tuple[Result, list[str]], folder: Path) -> None:
    said = list[str]()
    with pytest.raises(Crash):
        run(BALANCED, folder, report=raising_at(1, Crash()), say=said.append)
    result = run(BALANCED, folder, say=said.append, loader_workers=1)
    assert result.sha256 == whole[0].sha256 and result.alphas == whole[0].alphas
    assert untimed(result.history) == untimed(whole[0].history) and said == whole[1]


def test_what_was_never_found_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr(Balance, "look", lambda *_: None)
    result = run(BALANCED, folder, say=said.append)
    assert result.alphas == {} and len(said) == 1 and said[0].startswith("no alpha was found for ld, which counted for")


def test_that_no_student_was_compiled_meanwhile_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    one, said = prepared(ONE), list[str]()
    monkeypatch.setattr(one, "epoch", ONE.recipe.epochs)
    monkeypatch.setattr(one.task, "fast", one.task.student)
    Course(ONE, one, Selection(ONE.recipe, score="AP"), Watch(CPU), {}).tell(said.append)
    assert said[0].endswith("the student was not compiled where it was looked for")


def test_a_record_of_before_has_no_alphas(whole: tuple[Result, list[str]]) -> None:
    old = whole[0].model_dump(exclude={"alphas"})
    assert Result.model_validate({**old, "format": 1}).alphas == {}


# A number


def test_a_number_multiplies_a_loss_whenever_it_counts() -> None:
    plain, scaled = ({"LD": {}, "ramp": 4}, {"LD": {}, "ramp": 4, "alpha": 2.5})
    strengths = []
    for written in (plain, scaled):
        of = taught(written)
        teaching = Teaching([guide()], {"ld": of.distill[0]}, {"ld": 0}, of, steps=STEPS)
        images = torch.zeros(1, 3, 32, 32)
        strengths.append([teaching(images, step).heard("ld", 0) for step in range(6)])
    assert strengths[1] == [2.5 * one for one in strengths[0]] and strengths[0] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_a_loss_of_alpha_zero_is_left_out() -> None:
    of = taught({"LD": {}, "alpha": 0}, "KD")
    assert list(build.losses(of.distill, guide(), [guide()]).modules) == ["kd"]
