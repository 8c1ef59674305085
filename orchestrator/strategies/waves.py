"""A strategy inside another, which is asked for more once all that it wanted is settled.

What the outer one decides then depends on scores alone, and not on the order in which trainings end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from orchestrator.lattice import Lattice, Path, Scores, Strategy
from trainers.call import Call, Invalid

# The paths that are new in a wave -> what is asked for, and their scores; none while they are not settled.
Settle = Callable[[list[Path]], tuple[list[Path], Mapping[Path, float]]]

WHOLE = ("exhaustive", "best_predecessor", "greedy", "successive_halving")  # with all seeds, and to the end
EXHAUSTIVE = Call(name="exhaustive")
PAUSING = ("probe", "promising")  # these let a training pause, to see whether it is worth its end


def inner(of: Mapping[str, Any] | Call, *, outer: str, among: Iterable[str] | None = None) -> Strategy:
    """The strategy that another is made of. Raises `Invalid` below (outer, "of")."""
    from orchestrator import strategies  # it names the file that calls this

    call = Call.model_validate(of)
    if among is not None and call.name not in among:
        raise Invalid(f"{outer} can be of {', '.join(among)}, not of {call.name}", (outer, "of"))

    def strategy(lattice: Lattice, scores: Scores) -> Iterable[Path]:
        try:
            found: Iterable[Path] = call.of(strategies, lattice, scores)
        except Invalid as mistake:
            raise mistake.under(outer, "of") from None
        return found

    return strategy


def calls(search: Call) -> Iterator[Call]:
    """A search and those that it is made of, outermost first."""
    yield search
    if "of" in search.args:
        yield from calls(Call.model_validate(search.args["of"]))


def judges(search: Call, seeds: tuple[int, ...]) -> tuple[int, ...] | None:
    """The seeds by which the settings of a sweep are compared in a search; None: all. A race asks for one at a time."""
    return seeds[:1] if any(call.name == "racing" for call in calls(search)) else None


def waves(strategy: Strategy, lattice: Lattice, settle: Settle) -> Iterator[Path]:
    """All that is asked for, each path once. Ends where a wave is not settled yet, or nothing of it can be."""
    known: dict[Path, float] = {}
    seen: set[Path] = set()
    while new := [path for path in dict.fromkeys(strategy(lattice, known)) if path not in known]:
        asked, settled = settle(new)
        yield from (path for path in dict.fromkeys(asked) if path not in seen)
        seen.update(asked)
        if settled.keys() <= known.keys():
            return
        known |= settled
