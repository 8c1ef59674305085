"""The towers of a one-stage head, step by step: so that what one head says in the middle can be finished by another."""

from __future__ import annotations

from torch import Tensor, nn

Steps = list[list[Tensor]]  # first the features, then after each convolution; each time L of (B, C, H, W)


def parts(tower: nn.Sequential) -> list[nn.Sequential]:
    """Each convolution with the norm and the ReLU that follow it, whether a tower lists them flat or in blocks."""
    found: list[nn.Sequential] = []
    waiting: list[nn.Module] = []
    for module in tower:
        waiting.append(module)
        if isinstance(module, nn.ReLU | nn.Sequential):
            found.append(nn.Sequential(*waiting))
            waiting = []
    assert not waiting, "a tower ends with a ReLU or a block"
    return found


def climb(tower: nn.Sequential, features: list[Tensor], *, after: int = 0) -> Steps:
    """What a tower says at each step, from maps after so many of its convolutions on; these come first."""
    steps = [features]
    for part in parts(tower)[after:]:
        steps.append([part(x) for x in steps[-1]])
    return steps
