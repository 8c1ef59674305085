"""The search of a study: what its strategy wants, its sweep and its controls, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain

from orchestrator import controls, strategies
from orchestrator.buying import Buying
from orchestrator.controls import Control, Cost
from orchestrator.frontier import Frontier
from orchestrator.lattice import Lattice, Path, Scores, Strategy
from orchestrator.patience import Patient
from orchestrator.settings import Setting
from orchestrator.strategies.waves import judges
from orchestrator.sweep import Sweep
from orchestrator.sweeping import Sweeping
from trainers.call import Call
from trainers.spec import Stage

Done = Callable[[Stage], float | None]
Paused = Callable[[Stage, int], float | None]
First = Callable[[Path], Sequence[Setting]]  # what the sweep of a path begins with


def searching(search: Call, lattice: Lattice, sweep: Sweep | None, *, first: First = lambda path: ()) -> Strategy:
    """(lattice, scores) -> what a complete call of a strategy wants: paths, or the trials of a sweep that begins with
    these settings.

    Raises `Invalid`, now or when it is asked, if its arguments are wrong.
    """
    if sweep is None:
        return Patient(partial(_paths, search))
    if search.name == "budget":
        return Buying(search, sweep, lattice, first=first)
    return Sweeping(Patient(partial(_paths, search)), sweep, lattice, seeds=judges(search, lattice.seeds), first=first)


def frontier(
    search: Call,
    lattice: Lattice,
    sweep: Sweep | None,
    *,
    first: First = lambda path: (),
    names: Sequence[Control],
    compute: Cost,
    cost: Cost,
    done: Done,
    paused: Paused,
) -> Frontier:
    """All that a study wants, the controls of these names too.

    `compute`: what the controls reckon with; it must not change with what was measured. `cost`: what decides whose turn
    it is. `done` and `paused` as the frontier has them.
    """
    beside = partial(controls.paths, cost=compute)
    build = partial(Frontier, lattice, seeds=lattice.seeds, done=done, paused=paused, cost=cost)
    if sweep is None or search.name == "budget":
        strategy = searching(search, lattice, sweep, first=first)
        if sweep:
            # Bought with the rest, and first: if there is an edge for it, it is the shortest path.
            names = [name for name in names if name != "direct"]
        return build(strategy, controls=partial(beside, names=names, strategy=strategy))

    def reached(trial: Path) -> bool:
        seeds, end = trial.seeds or lattice.seeds, trial.until
        stages = (lattice.stage(trial, seed) for seed in seeds)
        return all((done(one) if end is None else paused(one, end)) is not None for one in stages)

    def winner(path: Path) -> Path:
        return sweeping.winner(path) or path

    # The controls are swept, too: direct distillation by one setting would be no match for the others.
    def both(lattice: Lattice, scores: Scores) -> Iterable[Path]:
        return chain(paths(lattice, scores), beside(lattice, scores, names=names, strategy=paths, trial=winner))

    paths, judging = Patient(partial(_paths, search)), judges(search, lattice.seeds)
    sweeping = Sweeping(both, sweep, lattice, seeds=judging, reached=reached, first=first)
    return build(sweeping)


def _paths(search: Call, lattice: Lattice, scores: Scores) -> Iterable[Path]:
    found: Iterable[Path] = search.of(strategies, lattice, scores)
    return found
