"""The towers of a one-stage head: so that what one head says in the middle can be finished by another."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn


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


def climb(
    tower: nn.Sequential, levels: list[Tensor], *, after: int = 0, keep: Collection[int] = ()
) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
    """What a tower makes of maps that have seen so many of its convolutions, each L of (B, C, H, W).

    -> its end, and for each of `keep` what it says after so many convolutions. All else is let go level by level.
    """
    convs = parts(tower)
    ends: list[Tensor] = []
    kept: dict[int, list[Tensor]] = {number: [] for number in keep}
    for x in levels:
        for number in range(after, len(convs) + 1):
            if number in kept:
                kept[number].append(x)
            if number < len(convs):
                x = convs[number](x)
        ends.append(x)
    return ends, kept


def both(
    cls_tower: nn.Sequential, box_tower: nn.Sequential, features: list[Tensor], keep: Collection[int]
) -> tuple[list[Tensor], list[Tensor], dict[int, tuple[list[Tensor], list[Tensor]]]]:
    """The ends of a head's two towers, and what both say after each of `keep` convolutions: `Outputs.towers`."""
    cls, cls_kept = climb(cls_tower, features, keep=keep)
    box, box_kept = climb(box_tower, features, keep=keep)
    return cls, box, {number: (cls_kept[number], box_kept[number]) for number in keep}
