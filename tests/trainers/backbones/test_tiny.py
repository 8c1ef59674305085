"""TinyResNet: its knobs, and what group norm is for."""

import pytest
import torch

from trainers import backbones
from trainers.backbones import TinyResNet
from trainers.call import Call, Invalid


def test_group_norm_sees_each_image_alone_in_training_and_in_evaluation() -> None:
    torch.manual_seed(0)
    backbone = TinyResNet(width=8).train()
    images = torch.rand(4, 3, 32, 32)
    together = backbone(images)
    alone = backbone.eval()(images[2:3])
    for x, y in zip(together, alone, strict=True):
        torch.testing.assert_close(x[2:3], y, rtol=1e-4, atol=1e-5)


def test_batch_norm_does_not_and_can_be_chosen() -> None:
    torch.manual_seed(0)
    backbone = TinyResNet(width=8, norm="batch").train()
    images = torch.rand(4, 3, 32, 32)
    assert (backbone(images)[0][2:3] - backbone(images[2:3])[0]).abs().max() > 0.01


def test_more_blocks_are_more_layers_of_the_same_shape() -> None:
    one, two = TinyResNet(width=8), TinyResNet(width=8, blocks=2)
    assert len([m for m in two.modules() if isinstance(m, torch.nn.Conv2d)]) == 6 + len(
        [m for m in one.modules() if isinstance(m, torch.nn.Conv2d)]
    )
    assert one.channels == two.channels == (8, 16, 32)


def test_no_convolution_of_one_cell_has_a_stride() -> None:
    """On channels-last input its backward pass corrupts the heap: torch 2.12.1, 8 channels, 64x64, AVX-512."""
    for module in TinyResNet(width=8, blocks=2).modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (1, 1):
            assert module.stride == (1, 1)


@pytest.mark.parametrize("args", [{"width": 0}, {"blocks": 0}, {"norm": "layer"}])
def test_knobs_out_of_range_are_refused(args: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Call(name="TinyResNet", args=args).complete(backbones)
