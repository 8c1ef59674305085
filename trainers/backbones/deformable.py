"""Deformable convolutions: each point of the kernel reads where a second convolution, of the same input, moves it.

Dai et al., "Deformable Convolutional Networks", ICCV 2017, https://arxiv.org/abs/1703.06211, and, where they are
modulated, Zhu et al., "Deformable ConvNets v2", CVPR 2019, https://arxiv.org/abs/1811.11168
"""

from __future__ import annotations

import math
from typing import cast

from torch import Tensor, nn

Pair = tuple[int, int]


class Deformable(nn.Module):
    """A convolution made deformable, with its own weights, groups and stride; all groups share the offsets.

    `conv_offset` starts at zero: no point moves, and this computes what the convolution does. Modulated, each point
    also has a factor, the sigmoid of 0 at first: half of what the convolution does, its bias aside. Whoever draws the
    weights of all convolutions in a network does so before making any deformable.

    On CUDA the gradient adds up in any order: two trainings from one seed differ in the last digits.
    """

    def __init__(self, conv: nn.Conv2d, *, modulated: bool) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.modulated, self.points = modulated, math.prod(conv.kernel_size)
        self.conv_offset = nn.Conv2d(
            conv.in_channels,
            (3 if modulated else 2) * self.points,
            cast(Pair, conv.kernel_size),
            cast(Pair, conv.stride),
            cast(Pair, conv.padding),
            cast(Pair, conv.dilation),
            device=conv.weight.device,
        )
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """As of the convolution: (B, C, H, W) -> (B, C', H', W')."""
        from torchvision.ops import deform_conv2d  # seconds to import

        # For each point, row by row, how many cells down and right it moves; after these the factors of all points.
        # The order is mmcv's, so that its weights fit.
        moves = self.conv_offset(x).float()
        factors = moves[:, 2 * self.points :].sigmoid() if self.modulated else None
        # The kernels know no bfloat16; given float32 they compute in it, under autocast as well.
        y = deform_conv2d(
            x.float(),
            moves[:, : 2 * self.points],
            self.weight.float(),
            None if self.bias is None else self.bias.float(),
            self.stride,
            self.padding,
            self.dilation,
            factors,
        )
        return y.to(x.dtype)
