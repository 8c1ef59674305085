"""What stands for a data set of which no file is read: enough to plan a study with, nothing to train on."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.call import Call


@dataclass(frozen=True)
class Unseen:
    """Training images as they are published: nothing is there but how many they are, and of what size."""

    images: int
    size: tuple[int, int]  # of a typical image: height, width
    has_masks: bool  # whether every object has a mask

    def __len__(self) -> int:
        return self.images

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Of the only image that is spoken of."""
        return [self.size]


@dataclass(frozen=True)
class Unread:
    """A data set as it is published; a folder of one's own may hold other classes, which nobody knows unread."""

    classes: tuple[str, ...]
    metric: Call
    train: Unseen
    fingerprint: str = ""  # nobody knows it
