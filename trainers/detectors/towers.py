"""The towers of a one-stage head: so that what one head says in the middle can be finished by another."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import Tensor, nn
from torch.nn import functional as F


def parts(tower: nn.Sequential) -> list[list[nn.Module]]:
    """Each convolution with the norm that follows it, whether a tower lists its layers flat or in blocks.

    Behind each stands a ReLU, which is left out.
    """
    found: list[list[nn.Module]] = []
    waiting: list[nn.Module] = []
    for layer in layers(tower):
        if isinstance(layer, nn.ReLU):
            found.append(waiting)
            waiting = []
        else:
            waiting.append(layer)
    assert not waiting, "a tower ends with a ReLU"
    return found


def layers(tower: nn.Sequential) -> Iterator[nn.Module]:
    """What a tower is made of, without its blocks."""
    for layer in tower:
        if isinstance(layer, nn.Sequential):
            yield from layers(layer)
        else:
            yield layer


def climb(
    tower: nn.Sequential, levels: list[Tensor], *, after: int = 0, keep: Collection[int] = ()
) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
    """What a tower makes of maps that have seen so many of its convolutions, each L of (B, C, H, W).

    -> its end, and for each of `keep` what it says after so many convolutions, before their ReLU. All else is let go
    level by level.
    """
    convs = parts(tower)
    ends: list[Tensor] = []
    kept: dict[int, list[Tensor]] = {number: [] for number in keep}
    for x in levels:
        for number in range(after, len(convs) + 1):
            if number > after:
                for layer in convs[number - 1]:
                    x = layer(x)
            if number in kept:
                kept[number].append(x)
            if number:
                x = F.relu(x, inplace=number > after and number not in kept)
        ends.append(x)
    return ends, kept


def both(
    cls_tower: nn.Sequential, box_tower: nn.Sequential, features: list[Tensor], keep: Collection[int]
) -> tuple[list[Tensor], list[Tensor], dict[int, tuple[list[Tensor], list[Tensor]]]]:
    """The ends of a head's two towers, and what both say after each of `keep` convolutions: `Outputs.towers`."""
    cls, cls_kept = climb(cls_tower, features, keep=keep)
    box, box_kept = climb(box_tower, features, keep=keep)
    return cls, box, {number: (cls_kept[number], box_kept[number]) for number in keep}
