"""What is trained beside the paths of a search, to say whether the assistants paid.

`alone`: a student that nobody teaches. `direct`: a student taught by the root teacher itself. `alone_same_compute`:
the student alone again, for as many epochs as cost what the whole best path costs, teachers included; who has the
compute for the path could have spent it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Literal

from orchestrator.lattice import Lattice, Path, Scores, Strategy, best
from trainers.call import Invalid
from trainers.spec import Stage

Control = Literal["alone", "direct", "alone_same_compute"]
Cost = Callable[[Stage], float]


def chosen(names: Sequence[Control] | None, lattice: Lattice) -> tuple[Control, ...]:
    """The controls of a study.

    None stands for all that there can be where a study searches, and where it has one path for the student alone.
    Raises `Invalid` at (i,) for what the edges do not allow, or what is there already.
    """
    direct = any(direct_paths(lattice))
    if names is None:
        if lattice.count()[0] == len(lattice.students):  # a path for each
            return ("alone",)
        return ("alone", "direct", "alone_same_compute") if direct else ("alone", "alone_same_compute")
    for i, name in enumerate(names):
        if name in names[:i]:
            raise Invalid(f"{name} is there already; remove one", (i,))
        if name == "direct" and not direct:
            student = lattice.students[-1]
            edge = f"[{lattice.root}, {student}]"
            raise Invalid(f"{lattice.root} does not teach {student}; add the edge {edge} or remove this", (i,))
    return tuple(names)


def paths(
    lattice: Lattice,
    scores: Scores,
    *,
    names: Sequence[Control],
    strategy: Strategy,
    cost: Cost,
    trial: Callable[[Path], Path] = lambda path: path,
) -> Iterator[Path]:
    """What these controls train for each student; the last of them only once the strategy wants nothing more that has
    no score.

    `trial`: the one of a sweep that won a path.
    """
    if "alone" in names:
        yield from (Path((student,)) for student in lattice.students)
    direct = direct_paths(lattice) if "direct" in names else []
    yield from direct
    if "alone_same_compute" in names and all(path in scores for path in chain(direct, strategy(lattice, scores))):
        for student in lattice.students:
            found = best(scores, lattice, student)
            yield from longer(lattice, trial(found), cost) if found else ()


def longer(lattice: Lattice, path: Path, cost: Cost) -> Iterator[Path]:
    """The student alone, for as many whole epochs as cost what a path to it costs.

    None where it is published, and not trained; nor where a path is so cheap that there would be no epoch more.
    """
    student = path.models[-1:]
    alone = lattice.stage(Path(student), 0)
    if alone.published:
        return
    epochs = alone.recipe.epochs
    more = round(epochs * of_path(lattice, path, cost) / cost(alone))
    if more > epochs:
        yield Path(student, more / epochs)


def of_path(lattice: Lattice, path: Path, cost: Cost) -> float:
    """What a path's stages cost for one seed. Published weights cost nothing: only their use is counted."""
    return sum(cost(stage) for stage in lattice.stage(path, 0).lineage)


def direct_paths(lattice: Lattice) -> list[Path]:
    """From the root teacher to each student that it may teach itself."""
    paths = [Path((lattice.root, student)) for student in lattice.students]
    return [path for path in paths if lattice.has(path.models)]


def bill(
    wanted: Iterable[tuple[Path, Stage]],
    lattice: Lattice,
    *,
    names: Sequence[Control],
    searched: Iterable[Path],
    seeds: Sequence[int],
    cost: Cost,
) -> dict[str, Any]:
    """What the controls of a study cost, before anything is trained.

    `wanted`: all that it trains, as far as that is known; `searched`: the paths that its strategy wants of it.
    -> `trainings` that only the controls want, how many of them come `later` and are not in `wanted`, and which `share`
    of all compute they are, at least and at most: what the student alone may spend is known once the best path is.
    """
    stages = {stage.key: (path.budget > 1, stage) for path, stage in wanted}
    own = {stage.key for path in searched for seed in seeds for stage in lattice.stage(path, seed).lineage}
    base = sum(cost(stage) for long, stage in stages.values() if not long)
    fixed = [cost(stage) for key, (long, stage) in stages.items() if not long and key not in own]
    long, number = [0.0, 0.0], 0
    for student in lattice.students if "alone_same_compute" in names else ():
        ends = [next(longer(lattice, path, cost), None) for path in cheapest_and_dearest(lattice, student, cost)]
        own_long = [len(seeds) * cost(lattice.stage(path, 0)) if path else 0.0 for path in ends]
        long = [so_far + more for so_far, more in zip(long, own_long, strict=True)]
        number += len(seeds) if own_long[1] else 0
    return {
        "names": list(names),
        "trainings": len(fixed) + number,
        "later": max(0, number - sum(long for long, _ in stages.values())),
        "share": [(sum(fixed) + more) / (base + more) if base + more else 0.0 for more in long],
    }


def cheapest_and_dearest(lattice: Lattice, student: str, cost: Cost) -> tuple[Path, Path]:
    """Of all paths to a student, without listing them."""
    ends = []
    for choose in (min, max):
        known = {lattice.root: (of_path(lattice, Path((lattice.root,)), cost), Path((lattice.root,)))}
        for name in lattice.names[1:]:
            above = [known[teacher] for teacher in lattice.teachers(name) if teacher in known]
            ways = [(total + cost(lattice.stage(path + name, 0)), path + name) for total, path in above]
            if ways:
                known[name] = choose(ways)
        ends.append(known[student][1])
    return ends[0], ends[1]
