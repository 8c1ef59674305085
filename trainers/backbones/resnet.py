"""ResNet without its classifier: feature maps of strides 8, 16 and 32.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainers.norm import Colours, freeze, still


class ResNet(nn.Module):
    """torchvision's layers under torchvision's names, so that its weights fit."""

    strides = (8, 16, 32)

    def __init__(self, *, depth: Literal[18, 34, 50, 101] = 50) -> None:
        super().__init__()
        from torchvision.models import get_model  # seconds to import, and a study may do without

        whole = get_model(f"resnet{depth}", weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2 = whole.layer1, whole.layer2
        self.layer3, self.layer4 = whole.layer3, whole.layer4
        widest = whole.fc.in_features
        self.channels = (widest // 4, widest // 2, widest)
        self.colours = Colours()
        self.frozen: list[nn.Module] = []
        self.fixed = False

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> C3, C4, C5, of ceil(H / stride) by ceil(W / stride) cells."""
        x = self.relu(self.bn1(self.conv1(self.colours(images))))
        c3 = self.layer2(self.layer1(self.maxpool(x)))
        c4 = self.layer3(c3)
        return [c3, c4, self.layer4(c4)]

    def freeze(self, stages: int) -> None:
        """The stem and this many layers keep weights and statistics; 0: none do. Raises `Invalid` above 4.

        From 1 on the same as mmdetection's frozen_stages.
        """
        first = nn.ModuleList((self.conv1, self.bn1, self.layer1))
        self.frozen = freeze([first, self.layer2, self.layer3, self.layer4], stages)
        still(self.frozen)

    def fix_norm(self) -> None:
        """All batch norms keep their running statistics; gamma and beta learn where they are not frozen."""
        self.fixed = True
        still([self])

    def train(self, mode: bool = True) -> ResNet:
        """As always, but what keeps still stays so."""
        super().train(mode)
        still([self] if self.fixed else self.frozen)
        return self
