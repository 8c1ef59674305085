"""The settings of one edge beside each other: how far each is trained, and which wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from math import inf
from typing import NamedTuple

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.samplers import Known
from orchestrator.settings import Setting
from orchestrator.sweep import Sweep

More = Callable[[Known], list[Setting]]  # the scores at the first end -> all settings that are wanted by then


class Standing(NamedTuple):
    """How the settings of one edge do on the way to a goal."""

    wanted: list[Path]  # trials, and how far each is to be trained
    first: Known  # the scores where the first of them pause, or of whole trainings where none does
    settled: bool  # whether nothing can change it but more settings
    arrived: dict[Path, float]  # scores of those that got to the goal


class Edge:
    """The sweep of a path's last edge; or a root teacher, which has one training and no sweep.

    A goal is where trainings are compared: an epoch, or None, their end. `pauses`: the goals before the end, that a
    strategy wants to see; all settings pause there that get there, and nobody is given up for it. `whole`: whether it
    is to be decided at the end as well. `waits`: the edges that must be decided before this can begin.
    """

    def __init__(
        self,
        path: Path,
        sweep: Sweep,
        lattice: Lattice,
        *,
        seeds: tuple[int, ...] | None,
        reached: Callable[[Path], bool],
    ) -> None:
        self.path, self.sweep, self.lattice = path, sweep, lattice
        self.seeds, self._reached = seeds, reached
        self.teacher: Path | None = None  # the edge above, if it has a sweep of its own
        self.cheaper: Path | None = None  # the same path with a lower budget, whose setting is taken over
        self.students: list[Path] = []  # the edges that wait for this
        self.above: tuple[Setting, ...] = ()  # settings of the edges before it, where each edge has its own
        self.asked: list[Setting] = []
        self.pauses: list[int] = []
        self.whole = False
        self.wanted: list[Path] = []
        self.winners: dict[int | None, Path | None] = {}  # by goal, once it is decided; None: all have failed
        self._trials: dict[tuple[Setting, int | None], Path] = {}
        self._ends: dict[Setting, list[int | None]] = {}

    @property
    def waits(self) -> list[Path]:
        return [path for path in (self.teacher, self.cheaper) if path is not None]

    @property
    def goals(self) -> list[int | None]:
        return [*self.pauses, *([None] if self.whole else [])]

    @property
    def over(self) -> bool:
        """Whether it is decided at every goal."""
        return self.winners.keys() >= set(self.goals)

    def lose(self) -> None:
        """Nobody teaches it."""
        self.winners, self.wanted = dict.fromkeys(self.goals), []

    def decide(self, scores: Scores, more: More) -> None:
        """Note what is wanted now, and who won at the goals where that is known.

        What is decided at a goal depends on nothing that comes after it, so that it is found again.
        """
        if len(self.path.models) == 1:
            alone = Path(self.path.models, self.path.budget, seeds=self.seeds)
            self.wanted = [alone]
            if alone in scores:
                self.winners[None] = alone if scores[alone] > -inf else None
            return
        for goal in self.goals:
            if goal in self.winners:
                continue
            standing = self._standing(scores, goal)
            while len(standing.first) == len(self.asked):
                asked = more(standing.first)
                if len(asked) == len(self.asked):
                    break
                self.asked = asked
                standing = self._standing(scores, goal)
            self.wanted = standing.wanted  # those of the last goal: they are on their way past the others
            if standing.settled:
                # Of equals the first that was asked for.
                best = max(standing.arrived, key=standing.arrived.__getitem__, default=None)
                self.winners[goal] = best if best and standing.arrived[best] > -inf else None

    def _trial(self, one: Setting, until: int | None) -> Path:
        """Kept: each is looked up after every result of the edge."""
        if (one, until) not in self._trials:
            count = len(self.path.models) - 1
            settings = (*self.above, one) if self.sweep.scope == "edge" else (one,) * count
            self._trials[one, until] = Path(self.path.models, self.path.budget, settings, self.seeds, until)
        return self._trials[one, until]

    def _ends_of(self, one: Setting, goal: int | None) -> list[int | None]:
        """Where a setting's training pauses on its way to a goal, and that; a shorter training goes to its end."""
        if one not in self._ends:
            stops: set[int] = set()
            if self.sweep.stop is not None or self.pauses:
                epochs = self.lattice.epochs(self._trial(one, None))
                rungs = self.sweep.stop.rungs(epochs) if self.sweep.stop else ()
                stops = {*rungs, *(end for end in self.pauses if end < epochs)}
            self._ends[one] = [*sorted(stops), None]
        ends = self._ends[one]
        return ends[: ends.index(goal) + 1] if goal in ends else ends

    def _standing(self, scores: Scores, goal: int | None) -> Standing:
        """What is wanted of the settings asked for so far, end by end, and what is known of them."""
        ends = {one: self._ends_of(one, goal) for one in self.asked}
        wanted: list[Path] = []
        first: Known = {}
        arrived: dict[Path, float] = {}
        settled, rounds, level = True, [list(self.asked)], 0
        while members := [one for group in rounds for one in group]:
            at = {one: self._trial(one, ends[one][level]) for one in members}
            wanted += at.values()
            there = {one: scores[trial] for one, trial in at.items() if trial in scores}
            first = first if level else there
            settled &= len(there) == len(members)
            arrived |= {at[one]: score for one, score in there.items() if level == len(ends[one]) - 1}
            rounds = self._promoted(scores, ends, rounds, there, level=level)
            level += 1
        return Standing(wanted, first, settled, arrived)

    def _promoted(
        self,
        scores: Scores,
        ends: Mapping[Setting, list[int | None]],
        rounds: list[list[Setting]],
        there: Mapping[Setting, float],
        *,
        level: int,
    ) -> list[list[Setting]]:
        """Those that go on from an end, given the scores of those that are there.

        In rounds, as they got there: the later ones go in the place of others that failed further on, and whoever has
        gone on before stays, though better ones may have come.
        """
        stop = self.sweep.stop
        ongoing = [one for group in rounds for one in group if level < len(ends[one]) - 1]
        end = ends[ongoing[0]][level] if ongoing else None
        if stop is None or end is None or end not in stop.rungs(end + 1):
            # With halving all wait here for those of their round, who would count at the next rung.
            halving = stop is not None and stop.how == "halving"
            past = takewhile(lambda group: not halving or all(one in there for one in group), rounds)
            return [[one for one in group if one in ongoing and there.get(one, -inf) > -inf] for group in past]

        def failed(one: Setting) -> bool:
            return any(scores.get(self._trial(one, later)) == -inf for later in ends[one][level + 1 :])

        def went_on(one: Setting) -> bool:
            trial = self._trial(one, ends[one][level + 1])
            return trial in scores or self._reached(trial)

        if stop.how == "asha":
            rounds = [[one for group in rounds for one in group]]
        chosen: list[list[Setting]] = []
        gone: set[Setting] = set()
        so_far: list[Setting] = []
        for group in rounds:
            so_far = so_far + group
            known = [one for one in so_far if one in there]
            all_there = len(known) == len(so_far)
            if stop.how == "halving" and not all_there:
                break
            going = [one for one in known if one in ongoing and there[one] > -inf]
            ranked = sorted(going, key=there.__getitem__, reverse=True)
            count = max(len(known) // stop.factor, 1 if all_there else 0)
            best = set(ranked[:count])
            new = [one for one in going if one not in gone and (one in best or (stop.how == "asha" and went_on(one)))]
            chosen.append(new)
            gone.update(new)
            for one in ranked if all_there else ():
                if not all(map(failed, gone)):
                    break
                if one not in gone:  # the best of those that were given up, in the place of all that failed
                    chosen.append([one])
                    gone.add(one)
        return chosen
