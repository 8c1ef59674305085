"""A strategy is asked again only when a score that it looked for, and did not find, is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.lattice import Lattice, Path, Scores, Strategy


class Patient:
    """A strategy that answers at once where it would say what it said before.

    Strategies are pure functions of the scores that they read. So as long as nothing that one missed has come, the
    answer is the same, and is the same list. One that goes through all scores is asked every time. Scores that are the
    same mapping as before are those of before, and what has come since.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._scores: Scores = {}
        self._looked: Looked | None = None
        self._answer: list[Path] = []

    def __call__(self, lattice: Lattice, scores: Scores) -> list[Path]:
        if scores is not self._scores or self._looked is None or self._looked.news:
            self._scores, self._looked = scores, Looked(scores)
            answer = list(self.strategy(lattice, self._looked))
            if answer != self._answer:
                self._answer = answer
        return self._answer


class Looked(Mapping[Path, float]):
    """Scores, and what was looked for among them and is not there."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self.missed: set[Path] = set()
        self.through = False  # whether all of them were gone through

    @property
    def news(self) -> bool:
        """Whether something has come, or may have, that was looked for."""
        return self.through or any(path in self.scores for path in self.missed)

    def __getitem__(self, path: Path) -> float:
        try:
            return self.scores[path]
        except KeyError:
            self.missed.add(path)
            raise

    def __contains__(self, path: object) -> bool:
        if path in self.scores:
            return True
        assert isinstance(path, Path)
        self.missed.add(path)
        return False

    def __iter__(self) -> Iterator[Path]:
        self.through = True
        return iter(self.scores)

    def __len__(self) -> int:
        self.through = True
        return len(self.scores)
