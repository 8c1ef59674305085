"""Batch norm with the statistics of all workers, so that a batch is normalised as one worker would.

As torch's SyncBatchNorm, which refuses a CPU. Ioffe and Szegedy, "Batch Normalization", ICML 2015,
https://arxiv.org/abs/1502.03167
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainers import workers


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm that, as long as it is live, takes mean and variance of the images of all workers."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training or workers.count() == 1:
            return super().forward(x)
        assert self.affine and self.momentum is not None, "the batch norms of all backbones are such"
        y, mean, variance, number = Normalised.apply(x, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * number / (number - 1).clamp(min=1), self.momentum)
        normalised: Tensor = y
        return normalised


class Normalised(torch.autograd.Function):
    """weight * (x - mean) / sqrt(variance + eps) + bias, with the mean and the variance of all workers' x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, H, W), (C,), (C,) -> the result, mean (C,), variance (C,), and of how many numbers each () is."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own = torch.cat([wide.sum((0, 2, 3)), wide.new_full((1,), x.numel() // x.shape[1])])  # sums, and of how many
        sums, number = workers.total(own).split([x.shape[1], 1])
        number = number.squeeze()
        mean = sums / number
        centred = wide - mean[:, None, None]
        variance = workers.total(centred.square().sum((0, 2, 3))) / number
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, number)
        y = centred * (scale * weight)[:, None, None] + bias[:, None, None]
        ctx.mark_non_differentiable(mean, variance, number)
        return y.to(x.dtype), mean, variance, number

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Of the sum of all workers' losses at this one's x, and of its own at weight and bias."""
        x, weight, mean, scale, number = ctx.saved_tensors
        gradient = gradient.to(mean.dtype)
        normal = (x.to(mean.dtype) - mean[:, None, None]) * scale[:, None, None]
        own = torch.stack([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])  # (2, C)
        straight, along = (workers.total(own) / number)[:, :, None, None]
        of_x = (gradient - straight - normal * along) * (scale * weight)[:, None, None]
        return of_x.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None


def share_statistics(module: nn.Module) -> None:
    """Have all batch norms in a module, in place, share their statistics when they are live.

    They stay the objects that they are: others may hold them, as a backbone does that keeps some still.
    """
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = SharedBatchNorm
