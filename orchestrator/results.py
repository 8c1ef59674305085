"""What is known of the scores of stages, of the whole training or after some epoch."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.lattice import Path
from trainers.spec import Stage


class Results:
    """Asks the store of each stage once, when it is first wanted, and is told from then on.

    `done` says what the store has, a stage's score or None; `paused` what a stage that is trained in part, or whole,
    had after some epoch, or None.
    """

    def __init__(self, done: Callable[[Stage], float | None], paused: Callable[[Stage, int], float | None]) -> None:
        self.reused: set[str] = set()  # in the store when they were first wanted
        self._done, self._paused = done, paused
        self._whole: dict[str, float | None] = {}  # by key; None: not trained yet
        self._parts: dict[tuple[str, int], float | None] = {}  # by key and epoch; None: not trained so far yet

    def whole(self, stage: Stage) -> float | None:
        """The score of a stage that is trained."""
        if stage.key not in self._whole:
            score = self._whole[stage.key] = self._done(stage)
            if score is not None:
                self.reused.add(stage.key)
        return self._whole[stage.key]

    def value(self, path: Path, stage: Stage) -> float | None:
        """The score of a path's stage, where the path ends; None: it is not trained so far."""
        result = self.whole(stage)
        if path.until is None:
            return result
        if (stage.key, path.until) not in self._parts:
            there = self._paused(stage, path.until)
            self._parts[stage.key, path.until] = result if there is None else there
        return self._parts[stage.key, path.until]

    def known(self, path: Path, stage: Stage) -> float | None:
        """As `value`, without a look at the store for what was never wanted."""
        if path.until is None:
            return self._whole.get(stage.key)
        return self.value(path, stage) if stage.key in self._whole else None

    def trained(self, key: str) -> bool:
        """Whether a stage is known to be trained."""
        return self._whole.get(key) is not None

    def finish(self, key: str, score: float) -> None:
        """A stage was trained."""
        self._whole[key] = score

    def forget(self, key: str, until: int) -> None:
        """There is news of what a stage was after an epoch: the store is asked again."""
        self._parts.pop((key, until), None)
