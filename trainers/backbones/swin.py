"""Swin Transformer without its classifier: feature maps of strides 4, 8, 16 and 32.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
https://arxiv.org/abs/2103.14030
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn

from trainers.backbones.features import between, maps_at, padded
from trainers.backbones.staged import Staged
from trainers.call import Fraction
from trainers.norm import Colours

PATCH = 4  # pixels a token of the first stage
ENDS = (2, 4, 6, 8)  # the layers: patches, then the blocks of four stages with a halving between any two


class Plan(NamedTuple):
    """What the sizes differ in."""

    channels: int  # of the first stage; each has twice those of the one before
    depths: tuple[int, int, int, int]  # blocks
    heads: tuple[int, int, int, int]
    window: int  # tokens a side


PLANS = {
    "micro": Plan(16, (2, 2, 2, 1), (1, 2, 4, 8), 4),  # ours
    "tiny": Plan(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "small": Plan(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "base": Plan(128, (2, 2, 18, 2), (4, 8, 16, 32), 7),
}


class Swin(Staged):
    """torchvision's layers under torchvision's names (`features.*`), so that its weights fit.

    As in detectors elsewhere, each map has a norm of its own: `norm0` to `norm3`. torchvision has the last only and
    calls it `norm`. `drop_path` is how often the last block is left out in training; the others are so less often, the
    first never. `micro` is not of the paper: 0.4 million weights for images of 64 to 128 pixels, where four windows of
    4 tokens span a side of 64 and shift in the first two stages. It learns the demo's digits from nothing in a minute
    (AdamW at a rate of 0.004).
    """

    strides = (4, 8, 16, 32)

    def __init__(self, *, size: Literal["micro", "tiny", "small", "base"] = "tiny", drop_path: Fraction = 0.2) -> None:
        super().__init__()
        from torchvision.models.swin_transformer import SwinTransformer  # seconds to import

        plan = PLANS[size]
        self.features: nn.Sequential = SwinTransformer(
            patch_size=[PATCH, PATCH],
            embed_dim=plan.channels,
            depths=list(plan.depths),
            num_heads=list(plan.heads),
            window_size=[plan.window, plan.window],
            stochastic_depth_prob=drop_path,
            num_classes=1,  # its classifier is dropped
        ).features
        self.channels = tuple(plan.channels * 2**i for i in range(4))
        self.norm0, self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(c) for c in self.channels)
        self.colours = Colours()

    @property
    def norms(self) -> list[nn.LayerNorm]:
        """Of the maps, finest first."""
        return [self.norm0, self.norm1, self.norm2, self.norm3]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images of 0..1, (B, 3, H, W) -> four maps of ceil(H / stride) by ceil(W / stride) cells."""
        # Whole patches; the halvings round up by themselves.
        found = maps_at(self.features, ENDS, padded(self.colours(images), PATCH))  # (B, H, W, C) each
        maps = [norm(x).permute(0, 3, 1, 2) for norm, x in zip(self.norms, found, strict=True)]  # (B, C, H, W)
        if self.training:
            # A detector may do without the finest maps, but DDP wants a gradient for their norms all the same.
            maps[-1] = maps[-1] + 0 * sum(p.sum() for norm in self.norms for p in norm.parameters())
        return maps

    def parts(self) -> list[nn.Module]:
        layers = between(self.features, ENDS)
        return [nn.ModuleList(both) for both in zip(layers, self.norms, strict=True)]
