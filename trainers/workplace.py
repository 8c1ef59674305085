"""Where a stage is trained, who hears of it, and what is there for all stages that are trained together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trainers.asked import Asked
from trainers.clock import Clock
from trainers.data.batches import Batches
from trainers.feeding import Feed, Share
from trainers.pulse import Pulse

log = logging.getLogger(__name__)
Entry = dict[str, float]


class Shared:
    """What stages have in common that are trained in turn: data, guides and batches are there once."""

    def __init__(self) -> None:
        self.more_come = False  # whether somebody who may share has not begun
        self._kept: dict[Any, Any] = {}  # data and guides, by what they are
        self._feeds: dict[Any, Feed] = {}  # by what is in their batches
        self._guides: dict[Any, Asked] = {}  # by what they are, and how they are asked

    def once(self, which: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made for the first who asks."""
        if which not in self._kept:
            self._kept[which] = make()
        return self._kept[which]

    def guide(self, which: Any, make: Callable[[], Asked], clock: Clock, *, head: bool) -> Asked:
        """A guide, made for the first who asks for it. `head`: whether the one with this clock reads what its head
        says."""
        if which not in self._guides:
            self._guides[which] = make()
        guide = self._guides[which]
        if head:
            guide.read_by(clock)
        return guide

    def share(self, batches: Batches, clock: Clock, *, device: torch.device) -> Share:
        """Of these batches, or of equal ones that are there already."""
        say = batches.say
        if batches.kind not in self._feeds:
            self._feeds[batches.kind] = Feed(
                batches, device=device, more_come=lambda: self.more_come, all_forget=self.forget
            )
        return self._feeds[batches.kind].share(clock, say)

    def forget(self) -> None:
        """Keep nothing that guides said, of whatever batch."""
        for feed in self._feeds.values():
            feed.forget()

    def leave(self, clock: Clock) -> None:
        """A stage has ended."""
        for feed in self._feeds.values():
            feed.leave(clock)
        for guide in self._guides.values():
            guide.leave(clock)


@dataclass(frozen=True)
class Workplace:
    """`report` gets each epoch's entry once it can be resumed from, `stop` is asked between two steps, of which the
    last is kept, `wrap` makes the task data-parallel, `say` is told what the user should know, `pulse` beats with the
    steps, and `clock` stands when it is another stage's turn."""

    device: torch.device
    report: Callable[[Entry], None] = lambda entry: None
    stop: Callable[[], bool] = lambda: False
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module
    say: Callable[[str], None] = log.warning
    pulse: Pulse = field(default_factory=Pulse)
    shared: Shared = field(default_factory=Shared)
    clock: Clock = field(default_factory=Clock)
