"""CWD: the maps of channels are distributions over cells."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainers.distill.figures import Figures, random_outputs, targets_at
from trainers import distill
from trainers.call import Call, Invalid
from trainers.distill import CWD
from trainers.distill.cwd import channel_divergence
from trainers.outputs import Outputs

ONE = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)  # the divergence of (1/2, 1/2) from (1/4, 3/4)
Pick = Callable[[Outputs, list[int]], Outputs]


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_by_hand(temperature: float) -> None:
    # Two channels of two cells. The first is taught (1/4, 3/4) and is (1/2, 1/2), the second agrees.
    student = torch.tensor([[1.0, 1.0], [2.0, 5.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[0.0, temperature * math.log(3)], [2.0, 5.0]]).view(1, 2, 1, 2)
    found = channel_divergence(student, teacher, temperature=temperature)
    assert found.tolist() == pytest.approx([temperature**2 * ONE / 2])


def test_levels_are_summed_and_images_averaged() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    expected = sum(
        channel_divergence(s[image : image + 1], t[image : image + 1], temperature=2.0).item() / 2
        for s, t in zip(student.features, teacher.features, strict=True)
        for image in (0, 1)
    )
    loss = CWD(Figures(), Figures(), weight=3.0, temperature=2.0)
    assert loss(student, teacher, targets_at()).item() == pytest.approx(3 * expected)


def test_chosen_levels_are_compared_alone() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    one, other, both = (CWD(Figures(), Figures(), levels=n)(student, teacher, targets_at()) for n in ((0,), (1,), None))
    torch.testing.assert_close(one + other, both)
    assert one > 0 and other > 0


def test_source_cls_compares_the_maps_of_class_logits_in_the_same_way() -> None:
    student, teacher = random_outputs(1), random_outputs(2)
    found = CWD(Figures(), Figures(), source="cls")(student, teacher, targets_at())
    as_features = [replace(o, features=o.cls) for o in (student, teacher)]
    torch.testing.assert_close(found, CWD(Figures(), Figures())(*as_features, targets_at()))
    assert not torch.isclose(found, CWD(Figures(), Figures())(student, teacher, targets_at()))


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-50, 50), which=st.integers(0, 2))
def test_a_constant_added_to_a_channel_makes_no_difference(shift: float, which: int) -> None:
    x, y = draw(2, 3, 2, 4, seed=0), draw(2, 3, 2, 4, seed=1)
    changed = x.clone()
    changed[:, which] += shift
    expected = channel_divergence(x, y, temperature=1.0)
    torch.testing.assert_close(channel_divergence(changed, y, temperature=1.0), expected)
    changed[:, which] -= shift
    torch.testing.assert_close(
        channel_divergence(y, changed, temperature=1.0), channel_divergence(y, x, temperature=1.0)
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 20), temperature=st.floats(1, 20))
def test_it_is_never_negative_and_does_not_care_which_cell_is_which(
    seed: int, scale: float, temperature: float
) -> None:
    x, y = draw(2, 3, 2, 4, seed=seed) * scale, draw(2, 3, 2, 4, seed=seed + 1) * scale
    found = channel_divergence(x, y, temperature=temperature)
    assert (found >= 0).all()
    turned = channel_divergence(x.flip(2, 3), y.flip(2, 3), temperature=temperature)
    torch.testing.assert_close(turned, found)


def test_at_a_high_temperature_it_is_half_the_mean_squared_difference_of_centred_maps() -> None:
    x, y = draw(1, 3, 4, 5, seed=0), draw(1, 3, 4, 5, seed=1)
    centred = [z - z.mean((2, 3), keepdim=True) for z in (x, y)]
    expected = (centred[0] - centred[1]).square().mean() / 2
    found = channel_divergence(x, y, temperature=1e4)
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_gradient_follows_the_formula_and_agrees_with_finite_differences() -> None:
    x, y = draw(2, 3, 2, 4, seed=0).requires_grad_(), draw(2, 3, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: channel_divergence(s, y.detach(), temperature=3.0), (x,))
    channel_divergence(x, y, temperature=3.0).sum().backward()
    p, q = ((z.detach() / 3).flatten(2).softmax(2).view_as(z) for z in (x, y))
    assert x.grad is not None and y.grad is None
    torch.testing.assert_close(x.grad, 3 * (p - q) / 3)  # T (p - q) / C


def test_a_teacher_that_agrees_asks_for_nothing() -> None:
    student = random_outputs(1)
    found = CWD(Figures(), Figures())(student, random_outputs(1), targets_at())
    assert found.item() == 0
    for gradient in torch.autograd.grad(found, student.features):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


def test_the_batch_may_be_doubled(of_images: Pick) -> None:
    student, teacher, loss = random_outputs(1), random_outputs(2), CWD(Figures(), Figures())
    twice = loss(of_images(student, [0, 1, 0, 1]), of_images(teacher, [0, 1, 0, 1]), targets_at(images=4))
    torch.testing.assert_close(twice, loss(student, teacher, targets_at()))


def test_half_precision_is_widened_before_anything_else() -> None:
    student, teacher = (
        Outputs([x.detach().bfloat16() for x in o.features]) for o in (random_outputs(1), random_outputs(2))
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = CWD(Figures(), Figures())(student, teacher, targets_at())
    exact = (Outputs([x.double() for x in o.features]) for o in (student, teacher))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), CWD(Figures(), Figures())(*exact, targets_at()), rtol=1e-5, atol=0)


def test_a_narrower_student_is_made_as_wide_and_its_adapters_learn() -> None:
    loss = CWD(Figures(channels=4), Figures(channels=6)).double()
    student = random_outputs(1)
    teacher = Outputs([draw(2, 6, 2, 3, seed=0), draw(2, 6, 1, 2, seed=1)])
    loss(student, teacher, targets_at()).backward()
    weights = [p for name, p in loss.named_parameters() if name.endswith("weight")]
    assert len(weights) == 2 and all(p.grad is not None and p.grad.abs().sum() > 0 for p in weights)
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in student.features)


def test_class_logits_have_no_adapter_and_must_be_as_many() -> None:
    assert not list(CWD(Figures(channels=4), Figures(channels=6), source="cls").parameters())
    with pytest.raises(Invalid, match=r"number of classes.*3.*80"):
        CWD(Figures(), Figures(num_classes=80), source="cls")
    with pytest.raises(Invalid, match=r"number of predictions a cell.*9.*1"):
        CWD(Figures(anchors=9), Figures(), source="cls")
    with pytest.raises(Invalid, match=r"the teacher has none: .* such as PKD"):
        CWD(Figures(), Figures(anchors=0), source="cls")


def test_features_are_compared_between_any_detectors_with_equal_cells() -> None:
    CWD(Figures(anchors=0, num_classes=80), Figures())
    with pytest.raises(Invalid, match=r"strides of the levels"):
        CWD(Figures(strides=(4, 8)), Figures())


def test_nothing_asks_the_device_for_a_value() -> None:
    # Tensors on `meta` have shapes but no values: reading one raises.
    with torch.device("meta"):
        loss = CWD(Figures(channels=4), Figures(channels=6))
    student, teacher = (
        Outputs([torch.empty(2, n, 2, 3, device="meta"), torch.empty(2, n, 1, 2, device="meta")]) for n in (4, 6)
    )
    assert loss(student, teacher, targets_at()).shape == ()


@pytest.mark.parametrize("args", [{"temperature": 0.5}, {"weight": -1}, {"source": "logits"}, {"levels": [-1]}])
def test_a_study_with_an_argument_out_of_range_is_refused_at_that_argument(args: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refusal:
        Call(name="CWD", args=args).complete(distill)
    assert refusal.value.where == ("CWD", *args)
