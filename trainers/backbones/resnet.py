"""ResNet without its classifier: feature maps of strides 4, 8, 16 and 32.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainers.backbones.staged import Staged
from trainers.norm import Colours


class ResNet(Staged):
    """torchvision's layers under torchvision's names, so that its weights fit."""

    strides = (4, 8, 16, 32)

    def __init__(self, *, depth: Literal[18, 34, 50, 101] = 50) -> None:
        super().__init__()
        from torchvision.models import get_model  # seconds to import, and a study may do without

        whole = get_model(f"resnet{depth}", weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2 = whole.layer1, whole.layer2
        self.layer3, self.layer4 = whole.layer3, whole.layer4
        widest = whole.fc.in_features
        self.channels = (widest // 8, widest // 4, widest // 2, widest)
        self.colours = Colours()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> C2, C3, C4, C5, of ceil(H / stride) by ceil(W / stride) cells."""
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(self.colours(images))))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return [c2, c3, c4, self.layer4(c4)]

    def parts(self) -> list[nn.Module]:
        """Freezing n of them is mmdetection's `frozen_stages` of n."""
        return [nn.ModuleList((self.conv1, self.bn1, self.layer1)), self.layer2, self.layer3, self.layer4]
