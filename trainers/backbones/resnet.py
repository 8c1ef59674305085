"""ResNet without its classifier: feature maps of strides 4, 8, 16 and 32.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainers.backbones.deformable import Deformable
from trainers.backbones.staged import Staged
from trainers.norm import Colours, Style

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # by depth

DCN = Literal["none", "v1", "v2"]
DCNFrom = Literal[3, 4, 5]


class Residual(Staged):
    """torchvision's layers under torchvision's names, so that its weights fit."""

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        depth: int,
        *,
        groups: int = 1,
        width: int = 64,
        dcn: DCN = "none",
        dcn_from: DCNFrom = 3,
        style: Style = "pytorch",
    ) -> None:
        """`groups` of the 3x3 convolutions, each of `width` channels in the first stage."""
        super().__init__()
        from torchvision.models import resnet  # seconds to import, and a study may do without

        block = resnet.BasicBlock if depth < 50 else resnet.Bottleneck
        whole = resnet.ResNet(block, list(BLOCKS[depth]), groups=groups, width_per_group=width)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2 = whole.layer1, whole.layer2
        self.layer3, self.layer4 = whole.layer3, whole.layer4
        widest = whole.fc.in_features
        self.channels = (widest // 8, widest // 4, widest // 2, widest)
        self.colours = Colours(style)
        for stage, layer in enumerate((self.layer2, self.layer3, self.layer4), start=3):
            first = layer[0]
            if style != "pytorch":  # of two convolutions the first has the stride anyway
                first.conv1.stride, first.conv2.stride = (2, 2), (1, 1)
            if dcn != "none" and stage >= dcn_from:
                for block in layer:
                    block.conv2 = Deformable(block.conv2, modulated=dcn == "v2")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> C2, C3, C4, C5, of ceil(H / stride) by ceil(W / stride) cells."""
        # Laid out as the weights are, which a CPU never has channels last: there, with AVX-512, the backward pass of a
        # 1x1 convolution with a stride corrupts the heap (torch 2.12.1).
        last = images.device.type != "cpu" and not self.conv1.weight.is_contiguous()
        x = self.colours(images).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c2, c3, c4, self.layer4(c4)]

    def parts(self) -> list[nn.Module]:
        """Freezing n of them is mmdetection's `frozen_stages` of n."""
        return [nn.ModuleList((self.conv1, self.bn1, self.layer1)), self.layer2, self.layer3, self.layer4]


class ResNet(Residual):
    """`dcn` makes the second convolution of every block deformable, and with `v2` modulated too, in C3 to C5 or from
    the later map on that `dcn_from` says.

    `style` is whose weights fit: torchvision's, or Caffe's, which halve a map in a bottleneck's first convolution
    instead of its second and read other colours. Those of Detectron, the first one, are Caffe's with other means.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        dcn: DCN = "none",
        dcn_from: DCNFrom = 3,
        style: Style = "pytorch",
    ) -> None:
        super().__init__(depth, dcn=dcn, dcn_from=dcn_from, style=style)
