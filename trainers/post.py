"""What the workers of a stage and its trial tell each other."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainers.course import Entry

LOOK = 10.0  # seconds between two looks at who is late, at the most


class Beat(NamedTuple):
    """A worker's sign of life."""

    actor: Any  # that it is, to end it by
    node: str  # on which it is
    silent: float  # seconds since its last step, where another is to be expected
    heard: float = 0.0  # when


class Letters:
    """Between a stage's workers and its trial: epochs and what the user should know one way, the wish to stop the
    other."""

    def __init__(self) -> None:
        self.news: list[Entry | str] = []
        self.stopping = False
        self.pausing = False
        self.releasing = False
        self.left = False  # because they were released
        self.failure: str | None = None
        self.micro_batch: int | None = None  # what memory was enough for
        self.beats: dict[int, Beat] = {}  # by rank, the last of each worker
        self.looked = time.monotonic()

    def report(self, news: Entry | str) -> None:
        self.news.append(news)

    def forget(self) -> None:
        """The workers are replaced by others."""
        self.beats.clear()

    def take(self) -> list[Entry | str]:
        taken, self.news = self.news, []
        return taken

    def stop(self) -> None:
        self.stopping = True

    def stopped(self) -> bool:
        return self.stopping

    def release(self) -> None:
        """Have the workers end after their epoch, as there may be more of them."""
        self.releasing = True

    def leave(self, last: bool) -> bool:
        """Whether the workers are to end after this epoch; no more of them are wanted for what comes after the last."""
        self.left = self.releasing and not (last or self.stopping)
        return self.stopping or self.left

    def has_left(self) -> bool:
        return self.left

    def beat(self, rank: int, beat: Beat) -> bool:
        """A worker lives; -> whether it is to stop."""
        self.beats[rank] = beat._replace(heard=time.monotonic())
        return self.stopping

    def nodes(self) -> set[str]:
        return {beat.node for beat in self.beats.values()}

    def late(self, patience: float) -> dict[int, Any]:
        """The workers by rank that have given no sign of life for so many seconds; or, if all do, those that have made
        no step for so long. Each is named once."""
        now = time.monotonic()
        missed, self.looked = max(0.0, now - self.looked - LOOK), now
        # Nobody was heard while this process itself stood still.
        self.beats = {rank: beat._replace(heard=beat.heard + missed) for rank, beat in self.beats.items()}
        hung = {rank for rank, beat in self.beats.items() if beat.silent > patience}
        # Where some hang, it may be because they wait for another, of which nothing is heard since a little less long.
        limit = patience / 2 if hung else patience
        late = {rank for rank, beat in self.beats.items() if now - beat.heard > limit} or hung
        return {rank: self.beats.pop(rank).actor for rank in late}

    def pause(self) -> None:
        self.pausing = True

    def paused(self) -> bool:
        return self.pausing

    def lessen(self, micro_batch: int, text: str) -> None:
        """Have the stage begin again with fewer images at once; several workers may say so at the same time."""
        if self.micro_batch is None or micro_batch < self.micro_batch:
            self.micro_batch = micro_batch
            self.news.append(text)

    def fewest(self) -> int | None:
        return self.micro_batch

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason

    def failed(self) -> str | None:
        return self.failure


Post: Any = ray.remote(num_cpus=0)(Letters)


def post_here(name: str | None) -> Any:
    """A post on this node, so that it does not go with another; under a name for others to find, if there is one."""
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Post.options(name=name, scheduling_strategy=node).remote()
