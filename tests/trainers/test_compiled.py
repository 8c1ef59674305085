"""A compiled student trains as one that is not, whatever else a training does with its batches."""

import gc
import shutil
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend

from tests.trainers.detectors.scenes import noise
from tests.trainers.stages import STEPS, stage
from tests.trainers.test_cohort import together
from tests.trainers.test_every_detector import ONCE, make, part_of
from tests.trainers.trainings import guide, lessons_of, taught, training
from tests.trainers.works import ROOT, run
from trainers import speed, within
from trainers.asked import Asked
from trainers.balance import Balance
from trainers.compilers import uncompiled
from trainers.loop import Training
from trainers.outputs import Outputs, Targets
from trainers.pieces import Pieces
from trainers.speed import Compiled
from trainers.store import Store
from trainers.task import Lesson, Look, Task
from trainers.teaching import Lessons

OFF = torch.amp.grad_scaler.GradScaler(enabled=False)
LEARNT = taught("LD", epochs=3)
LATE = speed.OFTEN + 2  # steps: the batches' size has its graph
EAGER = "aot_eager"  # traces networks and their gradients as any backend, and compiles nothing


def compiled(one: Training) -> Training:
    one.task.fast = Compiled(one.task.student, backend=EAGER)
    return one


def changed(change: Callable[[Lesson, int], Lesson]) -> Lessons:
    """What the teacher says, changed from step to step."""
    plain = lessons_of(guide())

    def lesson(images: Tensor, step: int) -> Lesson:
        said = plain(images, step)
        assert said is not None
        return change(said, step)

    return lesson


def check_alike(one: Training, other: Training, lessons: Lessons) -> None:
    """Both learn the same by these lessons, the first one compiled."""
    for each in (one, other):
        list(each.epochs(lessons))
    assert isinstance(one.task.fast, Compiled) and one.task.fast.graphs
    like(one.task.state_dict(), other.task.state_dict())


def like(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-5, msg=name)


# A loss that is looked at for the first time when there are graphs


@pytest.mark.parametrize(
    "change",
    [
        lambda said, step: said._replace(strength={"ld": float(step >= LATE)}),
        lambda said, step: said if step >= LATE else said._replace(said=[None]),
    ],
    ids=["it begins late", "its guide is not heard before"],
)
def test_a_loss_that_counts_late_is_checked(change: Callable[[Lesson, int], Lesson]) -> None:
    one = compiled(training(LEARNT))
    check_alike(one, training(LEARNT), changed(change))
    assert not one.unchecked


def test_a_loss_that_finds_nothing_at_first_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = compiled(training(LEARNT)), training(LEARNT)
    for each in (one, other):
        monkeypatch.setattr(each.task.distill["ld"], "forward", empty_until(LATE, each.task.distill["ld"].forward))
    check_alike(one, other, lessons_of(guide()))
    assert not one.unchecked


def empty_until(calls: int, plain: Any) -> Any:
    """A loss whose own region is empty in so many batches."""
    number = 0

    def forward(student: Outputs, teacher: Outputs, targets: Targets) -> Tensor:
        nonlocal number
        number += 1
        value: Tensor = plain(student, teacher, targets)
        return value if number > calls else 0 * value

    return forward


# An alpha that is looked for


@pytest.mark.parametrize("looks", [2, 3 * STEPS + 1], ids=["found", "never found"])
def test_an_alpha_is_found_as_without_compiling(looks: int) -> None:
    one, other = (training(LEARNT) for _ in range(2))
    for each in (one, other):
        each.balance = Balance({"ld": 0.5}, {"ld": looks})
    compiled(one)
    for each in (one, other):
        list(each.epochs(lessons_of(guide())))
    like(one.task.state_dict(), other.task.state_dict())
    assert one.balance.alphas == pytest.approx(other.balance.alphas, rel=1e-4)
    assert one.balance.norms["ld"] == [pytest.approx(pair, rel=1e-4) for pair in other.balance.norms["ld"]]
    assert bool(one.task.fast.graphs) == (looks == 2), "as long as it is looked for, the student looks as it is"


def test_an_alpha_that_is_looked_for_later_keeps_no_student_from_being_compiled_before() -> None:
    one = training(LEARNT)
    one.balance = Balance({"ld": 0.5}, {"ld": 2})
    silent = changed(lambda said, step: said._replace(strength={"ld": 0.0}))
    list(compiled(one).epochs(silent))
    assert one.task.fast.graphs and not one.balance.norms["ld"]


# A batch in pieces


class Noted:
    """What a compiled student is asked, and whether each look was by a graph."""

    def __init__(self, fast: Compiled) -> None:
        self.fast, self.looks = fast, list[bool]()

    def way(self, images: Tensor) -> Look:
        way = self.fast.way(images)

        def look(images: Tensor) -> Outputs:
            self.looks.append(way is self.fast.fast)
            return way(images)

        return look


def test_each_piece_is_looked_at_twice_in_the_same_way() -> None:
    """What is compiled may draw in another order, as in Swin's stochastic depth."""
    student = make("GFL", {"reg_max": 8})
    noted = Noted(Compiled(student, backend=EAGER))
    task = Task(student, {}).train()
    task.fast = noted
    images, truth = noise(*[(32, 32)] * (speed.OFTEN + 1))
    Pieces(task, images, truth, None, size=1, inside=nullcontext).backward(OFF)
    ways = [False] * (speed.OFTEN - 1) + [True] * 2
    assert noted.looks == ways * 2


# How many graphs


class Counting:
    """A compiler that counts what it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, module: Any, inputs: Any) -> Any:
        self.graphs += 1
        return lookup_backend(EAGER)(module, inputs)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size gets its graph at once."""
    monkeypatch.setattr(speed, "OFTEN", 1)


@pytest.mark.usefixtures("often")
def test_a_process_that_trains_many_stages_compiles_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("recompile_limit", "accumulated_recompile_limit"):
        monkeypatch.setattr(torch._dynamo.config, limit, 3)
    counting = Counting()
    for width in range(1, 7):
        Compiled(nn.Linear(4, width), backend=counting)(torch.rand(1, 4))
    assert counting.graphs == 6


@pytest.mark.usefixtures("often")
def test_networks_that_are_built_alike_share_their_graphs_and_none_is_kept_by_them() -> None:
    counting, images = Counting(), torch.rand(1, 3, 32, 32)
    weights = []
    for _ in range(2):
        network = make("ATSS", {})
        Compiled(network, backend=counting)(images)
        weights += [weakref.ref(parameter) for parameter in network.parameters()]
    assert counting.graphs == 1
    del network
    gc.collect()
    assert not any(weight() is not None for weight in weights)


@pytest.mark.usefixtures("often")
def test_a_guide_whose_head_is_wanted_now_and_then_has_two_graphs() -> None:
    counting, images, network = Counting(), torch.rand(1, 3, 32, 32), make("GFL", {"reg_max": 8}).eval()
    asked = Asked(network, Compiled(network, backend=counting))
    with torch.no_grad():
        for _ in range(3):
            assert not asked(images).cls
            asked.read_by("somebody")
            like_said(asked(images), network(images))
            asked.leave("somebody")
    assert counting.graphs == 2


@pytest.mark.usefixtures("often")
def test_a_graph_keeps_the_towers_that_are_asked_for() -> None:
    counting, images, network = Counting(), torch.rand(1, 3, 32, 32), make("GFL", {"reg_max": 8}).eval()
    one = Compiled(network, backend=counting)
    with torch.no_grad():
        for kept in (frozenset[int](), frozenset({0, 1})):
            network.keep_towers = kept
            for _ in range(2):
                found = one(images)
                assert found.towers.keys() == kept and found.by is network
                like_said(found, network(images))
    assert counting.graphs == 2


def like_said(one: Outputs, other: Outputs) -> None:
    for mine, theirs in zip(within.said(one), within.said(other), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


# Every detector


@ONCE
@pytest.mark.usefixtures("often")
def test_a_compiled_detector_learns_what_it_learns_as_it_is(name: str, own: dict[str, Any]) -> None:
    learnt = []
    for backend in (None, EAGER):
        student = make(name, own)
        task = Task(student, {}).train()
        task.fast = Compiled(student, backend=backend) if backend else None
        optimizer = torch.optim.SGD(student.parameters(), 0.001)
        images, truth = part_of((0, 1, 2), (2, 0, 1))
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            losses = task(images, truth, None)
            losses.total.backward()
            optimizer.step()
        learnt.append({**student.state_dict(), **losses.by_name})
    like(*learnt)


# A cohort


SIBLINGS = [
    stage("PKD", teacher=ROOT, epochs=2),
    stage("CrossKD", teacher=ROOT, epochs=2),
    stage({"LD": {}, "alpha": "auto"}, teacher=ROOT, epochs=2, lr=0.01),
]


def test_compiled_siblings_learn_what_each_learns_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed, "Compiled", partial(Compiled, backend=EAGER))
    run(ROOT, tmp_path / "root")
    for folder in ("plain", "alone", "together"):
        shutil.copytree(tmp_path / "root", tmp_path / folder)
    for one in SIBLINGS:
        run(one, tmp_path / "plain")
        run(one, tmp_path / "alone", compile=True)
    together(SIBLINGS, tmp_path / "together", compile=True)
    for one in SIBLINGS:
        plain, alone, shared = (
            {**store.weights(result), "alpha": torch.tensor(result.alphas.get("ld", 1.0))}
            for store in (Store(tmp_path / folder) for folder in ("plain", "alone", "together"))
            if (result := store.get(one)) is not None
        )
        like(alone, plain)
        like(shared, plain)


# The real compiler


@pytest.mark.slow
@pytest.mark.skipif(bool(uncompiled("cpu")), reason="no compiler here")
def test_what_inductor_compiles_learns_the_same() -> None:
    one, other = training(LEARNT), training(LEARNT)
    one.task.fast = Compiled(one.task.student)
    check_alike(one, other, changed(lambda said, step: said._replace(strength={"ld": float(step >= LATE)})))
