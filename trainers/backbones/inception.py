"""GoogLeNet with batch norm and without its classifiers: feature maps of strides 4, 8, 16 and 32; and narrower ones.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, https://arxiv.org/abs/1409.4842, and for the 1/n-Inception
Li, Jin and Yan, "Mimicking Very Efficient Network for Object Detection", CVPR 2017,
https://openaccess.thecvf.com/content_cvpr_2017/html/Li_Mimicking_Very_Efficient_CVPR_2017_paper.html
"""

from __future__ import annotations

from torch import Tensor, nn

from trainers.backbones.features import cropped, padded
from trainers.backbones.staged import Staged
from trainers.call import Count

STEM = (64, 64, 192)  # channels of conv1 (7x7), conv2 (1x1) and conv3 (3x3)
# Table 1 of the paper: channels of the 1x1 branch, of the two convolutions of the 3x3 and of the 5x5 branch, and of
# the one after the pooling. The digit is the stage.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Inception(Staged):
    """torchvision's layers under torchvision's names; its weights fit where `divide` is 1.

    Every convolution has its channels divided by `divide`, rounded up. Li, Jin and Yan did not publish the layers of
    their Inception; here 1/n keeps the depth of GoogLeNet.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, *, divide: Count = 1) -> None:
        super().__init__()
        from torchvision.models.googlenet import BasicConv2d  # seconds to import
        from torchvision.models.googlenet import Inception as Branches

        first, second, last = (-(-width // divide) for width in STEM)
        self.conv1 = BasicConv2d(3, first, kernel_size=7, stride=2, padding=3)
        self.conv2 = BasicConv2d(first, second, kernel_size=1)
        self.conv3 = BasicConv2d(second, last, kernel_size=3, padding=1)
        ends = {"2": last}  # channels by stage
        for name, widths in MODULES.items():
            one, _, three, _, five, pool = divided = [-(-width // divide) for width in widths]
            self.add_module(f"inception{name}", Branches(last, *divided))
            last = ends[name[0]] = one + three + five + pool
        self.channels = tuple(ends.values())
        self.maxpool1, self.maxpool2, self.maxpool3 = (nn.MaxPool2d(3, 2, ceil_mode=True) for _ in range(3))
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # torchvision's deviation of 0.01 at any width drowns in the norms' epsilon when there are few channels.
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> four maps of ceil(H / stride) by ceil(W / stride) cells."""
        # These weights came from TensorFlow: they read colours of -1..1, not those of the other networks here.
        x = self.conv1(padded(2 * images - 1, self.strides[-1]))
        maps = [self.conv3(self.conv2(self.maxpool1(x)))]
        for stage, pool in zip("345", (self.maxpool2, self.maxpool3, self.maxpool4), strict=True):
            x = pool(maps[-1])
            for module in self.stage(stage):
                x = module(x)
            maps.append(x)
        return cropped(maps, self.strides, images)

    def stage(self, digit: str) -> list[nn.Module]:
        """The modules of one resolution, in their order."""
        return [self.get_submodule(f"inception{name}") for name in MODULES if name.startswith(digit)]

    def parts(self) -> list[nn.Module]:
        stem = nn.ModuleList((self.conv1, self.conv2, self.conv3))
        return [stem, *(nn.ModuleList(self.stage(digit)) for digit in "345")]
