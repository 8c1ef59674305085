"""A backbone that looks at the image at half its size, and brings its maps back to the cells of the whole one.

Li, Jin and Yan, "Mimicking Very Efficient Network for Object Detection", CVPR 2017,
https://openaccess.thecvf.com/content_cvpr_2017/html/Li_Mimicking_Very_Efficient_CVPR_2017_paper.html
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.backbones.features import cropped
from trainers.backbones.staged import Staged
from trainers.call import Call

TENT = (0.25, 0.75, 0.75, 0.25)  # what bilinear enlargement by two gives to the four cells around each of the smaller


class Halved(Staged):
    """The named backbone on half the height and width, and a deconvolution that doubles each of its maps.

    Strides, channels and numbers of cells are those of the backbone on the whole image, so the same detector and the
    same losses fit, for about a quarter of the backbone's FLOPs. The deconvolutions learn, and stay when the student
    has learnt. They start as bilinear enlargement, each channel by itself. `depthwise`: channels stay apart. Else
    every channel reads every other, with so many FLOPs that a wide backbone is not cheaper than on the whole image.

    The paper doubles the last map, the only one that its detector reads; the kernel of 4 cells is a choice here.
    """

    def __init__(self, *, backbone: Call, depthwise: bool = True) -> None:
        super().__init__()
        from trainers import backbones  # among which this one is

        self.inner: Any = Call.model_validate(backbone).of(backbones)
        self.channels, self.strides = self.inner.channels, self.inner.strides
        self.ups = nn.ModuleList(doubling(c, depthwise=depthwise) for c in self.channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> a map for each stride, of ceil(H / stride) by ceil(W / stride) cells."""
        # Each pixel is the mean of four, as in bilinear halving; at an odd end of those that there are.
        half = F.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)
        maps = [up(x) for up, x in zip(self.ups, self.inner(half), strict=True)]
        return cropped(maps, self.strides, images)

    def parts(self) -> list[nn.Module]:
        return [*self.inner.parts(), self.ups]


def doubling(channels: int, *, depthwise: bool) -> nn.Module:
    """A deconvolution from (B, C, H, W) to (B, C, 2 H, 2 W) that starts as bilinear enlargement."""
    up = nn.ConvTranspose2d(channels, channels, 4, 2, 1, groups=channels if depthwise else 1)
    tent = torch.tensor(TENT, device=up.weight.device)
    with torch.no_grad():
        up.weight.zero_()
        own = torch.arange(channels, device=up.weight.device)
        up.weight[own, 0 if depthwise else own] = tent[:, None] * tent
    assert up.bias is not None
    nn.init.zeros_(up.bias)
    return up
