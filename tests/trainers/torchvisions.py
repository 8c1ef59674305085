"""torchvision's networks, made comparable: their weights under our names, and the images and batches of both."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from trainers.norm import MEAN

NAMES = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.inner_blocks\.(\d)\.0\.", r"neck.laterals.\1."),
    (r"^backbone\.fpn\.layer_blocks\.(\d)\.0\.", r"neck.outputs.\1."),
    (r"^backbone\.fpn\.extra_blocks\.p6\.", "neck.extras.0."),
    (r"^backbone\.fpn\.extra_blocks\.p7\.", "neck.extras.1."),
)


def our_name(name: str) -> str:
    """Of a weight of one of their detectors."""
    for pattern, ours in NAMES:
        name = re.sub(pattern, ours, name)
    return name


def renamed(state: dict[str, Any]) -> dict[str, Any]:
    return {our_name(name): value for name, value in state.items()}


def restless(model: nn.Module, low: float = 0.5, high: float = 1.5) -> nn.Module:
    """With statistics in its batch norms that a network does not start with, and in evaluation."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, low, high)
    return model.eval()


def pyramid(width: int, extra_in: int) -> BackboneWithFPN:
    """ResNet-18 from stride 8 on, and two extra levels: the first reads the last map (512 channels) or level."""
    layers = {f"layer{i}": str(i) for i in (2, 3, 4)}
    return BackboneWithFPN(resnet18(), layers, [128, 256, 512], width, extra_blocks=LastLevelP6P7(extra_in, width))


def learning(theirs: nn.Module) -> nn.Module:
    """In training, but for its batch norms, which stay as they are."""
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return theirs


def drawn(sizes: list[tuple[int, int]], padded: tuple[int, int], *, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Images as torchvision takes them, and as a batch: the padding is the mean colour, 0 for the network."""
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(3, *size, generator=generator) for size in sizes]
    batch = torch.tensor(MEAN).view(1, 3, 1, 1).repeat(len(sizes), 1, *padded)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return images, batch
