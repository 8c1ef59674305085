"""How the weights of a head start that has no norms to keep what passes through it in size."""

from __future__ import annotations

PUBLISHED = 256  # channels of the heads that the papers start with a deviation of 0.01


def spread(channels: int) -> float:
    """The standard deviation of the first weights: as published, and at other widths such that as much passes through.

    0.01 at 32 channels would leave next to nothing of an image behind a few convolutions.
    """
    return 0.01 * (PUBLISHED / channels) ** 0.5
