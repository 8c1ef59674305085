"""`tapath reproduce`: one path trained again in a store of its own, and whether the same came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version as installed
from typing import Any, NamedTuple

from orchestrator import noise
from orchestrator.board import Row
from orchestrator.document import printable
from orchestrator.exit_codes import DONE, NOT_WELL
from orchestrator.frontier import Frontier
from orchestrator.inputs import Inputs, read
from orchestrator.lattice import Path
from orchestrator.originals import Original, same
from orchestrator.prepared import Prepared
from orchestrator.study import Study
from orchestrator.underway import Run
from trainers.call import Call, Invalid
from trainers.scratch import scratch
from trainers.store import Result, Store

FEWEST = 2  # other seeds that give one score a spread to be compared by
Say = Callable[[str], None]


class Outcome(NamedTuple):
    """What came of it."""

    original: Original
    equal: bool  # whether the weights are, bit for bit
    score: float
    sha256: str
    differs: dict[str, tuple[str, str]]  # then and here
    again: dict[int, float]  # scores with other seeds
    compared: noise.Compared | None  # None: the weights are equal, or nothing can be said

    @property
    def code(self) -> int:
        return DONE if self.equal or (self.compared is not None and self.compared.alike) else NOT_WELL


class OnePath(Prepared):
    """A study of which one path is wanted, and nothing beside it."""

    def __init__(self, study: Study, store: Store, inputs: Inputs, path: Path) -> None:
        super().__init__(study, store, inputs)
        self.path = path

    def frontier(self, done: Any, *, paused: Any = None) -> Frontier:
        return Frontier(self.lattice, lambda lattice, scores: (self.path,), seeds=self.study.seeds, done=done)


def reproduce(
    original: Original, *, store: str | None, seeds: int | None = None, address: str | None = None, say: Say = print
) -> Outcome:
    """Train its path with its seed, and if other weights come of it, with so many other seeds.

    seeds: None: as few as tell whether that is noise. Without any its own score is held against those that the study
    has, if they are several. store: an empty place for it all; None: a temporary one. Raises `Invalid`.
    """
    before = list(original.scores.values())
    if seeds is None:
        seeds = 0 if noise.enough(len(before), 1) else FEWEST
    elif seeds and not noise.enough(len(before), seeds):
        raise Invalid("one score before and one after have no spread to compare them by; train more", ("--seeds",))
    with nullcontext(store) if store else scratch() as place:
        result = _trained(original, str(place), [original.seed], address, say)[original.seed]
        equal = result.sha256 == original.sha256
        say(f"{original.name}, seed {original.seed}: {result.score:.4f}, {'the same' if equal else 'other'} weights")
        again: dict[int, float] = {}
        if not equal and seeds:
            others = [seed for seed in range(len(original.scores) + seeds) if seed not in original.scores][:seeds]
            trained = _trained(original, str(place), others, address, say)
            again = {seed: one.score for seed, one in trained.items()}
    after = list(again.values()) or [result.score]
    judged = noise.compared(before, after) if not equal and noise.enough(len(before), len(after)) else None
    return Outcome(original, equal, result.score, result.sha256, _differs(original, result), again, judged)


def _trained(original: Original, place: str, seeds: Sequence[int], address: str | None, say: Say) -> dict[int, Result]:
    """The results of the path with these seeds, trained here. Raises `Invalid` if one failed."""
    prepared = _prepared(original, place, seeds)
    stages = {seed: prepared.lattice.stage(original.path, seed) for seed in seeds}
    if original.seed in stages:
        same(original, stages[original.seed])
        if prepared.store.get(stages[original.seed]) is not None:
            raise Invalid(f"{place} has this stage already; name an empty place to train it again in", ("--store",))
    prepared.store.writable()
    prepared.keep()
    run = Run(prepared)
    run.say, run.changed = say, lambda row: _told(row, say)
    with nullcontext() if run.over else run.on_ray(address):
        run.refresh()
        if not run.over:
            run.train()
    if run.interrupted:
        raise KeyboardInterrupt
    results = {seed: prepared.store.get(stage) for seed, stage in stages.items()}
    if None in results.values():
        reasons = "; ".join(run.frontier.failed.values())
        raise Invalid(f"{original.name} could not be trained again: {reasons or 'its results are not there'}")
    return {seed: result for seed, result in results.items() if result is not None}


def _prepared(original: Original, place: str, seeds: Sequence[int]) -> OnePath:
    """The study on a store of its own. What it starts from is looked for where it was, and in its old store."""
    old, study = original.study, _alone(original.study, place, seeds)
    try:
        made = OnePath(study, Store(place), read(study, Store(old.resources.store)), original.path)
        made.lattice.stage(original.path, original.seed)
    except KeyError as missing:
        raise Invalid(f"the study has no model {missing} any more") from None
    except Invalid as mistake:
        raise study.refusal(mistake) from mistake
    return made


def _alone(study: Study, place: str, seeds: Sequence[int]) -> Study:
    resources = study.resources.model_copy(update={"store": place})
    search = Call(name="exhaustive")
    changed = {"resources": resources, "search": search, "sweep": None, "controls": (), "seeds": tuple(seeds)}
    return study.model_copy(update=changed)


def _told(row: Row, say: Say) -> None:
    if row.state in ("running", "done", "failed"):
        score = f", {row.score:.4f}" if row.score is not None else ""
        say(f"{row.path} (seed {row.seed}): {row.state}, epoch {row.epoch} of {row.epochs}{score}")


def _differs(original: Original, result: Result) -> dict[str, tuple[str, str]]:
    """Versions and devices that are others here."""
    then = {**original.versions, "device": original.device}
    here = {name: installed(name) for name in original.versions} | {"device": result.device}
    return {name: (then[name], here[name]) for name in then if then[name] != here[name]}


def as_json(made: Outcome) -> dict[str, Any]:
    original = made.original
    return {
        "model": original.name,
        "key": original.stage.key,
        "path": list(original.path.models),
        "seed": original.seed,
        "equal": made.equal,
        "score": {"before": original.score, "again": made.score},
        "sha256": {"before": original.sha256, "again": made.sha256},
        "differs": {name: {"before": then, "here": here} for name, (then, here) in made.differs.items()},
        "versions_known": bool(original.versions),
        "scores": {"before": original.scores, "again": made.again},
        "inside_noise": None if made.compared is None else made.compared.alike,
        "chance": None if made.compared is None else made.compared.chance,
    }


def text(made: Outcome) -> str:
    """For people."""
    original = made.original
    lines = [f"{original.name}: {original.path}, seed {original.seed}, stage {original.stage.key}"]
    if made.equal:
        lines.append(f"trained again: the same weights, bit for bit, score {made.score:.4f}")
    else:
        lines.append(f"trained again: other weights; score {made.score:.4f}, before {original.score:.4f}")
        lines += [f"  {name}: {then or 'unknown'} then, {here} here" for name, (then, here) in made.differs.items()]
        if not made.differs:
            known = "versions and device" if original.versions else "device"
            lines.append(f"  {known} are the same; what else may differ: the kind of processor, threads, resources")
    if (found := made.compared) is not None:
        own = f"{found.after:.4f} over {len(made.again)} others" if made.again else f"{found.after:.4f} here"
        lines.append(f"mean over seeds: {found.before:.4f} over {len(original.scores)} before, {own}")
        lines.append(f"  {'inside' if found.alike else 'OUTSIDE'} the noise of seeds (p = {found.chance:.2g})")
    elif not made.equal:
        lines.append("whether that is noise, other seeds tell: --seeds 3")
    return "\n".join(map(printable, lines))
