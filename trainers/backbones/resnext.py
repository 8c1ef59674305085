"""ResNeXt without its classifier: ResNet with grouped convolutions, feature maps of strides 4, 8, 16 and 32.

Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017,
https://arxiv.org/abs/1611.05431
"""

from __future__ import annotations

from typing import Literal

from trainers.backbones.resnet import DCN, DCNFrom, Residual


class ResNeXt(Residual):
    """`cardinality` is groups x channels of a group in the first stage; `dcn` and `dcn_from` as in ResNet."""

    def __init__(
        self,
        *,
        depth: Literal[50, 101] = 101,
        cardinality: Literal["32x4d", "64x4d"] = "32x4d",
        dcn: DCN = "none",
        dcn_from: DCNFrom = 3,
    ) -> None:
        groups, width = (int(number) for number in cardinality.removesuffix("d").split("x"))
        super().__init__(depth, groups=groups, width=width, dcn=dcn, dcn_from=dcn_from)
