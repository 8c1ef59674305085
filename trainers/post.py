"""What the workers of a stage and its trial tell each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:  # torch takes three seconds to load, and nobody needs it here
    from trainers.workplace import Entry

LOOK = 10.0  # seconds between two looks at who is late, at the most


class Beat(NamedTuple):
    """A worker's sign of life."""

    actor: Any  # that it is, to end it by
    node: str  # on which it is
    silent: float  # seconds since its last step, where another is to be expected
    heard: float = 0.0  # when


class End(NamedTuple):
    """How a stage ended for its workers."""

    how: Literal["done", "paused", "stopped", "released", "crowded", "failed"]
    reason: str = ""  # why it failed
    traceback: str = ""  # of the worker that failed


class Letters:
    """Between the workers of some stages, which they train together, and the trial: epochs, ends and what the user
    should know one way, the wish to stop the other."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self.open = list(keys)  # the stages that have not ended
        self.news: list[tuple[str, Entry | str | End]] = []  # with the stage's key
        self.stopping = False
        self.releasing = False
        self.left = False  # because they were released
        self.micro_batches: dict[str, int] = {}  # by key, what memory was enough for
        self.furthest: dict[str, float] = {}  # epochs, by key
        self.beats: dict[int, Beat] = {}  # by rank, the last of each worker
        self.looked = self.begun = time.monotonic()  # when they were last looked for, and when they were to begin

    def report(self, key: str, news: Entry | str) -> None:
        self.news.append((key, news))
        if isinstance(news, dict):
            self.furthest[key] = max(news["epoch"], self.furthest.get(key, 0))

    def epochs(self) -> float:
        """How many epochs are over, of all stages."""
        return sum(self.furthest.values())

    def tell(self, news: Entry | str) -> None:
        """What is so for all of the stages."""
        self.news += [(key, news) for key in self.open]

    def end(self, key: str, how: End) -> None:
        """A stage has ended. Several workers may say so; the first who does is believed."""
        if key in self.open:
            self.open.remove(key)
            if self.left and how.how == "stopped":
                how = End("released")
            self.news.append((key, how))

    def still(self) -> list[str]:
        """The stages that have not ended."""
        return self.open

    def forget(self) -> None:
        """The workers are replaced by others."""
        self.beats.clear()
        self.begun = time.monotonic()

    def take(self) -> list[tuple[str, Entry | str | End]]:
        taken, self.news = self.news, []
        return taken

    def stop(self) -> None:
        self.stopping = True

    def release(self) -> None:
        """Have the workers end after their epoch, as there may be more of them."""
        self.releasing = True

    def leave(self, last: bool) -> bool:
        """Whether the workers are to end after this epoch; no more of them are wanted for what comes after the last."""
        self.left = self.releasing and not (last or self.stopping)
        return self.stopping or self.left

    def beat(self, rank: int, beat: Beat) -> bool:
        """A worker lives; -> whether it is to stop."""
        self.beats[rank] = beat._replace(heard=time.monotonic())
        return self.stopping

    def nodes(self) -> set[str]:
        return {beat.node for beat in self.beats.values()}

    def unheard(self) -> float:
        """For how many seconds workers are to begin of which none was heard yet; 0 if one was."""
        return 0.0 if self.beats else time.monotonic() - self.begun

    def late(self, patience: float) -> dict[int, Any]:
        """The workers by rank that have given no sign of life for so many seconds; or, if all do, those that have made
        no step for so long. Each is named once."""
        now = time.monotonic()
        missed, self.looked = max(0.0, now - self.looked - LOOK), now
        # Nobody was heard while this process itself stood still.
        self.begun += missed
        self.beats = {rank: beat._replace(heard=beat.heard + missed) for rank, beat in self.beats.items()}
        hung = {rank for rank, beat in self.beats.items() if beat.silent > patience}
        # Where some hang, it may be because they wait for another, of which nothing is heard since a little less long.
        limit = patience / 2 if hung else patience
        late = {rank for rank, beat in self.beats.items() if now - beat.heard > limit} or hung
        if late:
            self.begun = now  # with others in their place
        return {rank: self.beats.pop(rank).actor for rank in late}

    def lessen(self, key: str, micro_batch: int, text: str) -> None:
        """Have a stage begin again with fewer images at once; several workers may say so at the same time."""
        if micro_batch < self.micro_batches.get(key, micro_batch + 1):
            self.micro_batches[key] = micro_batch
            self.news.append((key, text))

    def fewest(self) -> dict[str, int]:
        return self.micro_batches


Post: Any = ray.remote(num_cpus=0)(Letters)


def post_here(name: str | None, keys: Sequence[str]) -> Any:
    """A post for the stages with these keys, on this node, so that it does not go with another; under a name for others
    to find, if there is one."""
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Post.options(name=name, scheduling_strategy=node).remote(list(keys))
