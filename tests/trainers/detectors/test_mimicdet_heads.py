"""MimicDet's heads: from which level and pixel each reads, and the sizes of the paper."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.detectors.mimicdet_heads import Guided, Said, SHead, THead, pixels, regions
from trainers.outputs import rows


def test_a_pixel_is_the_anchors_own_cell_on_its_own_level() -> None:
    levels = [torch.randn(2, 5, 4, 6), torch.randn(2, 5, 2, 3)]
    cells = [
        (b, n, i, j)
        for b in range(2)
        for n, x in enumerate(levels)
        for i in range(x.shape[2])
        for j in range(x.shape[3])
    ]
    row = torch.randperm(len(cells))
    wanted = torch.stack([levels[n][b, :, i, j] for b, n, i, j in (cells[r] for r in row.tolist())])
    assert torch.equal(pixels(levels, row), wanted)
    assert torch.equal(pixels(levels, row), rows(levels)[row])
    assert pixels(levels, row[:0]).shape == (0, 5)


def test_regions_of_an_anchors_level_come_from_the_map_one_finer() -> None:
    """The T-head's maps are P2, P3 and P4 of strides 4, 8 and 16; anchors of level 0, 1 and 2 are those of P3 to P5."""
    pyramid = [torch.full((2, 3, 32 >> n, 32 >> n), float(n + 2)) for n in range(3)]
    pyramid = [x + 10 * torch.arange(2)[:, None, None, None] for x in pyramid]  # and of the second image 10 more
    level, image = torch.tensor([2, 0, 1, 0]), torch.tensor([0, 1, 1, 0])
    boxes = torch.tensor([[20.0, 20, 90, 90]]).expand(4, -1)
    found = regions(pyramid, (4, 8, 16), level, image, boxes)
    assert found.shape == (4, 3, 7, 7)
    assert found.mean((1, 2, 3)).tolist() == pytest.approx([4, 12, 13, 2])


def test_regions_are_cut_out_where_their_box_lies() -> None:
    """On a ramp, whose pixel (i, j) covers the image's pixels from stride * j on and says where its middle is."""
    strides = (4, 8)
    pyramid = [((torch.arange(128 // s) + 0.5) * s).expand(1, 1, 128 // s, -1) for s in strides]
    box = torch.tensor([[30.0, 40, 72, 100], [20.0, 8, 104, 90]])
    found = regions(pyramid, strides, torch.tensor([0, 1]), torch.tensor([0, 0]), box)
    for region, (x1, _, x2, _) in zip(found, box.tolist(), strict=True):
        wanted = torch.tensor([x1 + (x2 - x1) * (k + 0.5) / 7 for k in range(7)])
        torch.testing.assert_close(region[0], wanted.expand(7, -1))


def test_no_region_is_no_region_but_reaches_every_map() -> None:
    pyramid = [torch.randn(1, 3, 8 >> n, 8 >> n).requires_grad_() for n in range(2)]
    none = torch.zeros(0, dtype=torch.long)
    found = regions(pyramid, (4, 8), none, none, torch.zeros(0, 4))
    assert found.shape == (0, 3, 7, 7)
    found.sum().backward()
    assert all(x.grad is not None for x in pyramid)


def quiet(guided: Guided, shift: tuple[float, float] = (0.0, 0.0)) -> Guided:
    """All offsets are the same (down, right)."""
    last = guided.offsets[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor(shift).repeat(len(last.bias) // 2))
    return guided


@pytest.mark.parametrize("size", [3, 5])
def test_without_offsets_it_is_a_convolution_and_with_them_it_looks_elsewhere(size: int) -> None:
    torch.manual_seed(0)
    x, delta = torch.randn(2, 4, 9, 11), torch.randn(2, 4, 9, 11)
    guided = quiet(Guided(4, size))
    torch.testing.assert_close(guided(x, delta), F.relu(guided.conv(x)), rtol=1e-4, atol=1e-5)
    moved = quiet(guided, (1.0, -2.0))(x, delta)
    there = F.relu(guided.conv(x)).roll((-1, 2), (2, 3))  # at (i, j) what was at (i + 1, j - 2)
    torch.testing.assert_close(moved[:, :, 4:-4, 4:-4], there[:, :, 4:-4, 4:-4], rtol=1e-4, atol=1e-5)


def test_under_autocast_positions_stay_float32() -> None:
    torch.manual_seed(0)
    guided = Guided(4, 3)
    x, delta = torch.randn(1, 4, 9, 9), torch.randn(1, 4, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = guided(x, delta)
        half = guided(x.bfloat16(), delta)
    assert found.dtype == torch.float32 and half.dtype == torch.bfloat16
    torch.testing.assert_close(found, guided(x, delta), rtol=0.05, atol=0.05)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in module.named_parameters() if name.endswith("weight")}


def test_the_heads_have_the_widths_of_the_paper() -> None:
    with torch.device("meta"):
        t_head, s_head = THead(256, 80, hidden=1024, convs=4), SHead(256, 80, hidden=1024, levels=5)
        found = t_head(torch.zeros(7, 256, 7, 7))
        said = s_head(
            [torch.zeros(2, 256, 8, 8), torch.zeros(2, 256, 4, 4)], [torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 4, 4)]
        )
    assert shapes(t_head) == {
        "cls_tower.1.weight": (1024, 256 * 7 * 7),
        "cls_tower.3.weight": (1024, 1024),
        **{f"box_tower.{2 * n}.weight": (256, 256, 3, 3) for n in range(4)},
        "box_tower.9.weight": (1024, 256 * 7 * 7),
        "cls.weight": (81, 1024),
        "box.weight": (4, 1024),
    }
    micro = {"0": (64, 4, 1, 1), "2": (128, 64, 1, 1)}
    assert shapes(s_head) == {
        **{f"finest.offsets.{n}.weight": shape for n, shape in {**micro, "4": (18, 128, 1, 1)}.items()},
        "finest.conv.weight": (256, 256, 3, 3),
        **{f"coarser.offsets.{n}.weight": shape for n, shape in {**micro, "4": (50, 128, 1, 1)}.items()},
        "coarser.conv.weight": (256, 256, 5, 5),
        "cls_tower.0.weight": (1024, 256, 1, 1),
        "box_tower.0.weight": (1024, 256, 1, 1),
        "cls.weight": (81, 1024, 1, 1),
        "box.weight": (4, 1024, 1, 1),
    }
    assert [tuple(x.shape) for x in found] == [(7, 81), (7, 4), (7, 1024), (7, 1024)]
    widths = dict(zip(Said._fields, (81, 4, 1024, 1024), strict=True))
    for name, levels in said.items():
        assert [tuple(x.shape) for x in levels] == [(2, widths[name], 8, 8), (2, widths[name], 4, 4)]


def test_a_pyramid_of_one_level_has_no_convolution_for_others() -> None:
    head = SHead(4, 3, hidden=8, levels=1)
    assert not [name for name, _ in head.named_parameters() if name.startswith("coarser")]
    assert head([torch.randn(1, 4, 5, 5)], [torch.randn(1, 4, 5, 5)])["cls"][0].shape == (1, 4, 5, 5)


def test_both_heads_start_with_equal_classes_and_unmoved_boxes() -> None:
    torch.manual_seed(0)
    t_head, s_head = THead(16, 3, hidden=32, convs=1), SHead(16, 3, hidden=32, levels=1)
    taught = t_head(torch.randn(5, 16, 7, 7))
    said = s_head([torch.randn(1, 16, 5, 5)], [torch.randn(1, 4, 5, 5)])

    def unsure(logits: Tensor, dim: int) -> None:
        torch.testing.assert_close(logits.softmax(dim), torch.full_like(logits, 0.25), atol=0.1, rtol=0)

    unsure(taught.cls, 1)
    unsure(said["cls"][0], 1)
    assert taught.box.abs().max() < 0.05 and said["box"][0].abs().max() < 0.05
