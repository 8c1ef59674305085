"""Deformable convolutions against a literal one, and everywhere that a convolution can be."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.backbones.deformable import Deformable

MODULATED = pytest.mark.parametrize("modulated", [False, True])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def moving(conv: nn.Conv2d, *, modulated: bool, far: float = 1.0) -> Deformable:
    """Its points move by some cells, as `far` and the input say."""
    deformable = Deformable(conv, modulated=modulated)
    nn.init.normal_(deformable.conv_offset.weight, std=far * deformable.conv_offset.weight[0].numel() ** -0.5)
    nn.init.normal_(deformable.conv_offset.bias, std=far)
    return deformable


def read(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What lies at fractional cells, 0 outside of the map. (B, C, H, W), (B, h, w) twice -> (B, C, h, w)."""
    height, width = x.shape[-2:]
    # With `align_corners` -1 and 1 are the centres of the first and of the last cell.
    grid = torch.stack((2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1), dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def literally(deformable: Deformable, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Point by point: move, read, modulate, and weigh in each group."""
    moves = deformable.conv_offset(x)
    high, wide = conv.kernel_size
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in moves.shape[-2:]), indexing="ij")
    result = torch.zeros(())
    for point in range(high * wide):
        i, j = point // wide, point % wide
        down, right = moves[:, 2 * point], moves[:, 2 * point + 1]
        there = read(
            x,
            rows * conv.stride[0] - conv.padding[0] + i * conv.dilation[0] + down,
            columns * conv.stride[1] - conv.padding[1] + j * conv.dilation[1] + right,
        )
        if deformable.modulated:
            there = there * torch.sigmoid(moves[:, 2 * high * wide + point, None])
        parts = zip(there.chunk(conv.groups, 1), conv.weight[:, :, i, j].chunk(conv.groups), strict=True)
        result = result + torch.cat([torch.einsum("bchw,kc->bkhw", part, weight) for part, weight in parts], dim=1)
    return result if conv.bias is None else result + conv.bias[:, None, None]


@MODULATED
@pytest.mark.parametrize("far", [0.3, 4.0])  # cells; the farther ones leave the map
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False, groups=2),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(2, 3, (3, 5), stride=(1, 2), padding=(0, 2)),
    ],
    ids=["plain", "strided in groups", "dilated", "oblong"],
)
def test_it_computes_a_deformable_convolution_and_its_gradients(conv: nn.Conv2d, far: float, modulated: bool) -> None:
    deformable = moving(conv, modulated=modulated, far=far)
    x = torch.rand(2, conv.in_channels, 9, 8, requires_grad=True)
    found, expected = deformable(x), literally(deformable, conv, x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.rand_like(found)
    inputs = [x, *deformable.parameters()]
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    for gradient, reference in zip(gradients, torch.autograd.grad((expected * weight).sum(), inputs), strict=True):
        assert reference.any()
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4)


@MODULATED
@pytest.mark.parametrize("stride", [1, 2])
def test_at_first_no_point_moves_and_all_count_alike(stride: int, modulated: bool) -> None:
    conv = nn.Conv2d(4, 6, 3, stride, 1, bias=False, groups=2)
    x = torch.randn(2, 4, 7, 10)
    torch.testing.assert_close(Deformable(conv, modulated=modulated)(x), conv(x) * (0.5 if modulated else 1.0))


@pytest.mark.parametrize(("modulated", "channels"), [(False, 18), (True, 27)])
def test_its_state_has_the_names_and_shapes_of_mmcvs(modulated: bool, channels: int) -> None:
    state = Deformable(nn.Conv2d(8, 6, 3, groups=2, bias=False), modulated=modulated).state_dict()
    assert {name: tuple(x.shape) for name, x in state.items()} == {
        "weight": (6, 4, 3, 3),
        "conv_offset.weight": (channels, 8, 3, 3),  # of all channels, whatever the groups
        "conv_offset.bias": (channels,),
    }


def test_a_copy_has_weights_of_its_own() -> None:
    deformable = Deformable(nn.Conv2d(4, 4, 3), modulated=True)
    twin = copy.deepcopy(deformable)
    nn.init.ones_(twin.weight)
    assert not torch.equal(deformable.weight, twin.weight)


@MODULATED
def test_it_has_a_shape_without_data(modulated: bool) -> None:
    with torch.device("meta"):
        deformable = Deformable(nn.Conv2d(4, 6, 3, 2, 1), modulated=modulated)
        assert deformable(torch.zeros(2, 4, 9, 8)).shape == (2, 6, 5, 4)
    on_meta = Deformable(nn.Conv2d(4, 6, 3, device="meta"), modulated=modulated)
    assert all(p.is_meta for p in on_meta.parameters())


@MODULATED
def test_under_autocast_it_computes_in_float32(modulated: bool) -> None:
    deformable = Deformable(nn.Conv2d(4, 6, 3, padding=1), modulated=modulated)
    with torch.no_grad():  # numbers that bfloat16 has
        deformable.conv_offset.bias[:18] = torch.arange(18) / 4 - 2
    x = torch.randn(2, 4, 7, 10).bfloat16()
    expected = deformable(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(deformable(x.float()), expected)
        low = deformable(x)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, expected.bfloat16())


@MODULATED
def test_under_autocast_everything_learns(modulated: bool) -> None:
    deformable = moving(nn.Conv2d(4, 6, 3, padding=1), modulated=modulated)
    x = torch.randn(2, 4, 7, 10).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = deformable(x).float().square().mean()
    loss.backward()
    for tensor in (x, *deformable.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


@MODULATED
def test_its_graph_takes_batches_of_any_length(modulated: bool) -> None:
    deformable = moving(nn.Conv2d(4, 6, 3, padding=1), modulated=modulated).eval()
    batch = {0: torch.export.Dim("batch", min=1)}
    graph = torch.export.export(deformable, (torch.rand(2, 4, 6, 5),), dynamic_shapes=(batch,)).module()
    for length in (1, 3):
        x = torch.rand(length, 4, 6, 5)
        torch.testing.assert_close(graph(x), deformable(x))
