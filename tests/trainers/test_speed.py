"""What makes a step faster changes what is learnt by no more than rounding, and leaves a training's state as it is."""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.trainers.stages import CPU, order
from tests.trainers.trainings import guide, lessons, taught, training
from trainers import backbones, compilers, speed, workers
from trainers.call import Invalid
from trainers.optim import SGD, AdamW, aligned
from trainers.outputs import Outputs
from trainers.spec import Stage
from trainers.speed import Compiled, Guide
from trainers.within import tensors

LEARNT = taught("LD", epochs=3, ema=0.5, clip=1.0)
EAGER = "aot_eager"  # traces networks and their gradients as any backend, and compiles nothing


def compiled(network: Any) -> Compiled:
    return Compiled(network, backend=EAGER)


def near(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-5, msg=name)


# Compiling


def test_a_compiled_training_learns_what_another_learns_and_goes_on_where_it_was_left() -> None:
    plain = training(LEARNT)
    expected = [epoch.metrics for epoch in plain.epochs(lessons(LEARNT))]
    one = training(LEARNT)
    one.task.fast = compiled(one.task.student)
    epochs = one.epochs(lessons(LEARNT))
    metrics = [next(epochs).metrics for _ in range(2)]
    left = copy.deepcopy(one.state())
    again = training(LEARNT)
    again.task.fast = compiled(again.task.student)
    again.restore(left)
    metrics += [epoch.metrics for epoch in again.epochs(lessons(LEARNT))]
    assert one.task.fast.graphs and again.task.fast.graphs
    assert plain.state()["task"].keys() == left["task"].keys(), "a graph is no part of what is stored"
    near(again.product.state_dict(), plain.product.state_dict())
    for mine, other in zip(metrics, expected, strict=True):
        assert mine["train/loss"] == pytest.approx(other["train/loss"], rel=1e-4)


def test_a_size_gets_a_graph_once_it_comes_often_and_no_more_than_so_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda look, **_: lambda x: ("graph", tuple(x.shape)))
    monkeypatch.setattr(speed, "GRAPHS", 1)
    one = Compiled(CallableNetwork())
    small, large = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)
    said = [one(small) for _ in range(speed.OFTEN + 1)]
    assert said == ["plain"] * (speed.OFTEN - 1) + [("graph", (1, 3, 4, 4))] * 2
    assert [one(large) for _ in range(2 * speed.OFTEN)] == ["plain"] * 2 * speed.OFTEN


class CallableNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Any) -> str:
        raise AssertionError("torch.compile is stood in for")

    def __call__(self, x: Any) -> str:
        return "plain"


def test_without_a_compiler_it_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert compilers.uncompiled("cpu") == ""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Invalid, match="no no-such-compiler: install one, or write compile: false"):
        speed.check(order(LEARNT, tmp_path, compile=True), device=CPU)
    speed.check(order(LEARNT, tmp_path), device=CPU)


def test_an_order_has_student_and_guides_compiled_or_neither(tmp_path: Path) -> None:
    plain, fast = order(LEARNT, tmp_path), order(LEARNT, tmp_path, compile=True)
    task, network = training(LEARNT).task, guide()
    said: list[str] = []
    speed.hasten(task, plain, said.append, device=CPU)
    assert task.fast is None and speed.guide(network, plain, device=CPU) is network
    speed.hasten(task, fast, said.append, device=CPU)
    assert isinstance(task.fast, Compiled) and task.fast.network is task.student and not said
    assert isinstance(speed.guide(network, fast, device=CPU), Compiled)


# A teacher's precision


def asked(network: Any, dtype: torch.dtype | None, *, whole: bool) -> Outputs:
    inside = torch.autocast("cpu", dtype=dtype) if dtype else nullcontext()
    with torch.no_grad():
        said: Outputs = Guide(network, lambda: inside, whole=whole)(torch.rand(2, 3, 32, 32))
    return said


def test_a_teacher_in_bfloat16_says_nearly_the_same_and_in_float32_to_a_student_that_knows_nothing_else() -> None:
    network = guide()
    found = []
    for dtype, whole in ((None, True), (torch.bfloat16, True), (torch.bfloat16, False)):
        torch.manual_seed(0)
        found.append(asked(network, dtype, whole=whole))
    plain, handed_on, own = found
    for one, other in zip(plain.cls + plain.box, handed_on.cls + handed_on.box, strict=True):
        assert other.dtype == torch.float32 and not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    assert {x.dtype for x in own.cls} == {torch.bfloat16}
    assert handed_on.by is network and not any(x.requires_grad for x in tensors(handed_on.box))


def with_precision(precision: str) -> Stage:
    return LEARNT.model_copy(update={"recipe": LEARNT.recipe.model_copy(update={"precision": precision})})


def test_only_on_a_gpu_a_teacher_has_a_precision_of_its_own(tmp_path: Path) -> None:
    network, cuda = guide(), torch.device("cuda")
    one = order(LEARNT, tmp_path, teacher_precision="bf16")
    assert speed.guide(network, one, device=CPU) is network
    assert speed.guide(network, order(LEARNT, tmp_path), device=cuda) is network
    there = speed.guide(network, one, device=cuda)
    assert isinstance(there, Guide) and there.whole
    mixed = speed.guide(network, order(with_precision("bf16"), tmp_path, teacher_precision="fp32"), device=cuda)
    assert isinstance(mixed, Guide) and not mixed.whole


# The layout


def is_last(network: nn.Module) -> bool:
    return not network.get_parameter("backbone.stem.0.weight").is_contiguous()


def test_channels_come_last_on_a_gpu_unless_an_order_says_no_and_never_on_a_cpu(tmp_path: Path) -> None:
    made: dict[tuple[bool | None, str], bool] = {}
    for wanted in (None, True, False):
        for kind in ("cpu", "cuda"):
            network = guide()
            speed.laid_out(network, order(LEARNT, tmp_path, channels_last=wanted), device=torch.device(kind))
            made[wanted, kind] = is_last(network)
    assert [key for key, last in made.items() if last] == [(None, "cuda"), (True, "cuda")]


def test_a_backbone_reads_images_as_its_weights_are_laid_out_and_a_cpu_never_does() -> None:
    network = backbones.ResNet(depth=18).to(memory_format=torch.channels_last).eval()
    seen = []
    network.conv1.forward = lambda x: seen.append(x.is_contiguous()) or torch.zeros(1, 64, 16, 16, device=x.device)
    network(torch.rand(1, 3, 32, 32))
    network.to("meta")(torch.rand(1, 3, 32, 32, device="meta"))
    assert seen == [True, False]


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_what_an_optimizer_remembers_is_laid_out_as_its_parameters_are(kind: Any) -> None:
    def learnt(first: torch.memory_format, then: torch.memory_format) -> torch.Tensor:
        weight = nn.Parameter(torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=first))
        optimizer = kind([weight], 0.1)
        for layout in (first, then):
            if layout is not first:
                state = copy.deepcopy(optimizer.state_dict())
                weight = nn.Parameter(weight.detach().clone(memory_format=layout))
                optimizer = kind([weight], 0.1)
                optimizer.load_state_dict(state)
                aligned(optimizer)
            weight.grad = torch.arange(24.0).view(2, 3, 2, 2).sin().to(memory_format=layout)
            optimizer.step()
        return weight.detach().contiguous()

    plain, last = torch.contiguous_format, torch.channels_last
    stayed = learnt(plain, plain)
    assert torch.equal(learnt(plain, last), stayed) and torch.equal(learnt(last, plain), stayed)


def test_a_training_goes_on_in_another_layout() -> None:
    def halfway() -> Any:
        one = training(LEARNT)
        next(one.epochs(lessons(LEARNT)))
        return copy.deepcopy(one.state())

    weights = []
    for last in (False, True):
        one = training(LEARNT)
        if last:
            one.task.student.to(memory_format=torch.channels_last)
        one.restore(halfway())
        list(one.epochs(lessons(LEARNT)))
        weights.append(one.product.state_dict())
    near(*weights)


def test_an_order_without_any_of_it_leaves_all_as_it_is(tmp_path: Path) -> None:
    one, plain = training(LEARNT), order(LEARNT, tmp_path)
    student = one.task.student
    before = [weight.stride() for weight in student.parameters()]
    speed.hasten(one.task, plain, [].append, device=CPU)
    speed.laid_out(student, plain, device=CPU)
    assert one.task.fast is None and speed.guide(student, plain, device=CPU) is student
    assert [weight.stride() for weight in student.parameters()] == before


def test_on_a_cpu_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda look, **how: asked.append(how["options"]))
    Compiled(guide())
    assert asked == [None] and not speed.replayable(guide())


def test_on_a_gpu_all_is_recorded_that_is_compiled_by_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda look, **how: asked.append(how["options"]))
    monkeypatch.setattr(speed, "replayable", lambda network: True)
    Compiled(guide())
    Compiled(guide(), backend="aot_eager")
    assert asked == [{"triton.cudagraphs": True}, None]


@pytest.mark.parametrize("recorded", [True, False])
def test_before_a_size_is_recorded_what_other_looks_have_left_is_given_back_once(
    monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda look, **_: lambda x: happened.append("graph"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: happened.append("given back"))
    monkeypatch.setattr(speed, "replayable", lambda network: recorded)
    one = Compiled(CallableNetwork())
    for side in (4, 8):
        happened.clear()
        for _ in range(speed.OFTEN + 2):
            if one(torch.zeros(1, 3, side, side)) == "plain":
                happened.append("plain")
        assert happened == ["plain"] * (speed.OFTEN - 1) + ["given back"] * recorded + ["graph"] * 3


class OnGPU(nn.Module):
    """A network of which only is asked where it is."""

    def parameters(self, recurse: bool = True) -> Any:
        yield SimpleNamespace(device=torch.device("cuda"))


def test_torch_records_in_no_thread_but_the_one_in_which_it_was_made_ready() -> None:
    speed.replayable(OnGPU())
    with ThreadPoolExecutor(1) as elsewhere:
        assert not elsewhere.submit(speed.replayable, OnGPU()).result()


def test_on_a_gpu_it_is_said_once_a_stage_that_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda, one = torch.device("cuda"), order(LEARNT, tmp_path, compile=True)
    found: dict[tuple[bool, int], list[str]] = {}
    for recorded in (False, True):
        for rank in (0, 1):
            monkeypatch.setattr(speed, "replayable", lambda network, recorded=recorded: recorded)
            monkeypatch.setattr(workers, "rank", lambda rank=rank: rank)
            said = found[recorded, rank] = []
            speed.guide(guide(), one, device=cuda)
            speed.hasten(training(LEARNT).task, one, said.append, device=cuda)
            speed.hasten(training(LEARNT).task, order(LEARNT, tmp_path), said.append, device=cuda)
    assert {which: len(said) for which, said in found.items() if said} == {(False, 0): 1}
    assert "not recorded on the GPU" in found[False, 0][0]
