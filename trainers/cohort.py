"""Stages that one process trains in turn, step by step: they share data, batches and what their guides say of them.

Or several workers do, of which each has its part of every stage and takes the same turns as the others.

Each gets exactly what it would have got alone: its own random numbers are put back whenever it is its turn, and
nothing else that it computes with is anybody else's. Whoever is furthest behind is next, so that those who begin at
different epochs come together and then go side by side.

A stage's peak of memory is that of the process since the last of them began. With `compile` a guide has graphs as early
as the first of them wants it to, and those who join later differ in their last bits.

"Furthest behind" also means that all who share a batch look at it before anybody asks for the next one. Each makes its
first step before the next one begins, who is to find measured what a step takes of memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from trainers import workers
from trainers.chance import Chance
from trainers.headroom import free, most, used
from trainers.loop import Stopped
from trainers.memory import is_of_memory
from trainers.order import Order
from trainers.result import Result
from trainers.turns import Turn, Wait
from trainers.worker import turns
from trainers.workplace import Shared, Workplace

BEGINNING = Turn(-1, 0)  # before anything that a training says of itself
SPARE = 0.1  # of the memory that is free, for what nobody has measured


class Crowded(RuntimeError):
    """There is no memory for a stage beside those that train already; it is to be trained elsewhere, or later."""


class Member:
    """One stage of a cohort."""

    def __init__(self, order: Order, here: Workplace) -> None:
        self.order, self.here = order, here
        self.work = turns(order, here)
        self.at = BEGINNING
        self.waits = 0.0  # until when, by the monotonic clock; 0: it does not
        self.chance: Chance | None = None  # as it left it
        self.took = 0  # bytes, the most at once of what comes on top of the others in a step
        here.clock.rest()

    @property
    def has_begun(self) -> bool:
        """Whether it has made its first step, or makes it now."""
        return self.at > BEGINNING

    def go(self, *, beside: int = 0) -> Result | None:
        """Take a turn; -> the result, after the last. Raises whatever the stage raises.

        `beside`: the bytes that others took, of which there must be as many to begin beside them: what the first has
        loaded for all is counted once more, so this one finds more than it needs. Raises `Crowded`.
        """
        if self.has_begun:
            return self._go()
        device = self.here.device
        if workers.anywhere(bool(beside) and beside > (1 - SPARE) * free(device), device=device):
            self.work.close()
            raise Crowded
        return self._begin()

    def _begin(self) -> Result | None:
        """Prepare and make the first step in one turn, so that it is known what a step takes when the next begins."""
        before = used(self.here.device)
        result = self._go()
        if not self.has_begun:
            return result  # it waits, or another run has trained it
        prepared = used(self.here.device)
        result = self._go()
        # What a first step leaves, gradients and moments, is there already when the second one is at its most.
        left = max(0, used(self.here.device) - prepared)
        self.took = max(0, most(self.here.device) - before + left)
        return result

    def _go(self) -> Result | None:
        if self.chance is not None:
            self.chance.put_back()
        self.here.clock.go()
        try:
            now = next(self.work)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            self.here.clock.rest()
            self.here.pulse.rest()  # no step of this one is to be expected
        self.chance = Chance(self.here.device)
        self.waits = time.monotonic() + now.seconds if isinstance(now, Wait) else 0.0
        if isinstance(now, Turn):
            self.at = now
        return None


AGREED = (Stopped, Crowded)  # what all workers of a stage come to in the same turn
Ended = Callable[[str, Result | BaseException], None]  # the key of a stage, and its result or why it has none


def train_together(orders: Sequence[Order], workplaces: Sequence[Workplace], ended: Ended) -> None:
    """Train stages, each for itself: that one fails, pauses or is finished leaves the others alone.

    `ended` is told of each. The workplaces have one device, and what is `shared` is made here. Where there are several
    workers an error is raised: others may wait for the one that met it, so all have to begin again, without its stage.
    """
    shared = Shared()
    members = [Member(order, replace(here, shared=shared)) for order, here in zip(orders, workplaces, strict=True)]
    try:
        while members:
            member = members[_next(members)]
            shared.more_come = any(one is not member and not one.has_begun for one in members)
            beside = max((one.took for one in members), default=0)
            if _is_over(member, ended, beside=beside, others=len(members) - 1):
                members.remove(member)
    finally:
        for member in members:
            member.work.close()  # gives its lease back


def _next(members: Sequence[Member]) -> int:
    """Whose turn it is, by number. Where somebody waits it is a matter of clocks: the first worker's."""
    if not any(member.waits for member in members):
        return _furthest_behind(members)
    number: int = workers.told(None if workers.rank() else _furthest_behind(members))
    return number


def _furthest_behind(members: Sequence[Member]) -> int:
    """Of those that wait no longer, and of equals the first."""
    while True:
        now = time.monotonic()
        able = [number for number, member in enumerate(members) if member.waits <= now]
        if able:
            return min(able, key=lambda number: members[number].at)
        time.sleep(min(member.waits for member in members) - now)


def _is_over(member: Member, ended: Ended, *, beside: int, others: int) -> bool:
    """Let it take its turn; -> whether that was its last. Nothing holds on to an error here, nor by it to what the
    training had in memory.

    Who lacks memory beside `others` is crowded, as it may well have enough alone: it goes on from its last epoch then.
    """
    try:
        result = member.go(beside=beside)
    except (Exception, Stopped) as error:
        several = workers.count() > 1
        crowded = others and not several and isinstance(error, RuntimeError) and is_of_memory(error)
        ended(member.order.stage.key, Crowded() if crowded else error)
        if several and not isinstance(error, AGREED):
            raise
        return True
    if result is not None:
        ended(member.order.stage.key, result)
    return result is not None
