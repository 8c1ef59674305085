"""The feature pyramid: shapes, the top-down path and the extra levels."""

import pytest
import torch
from torch import Tensor, nn

from trainers.fpn import FPN


def transparent(fpn: FPN) -> FPN:
    """Laterals and outputs that change nothing."""
    for lateral in fpn.laterals:
        nn.init.dirac_(lateral.weight)
    for output in fpn.outputs:
        nn.init.dirac_(output.weight)
    return fpn


def maps(*sizes: tuple[int, int], channels: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(2, c, h, w) for c, (h, w) in zip(channels, sizes, strict=True)]


@pytest.mark.parametrize(
    "sizes", [((16, 16), (8, 8), (4, 4)), ((101, 167), (51, 84), (26, 42)), ((3, 1), (2, 1), (1, 1))]
)
def test_any_size_goes_through_even_odd_ones(sizes: tuple[tuple[int, int], ...]) -> None:
    pyramid = FPN((4, 8, 16), channels=6, extra=2)(maps(*sizes, channels=(4, 8, 16)))
    height, width = sizes[-1]
    fifth = ((height + 1) // 2, (width + 1) // 2)
    sixth = ((fifth[0] + 1) // 2, (fifth[1] + 1) // 2)
    assert [tuple(p.shape) for p in pyramid] == [(2, 6, *size) for size in (*sizes, fifth, sixth)]


def test_each_level_is_its_own_map_plus_all_coarser_ones_enlarged() -> None:
    fine, middle, coarse = maps((4, 4), (2, 2), (1, 1), channels=(3, 3, 3))
    pyramid = transparent(FPN((3, 3, 3), channels=3, extra=0))([fine, middle, coarse])
    enlarged = middle + coarse
    torch.testing.assert_close(pyramid[2], coarse)
    torch.testing.assert_close(pyramid[1], enlarged)
    torch.testing.assert_close(pyramid[0], fine + enlarged.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_extra_levels_come_from_the_last_output_without_an_activation() -> None:
    fpn = transparent(FPN((3,), channels=3, extra=2))
    for extra in fpn.extras:
        nn.init.dirac_(extra.weight)
    (x,) = maps((8, 8), channels=(3,))
    pyramid = fpn([x - 5])
    torch.testing.assert_close(pyramid[1], x[:, :, ::2, ::2] - 5)
    torch.testing.assert_close(pyramid[2], x[:, :, ::4, ::4] - 5)


def test_forward_leaves_the_maps_of_the_backbone_alone() -> None:
    given = maps((4, 4), (2, 2), channels=(3, 3))
    before = [x.clone() for x in given]
    FPN((3, 3), channels=3, extra=1)(given)
    for x, y in zip(given, before, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(("channels_in", "count"), [((512, 1024, 2048), 3_868_672), ((128, 256, 512), 3_180_544)])
def test_parameters_are_those_of_the_published_networks(channels_in: tuple[int, ...], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in FPN(channels_in).parameters()) == count
