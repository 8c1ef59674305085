"""MobileNetV2 and V3 without their classifiers: feature maps of strides 4, 8, 16 and 32.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, https://arxiv.org/abs/1801.04381
Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244

The coarsest map is after the last 1x1 convolution: 1280 channels in V2, 960 or 576 in V3. It belongs to `features`, so
all of torchvision's weights but the classifier's are of use, and detectors there and in the V3 paper read it as well.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainers.backbones.features import between, maps_at
from trainers.backbones.staged import Staged
from trainers.call import Positive
from trainers.norm import Colours


class MobileNet(Staged):
    """torchvision's layers under torchvision's names (`features.*`), so that its weights fit where `width` is 1."""

    strides = (4, 8, 16, 32)

    def __init__(self, name: str, width: float) -> None:
        super().__init__()
        from torchvision.models import get_model  # seconds to import

        self.features: nn.Sequential = get_model(name, weights=None, num_classes=1, width_mult=width).features
        # Five layers halve: the second one's map is of stride 4, and a map ends where the next halving begins.
        self.ends = (*[i for i, layer in enumerate(self.features) if halves(layer)][2:], len(self.features))
        self.channels = tuple(self.features[end - 1].out_channels for end in self.ends)
        self.colours = Colours()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> four maps of ceil(H / stride) by ceil(W / stride) cells."""
        return maps_at(self.features, self.ends, self.colours(images))

    def parts(self) -> list[nn.Module]:
        return between(self.features, self.ends)


class MobileNetV2(MobileNet):
    """All channels are multiplied by `width` and rounded to eights; the last 1280 only by more than 1."""

    def __init__(self, *, width: Positive = 1.0) -> None:
        super().__init__("mobilenet_v2", width)


class MobileNetV3(MobileNet):
    """All channels are multiplied by `width` and rounded to eights.

    Its squeeze-and-excitation averages over the whole image, what is padded to it included.
    """

    def __init__(self, *, size: Literal["small", "large"] = "large", width: Positive = 1.0) -> None:
        super().__init__(f"mobilenet_v3_{size}", width)


def halves(layer: nn.Module) -> bool:
    """Whether a map is half as fine after this layer."""
    return any(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in layer.modules())
