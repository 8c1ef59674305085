"""Group norm for any width, whoever computes it, and the colours that a backbone expects."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trainers.norm import Colours, group_norm


@given(st.integers(1, 2048))
def test_groups_always_divide_the_channels(channels: int) -> None:
    norm = group_norm(channels)
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= 32


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 8), (32, 4), (16, 2), (24, 1), (8, 1), (3, 1)])
def test_a_group_has_about_eight_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_the_mean_colour_becomes_zero_and_nothing_is_saved() -> None:
    colours = Colours()
    image = torch.tensor([0.485, 0.456, 0.406 + 0.225]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(colours(image)[0, :, 1, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert not colours.state_dict()


def graph_of(norm: nn.Module, operators: set[str]) -> Callable[[Tensor], Tensor]:
    """The norm, compiled by nobody but noting its operators."""

    def note(module: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        operators.update(str(node.target) for node in module.graph.nodes)
        return module

    compiled: Callable[[Tensor], Tensor] = torch.compile(norm, backend=note, fullgraph=True)
    return compiled


@pytest.mark.parametrize("shape", [(2, 16, 6, 5), (1, 24, 1, 1), (3, 64, 7, 1)], ids=str)
def test_where_it_is_compiled_it_is_torchs_group_norm_and_turns_no_map_round(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    norm = group_norm(shape[1]).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (3 + torch.randn(shape, dtype=torch.float64)).contiguous(memory_format=torch.channels_last)
    operators: set[str] = set()
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    ours, theirs = graph_of(norm, operators)(found), nn.GroupNorm.forward(norm, expected)
    torch.testing.assert_close(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape, dtype=torch.float64)
    for mine, its in zip(
        torch.autograd.grad((ours * weight).sum(), [found, *norm.parameters()]),
        torch.autograd.grad((theirs * weight).sum(), [expected, *norm.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)
    assert not any("group_norm" in name for name in operators), "torch's own turns maps round"


def test_a_far_mean_costs_no_more_digits_than_torchs() -> None:
    norm, x = group_norm(16), 1000 + torch.randn(2, 16, 8, 8)
    exact = nn.GroupNorm.forward(norm.double(), x.double()).float()
    norm.float()
    ours, theirs = graph_of(norm, set())(x), nn.GroupNorm.forward(norm, x)
    assert (ours - exact).abs().max() <= 4 * (theirs - exact).abs().max() + 1e-4


def test_under_autocast_it_is_computed_in_float32() -> None:
    norm, x = group_norm(16), torch.randn(2, 16, 6, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = graph_of(norm, set())(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, nn.GroupNorm.forward(norm, x.float()))


def test_an_exported_graph_has_torchs_group_norm() -> None:
    exported = torch.export.export(group_norm(16), (torch.randn(2, 16, 6, 5),))
    assert any("group_norm" in str(node.target) for node in exported.graph.nodes)
