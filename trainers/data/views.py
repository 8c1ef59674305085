"""What is made of an image before it is learnt from: sizes and places alone, without pixels."""

from __future__ import annotations

from typing import NamedTuple

from trainers.augment import Crop, Resize, drawn, drawn_between

Size = tuple[int, int]  # height, width, in pixels


class Chance(NamedTuple):
    """What is random about one image in one epoch, each a number of [0, 1). All zero: nothing is drawn."""

    flip: float = 0.0
    short: float = 0.0
    cut: float = 0.0
    cut_short: float = 0.0
    height: float = 0.0
    width: float = 0.0
    top: float = 0.0
    left: float = 0.0


class Window(NamedTuple):
    """A part of an image, in pixels of the image as it is then."""

    top: int
    left: int
    height: int
    width: int


class View(NamedTuple):
    """An image is resized to `first` and cut to `window`, if it is cut; resized to `size`; and mirrored."""

    size: Size
    mirrored: bool = False
    first: Size | None = None
    window: Window | None = None

    def scale(self, size: Size) -> tuple[float, float]:
        """(x, y): how many pixels one pixel of an image of this size becomes."""
        y, x = (end / start for end, start in zip(self.first or self.size, size, strict=True))
        if self.window is not None:
            y, x = y * self.size[0] / self.window.height, x * self.size[1] / self.window.width
        return x, y


class Look(NamedTuple):
    """What a recipe makes of all its images; `flip` is how often an image is mirrored."""

    resize: Resize | None = None
    crop: Crop | None = None
    flip: float = 0.0

    def at(self, size: Size, chance: Chance) -> View:
        """What it makes of an image of that size."""
        mirrored = chance.flip < self.flip
        if self.resize is None:
            return View(size, mirrored)
        long, first, window = self.resize.long, None, None
        if self.crop is not None and chance.cut < self.crop.chance:
            first = resized(size, drawn(self.crop.short, chance.cut_short), long)
            window = _window(first, self.crop.size, chance)
            size = window[2:]
        return View(resized(size, drawn(self.resize.short, chance.short), long), mirrored, first, window)

    @property
    def measuring(self) -> Look:
        """The same where nothing is trained: without chance, the short side as long as it may be drawn."""
        return Look(self.resize and self.resize.largest)


def _window(size: Size, ends: tuple[int, int], chance: Chance) -> Window:
    """Somewhere in an image of that size; each side drawn between these two lengths, or the image's own if smaller."""
    height, width = (
        drawn_between(min(ends[0], side), min(ends[1], side), part)
        for side, part in zip(size, (chance.height, chance.width), strict=True)
    )
    top = drawn_between(0, size[0] - height, chance.top)
    return Window(top, drawn_between(0, size[1] - width, chance.left), height, width)


def resized(size: Size, short: int, long: int) -> Size:
    """Scaled until the short side is right, or the long side as long as it may be; never below one pixel."""
    scale = min(short / min(size), long / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def canvas(sizes: list[Size], divisor: int) -> Size:
    """The height and width that hold all these images, in multiples of divisor."""
    height, width = (-(-max(sides) // divisor) * divisor for sides in zip(*sizes, strict=True))
    return height, width
