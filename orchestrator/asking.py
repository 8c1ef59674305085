"""What a strategy and the controls ask for, and what of it is new: thousands of settings are swept in one study."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.lattice import Lattice, Path, Scores, Strategy


class Asking:
    """Asks them again whenever there are new scores."""

    def __init__(self, lattice: Lattice, strategy: Strategy, controls: Strategy) -> None:
        self.asked: dict[Path, None] = {}  # by their last answer; used as an ordered set
        self._lattice, self._strategy, self._controls = lattice, strategy, controls
        self._answer: Iterable[Path] = ()  # the strategy's last
        self._taken = 0  # paths of it
        self._controlled: tuple[Path, ...] = ()

    def new(self, scores: Scores) -> list[Path] | None:
        """What is asked for now and was not before; None: something that was is not any more."""
        answer = self._strategy(self._lattice, scores)
        controls = tuple(self._controls(self._lattice, scores))
        if answer is self._answer and isinstance(answer, list) and controls == self._controlled:
            new: list[Path] | None = answer[self._taken :]  # the same list as before, perhaps longer
        else:
            asked = dict.fromkeys((*answer, *controls))
            new = [path for path in asked if path not in self.asked]
            if not self.asked.keys() <= asked.keys():
                self.asked, new = asked, None
        self._answer, self._controlled = answer, controls
        self._taken = len(answer) if isinstance(answer, list) else 0
        self.asked.update(dict.fromkeys(new or ()))
        return new
