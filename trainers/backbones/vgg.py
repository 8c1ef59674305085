"""VGG without its classifier: feature maps of strides 4, 8, 16 and 32.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from trainers.backbones.features import between, cropped, maps_at, padded
from trainers.backbones.staged import Staged
from trainers.call import Count
from trainers.norm import Colours

BLOCKS = ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))  # of depth 11: channels and convolutions before each pooling
DEEPER = {11: 0, 16: 1}  # convolutions that each block has more


class VGG(Staged):
    """torchvision's layers under torchvision's names (`features.*`); its weights fit where `divide` is 1.

    The maps are what the third, fourth and fifth block give before their poolings, and the last pooling. Every
    convolution has its channels divided by `divide`, rounded up.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self, *, depth: Literal[11, 16] = 16, norm: Literal["none", "batch"] = "none", divide: Count = 1
    ) -> None:
        super().__init__()
        from torchvision.models.vgg import make_layers  # seconds to import

        plan: list[int | str] = []
        for channels, convolutions in BLOCKS:
            plan += [-(-channels // divide)] * (convolutions + DEEPER[depth]) + ["M"]
        # Not the whole network: its classifier has 120 million weights to draw and to drop.
        self.features: nn.Sequential = make_layers(plan, batch_norm=norm == "batch")
        poolings = [i for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        self.ends = (*poolings[2:], len(self.features))
        *_, c3, c4, c5 = (-(-channels // divide) for channels, _ in BLOCKS)
        self.channels = (c3, c4, c5, c5)
        self.colours = Colours()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> four maps of ceil(H / stride) by ceil(W / stride) cells."""
        x = padded(self.colours(images), self.strides[-1])
        return cropped(maps_at(self.features, self.ends, x), self.strides, images)

    def parts(self) -> list[nn.Module]:
        """The last has no weights: after three, all is frozen."""
        return between(self.features, self.ends)
