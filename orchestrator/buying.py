"""A sweep under a limit to what may be spent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf
from statistics import fmean
from typing import Any

from orchestrator.lattice import Lattice, Path, Scores
from orchestrator.settings import Setting
from orchestrator.strategies.budgets import after_the_shortest
from orchestrator.strategies.purses import check, purse
from orchestrator.strategies.waves import EXHAUSTIVE, inner, judges
from orchestrator.sweep import Sweep
from orchestrator.sweeping import Sweeping
from trainers.call import Call


class Buying:
    """(lattice, scores of trials) -> the trials that a strategy, its paths swept, wants and a limit allows for.

    As `budget` has it where nothing is swept: the shortest paths first, and more once all that was bought is trained.
    What is bought are trials, one setting of one edge each: first those that look best of those that were seen in part,
    then those that cost least. A trial is bought only if the rest suffices to finish it, with all seeds, to go on from
    it to a student with one setting for each edge, and to come to each student at all; so nothing is bought that cannot
    come to an answer, and there is one for each. What is not bought has failed for the sweep: the best of an edge's
    settings that were bought teaches. With asha, too, settings are judged once all that was bought is there.
    """

    def __init__(
        self,
        budget: Call,
        sweep: Sweep,
        lattice: Lattice,
        *,
        first: Callable[[Path], Sequence[Setting]] = lambda path: (),
    ) -> None:
        """`budget`: a complete call of it. Raises `Invalid` at ("budget", ...)."""
        args: dict[str, Any] = dict(budget.args)
        of, stages = Call.model_validate(args.get("of", EXHAUSTIVE)), args.get("stages")
        strategy = inner(of, outer="budget")
        strategy(lattice, {})  # refuses its arguments now, not at the first path
        self.strategy, self.sweep, self.lattice, self.first = after_the_shortest(strategy), sweep, lattice, first
        self.seeds = judges(of, lattice.seeds)
        self._full = purse(lattice, stages=stages, gpu_hours=args.get("gpu_hours"))
        self._onward = onward(lattice)
        self._least: dict[Path, Setting] = {}  # the cheapest settings
        self._forget({})
        check(self._full, [self._towards(student) for student in lattice.students], stages=stages)

    def _forget(self, scores: Scores) -> None:
        self._scores = scores
        self._seen = 0
        self._purse = self._full.copy()
        self._sweeping = Sweeping(self.strategy, self.sweep, self.lattice, seeds=self.seeds, first=self.first)
        self._known: dict[Path, float] = {}  # to the sweep
        self._answer: list[Path] = []
        self._wave: list[Path] = []  # bought last
        self._left: list[Path] = []  # of these, those that may have no score
        self._tried: dict[Path, list[float]] = defaultdict(list)  # scores of a trial's parts
        self._unserved = list(self.lattice.students)  # to whom nothing whole is bought

    def __call__(self, lattice: Lattice, scores: Scores) -> list[Path]:
        """All that was bought; the same list as before, and there may be more in it."""
        if scores is not self._scores or len(scores) < self._seen:
            self._forget(scores)
        self._seen = len(scores)
        while self._settled():
            for trial in self._wave:
                self._known[trial] = scores[trial]
                self._tried[trial.training].append(scores[trial])
            self._wave = []
            new = [trial for trial in self._sweeping(lattice, self._known) if trial not in self._known]
            self._wave = self._purse.buy(new, leading=self._leading, chance=self._chance)
            if not new:
                self._wave = [trial for trial in self._lacking() if self._purse.buy([trial])]
            if not new and not self._wave:
                break
            self._left = self._wave[::-1]
            self._answer += self._wave
            served = {trial.models[-1] for trial in self._wave if trial == trial.training}
            self._unserved = [student for student in self._unserved if student not in served]
            bought = set(self._wave)
            # In order, as what is bought next depends on it.
            self._known |= dict.fromkeys((trial for trial in new if trial not in bought), -inf)
        return self._answer

    def _lacking(self) -> list[Path]:
        """For each student to whom nothing whole is bought the whole trial for which least is lacking, once there is
        nothing else to buy: what was kept for the cheapest may have gone into others that looked better."""
        trials = []
        for student in self._unserved:
            begun = {one.training: None for one in self._answer if one.models[-1] == student and one.budget == 1}
            able = [one for one in begun if self._scores.get(one, 0.0) > -inf]
            trials.append(min([self._towards(student), *able], key=self._purse.missing))
        return sorted(trials, key=self._purse.missing)

    def _settled(self) -> bool:
        """Whether all that was bought last is trained."""
        while self._left and self._left[-1] in self._scores:
            self._left.pop()
        return not self._left

    def _chance(self, trial: Path) -> float:
        """How good a trial to a student looks, beside the best to that student: students do not compare with each
        other. Trials to assistants are no match for them, nor known to be."""
        tried = self._tried.get(trial.training)
        if not tried or self.lattice.role(trial) != "student":
            return -inf
        last = trial.models[-1]
        return fmean(tried) - max(fmean(own) for other, own in self._tried.items() if other.models[-1] == last)

    def _leading(self, trial: Path) -> list[Path]:
        """What must be affordable with a trial: from its end on to a student, and a path to each of the others that
        has none yet."""
        own = self._along(trial, self._onward.get(trial.models[-1], ()))
        return [own, *(self._towards(student) for student in self._unserved if student != own.models[-1])]

    def _towards(self, student: str) -> Path:
        """The shortest path to a student by the settings that won so far, and by the cheapest where none did."""
        shortest, found = self.lattice.shortest(student), Path((self.lattice.root,))
        if self.sweep.scope == "path":
            return self._sweeping.winner(shortest) or self._along(found, shortest.models[1:])
        for name in shortest.models[1:]:
            found = self._sweeping.winner(found.plain + name) or self._along(found, (name,))
        return found

    def _along(self, trial: Path, names: Iterable[str]) -> Path:
        """The cheapest trial from the end of this one on by these models, whole and with all seeds."""
        found = trial.training
        for name in names:
            along = self.sweep.scope == "path" and found.settings  # one setting along it
            one = found.setting if along else self._cheapest(found + name, found.settings)
            found = replace(found + name, settings=(*found.settings, one))
        return found

    def _cheapest(self, path: Path, above: tuple[Setting, ...]) -> Setting:
        """Of the settings that are tried first on an edge; what is above it makes no difference to what they cost."""
        if path not in self._least:

            def cost(one: Setting) -> float:
                trial = replace(path, settings=(*above, one))
                return self._full.cost(self.lattice.stage(trial, self.lattice.seeds[0]), path.models[-1])

            self._least[path] = min(self._sweeping.first(path), key=cost)
        return self._least[path]


def onward(lattice: Lattice) -> dict[str, tuple[str, ...]]:
    """The shortest way from each model to a student, without the model itself; of equals that which a lattice lists
    first."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(lattice.students, ())
    for name in reversed(lattice.names):
        ways = [(other, *found[other]) for other in lattice.names if other in found and name in lattice.teachers(other)]
        if ways and name not in found:
            found[name] = min(ways, key=len)
    return found
