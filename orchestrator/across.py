"""A report from MLflow alone: of one experiment as its study's own report has it, or of several in one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as File
from typing import Any, TypeVar

from orchestrator import expectations, forecast, remembered, report
from orchestrator.board import Board, Row, State
from orchestrator.lattice import Entry, Lattice
from orchestrator.names import study_name
from orchestrator.remembered import Remembered
from orchestrator.resources import Resources
from orchestrator.rungs import rungs
from orchestrator.summary import summarize
from orchestrator.sweep import sweep
from orchestrator.swept import swept
from orchestrator.writable import writable
from trainers.call import Invalid, canonical

# Of stages that several experiments have, the one that is further.
FURTHEST: tuple[State, ...] = ("done", "reused", "running", "paused", "pruned", "failed", "lost", "waiting")

Value = TypeVar("Value")


def rewrite(names: Sequence[str], tracking: str | None, out: File | None) -> tuple[File, list[str]]:
    """Write the report of these experiments; -> the page, and what to warn of. Raises `Invalid`."""
    found = remembered.read(tracking or Resources().tracking_uri, names)
    one = together(found)
    folder = out or File(Resources().runs) / "+".join(_folder(each) for each in found)
    with writable(folder, "--out"):
        page = report.write(summary_of(one, earlier=forecast.earlier(folder)), folder)
    return page, one.cautions


def _folder(one: Remembered) -> str:
    """What the report of an experiment is called: as its study, unless MLflow says what no study is called."""
    try:
        return study_name(one.study)
    except ValueError:
        return "-".join(re.findall("[A-Za-z0-9_]+", one.name))[:100] or "experiment"


def summary_of(one: Remembered, *, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """report.json. `earlier`: what the last report said of costs."""
    board, described = Board(one.study), one.described
    board.rows = {row.key: row for row in one.rows}
    knobs = sweep(described["sweep"]) if described["sweep"] else None
    seeds, name = one.lattice.seeds, described["metric"]
    judging = described["judging"] or seeds
    return summarize(
        name=one.study,
        text=one.text,
        metric=name,
        search=described["search"],
        seeds=seeds,
        models={name: entry.model for name, entry in one.lattice.models.items()},
        edges=sorted(one.lattice.edges),
        students=one.lattice.students,
        board=board,
        parameters={name: model["parameters"] for name, model in described["models"].items()},
        expected=expectations.compared(described["expected"], one.lattice, board, seeds),
        source=described["source"],
        sweeps=swept(board, knobs, judging, name) if knobs else (),
        rungs=rungs(
            board,
            stop=knobs.stop if knobs else None,
            seeds=seeds,
            metric=name,
            students=one.lattice.students,
            judging=judging,
        ),
        cost=forecast.compared(board, earlier=earlier),
        made=one.made,
        studies=one.parts,
    )


def together(found: Sequence[Remembered]) -> Remembered:
    """Several experiments as one study; the models, edges and stages of all, with the seeds that all have.

    Where none is in common the seeds are those of all. Raises `Invalid` where a path would not mean the same in all.
    """
    if len(found) == 1:
        return found[0]
    described = [one.described for one in found]
    _same(found, "data", [one["data"]["fingerprint"] for one in described])
    _same(found, "metric", [one["metric"] for one in described])
    models = _models(found)
    _same(found, "losses", [canonical([term.model_dump(mode="json") for term in one.lattice.distill]) for one in found])
    sweeps = [one["sweep"] for one in described if one["sweep"]]
    if any(one != sweeps[0] for one in sweeps):
        raise Invalid(f"{_listed(found)} do not go into one report: they sweep other knobs, or in another way")
    seeds = _first_of_all(one.lattice.seeds for one in found)
    common = tuple(seed for seed in seeds if all(seed in one.lattice.seeds for one in found))
    first = found[0].lattice
    lattice = Lattice(
        models,
        first.data,
        first.distill,
        edges=_first_of_all(sorted(one.lattice.edges) for one in found),
        seeds=common or seeds,
        students=_first_of_all(one.lattice.students for one in found),
    )
    return Remembered(
        name=_listed(found),
        study=" + ".join(one.study for one in found),
        described={
            "metric": described[0]["metric"],
            "search": " + ".join(_first_of_all([one["search"]] for one in described)),
            "models": {name: model for one in reversed(described) for name, model in one["models"].items()},
            "sweep": sweeps[0] if sweeps else None,
            "judging": described[0]["judging"]
            if all(one["judging"] == described[0]["judging"] for one in described)
            else (),
            "expected": {path: figures for one in reversed(described) for path, figures in one["expected"].items()},
            "source": "; ".join(_first_of_all([one["source"]] for one in described if one["source"])),
        },
        lattice=lattice,
        text="",
        rows=_rows(found),
        cautions=[caution for one in found for caution in one.cautions],
        parts=[{"study": one.study, "study_yaml": one.text, "made": one.made} for one in found],
    )


def _models(found: Sequence[Remembered]) -> dict[str, Entry]:
    """The models of all, each once, in an order that is that of each. Raises `Invalid` if a name means several."""
    entries: dict[str, Entry] = {}
    order: list[str] = []
    for one in found:
        place = 0
        for name, entry in one.lattice.models.items():
            known = entries.setdefault(name, entry)
            for what, of in ATTRIBUTES.items():
                if of(known) != of(entry):
                    raise Invalid(f"{_listed(found)} do not go into one report: not the same {what} of {name}")
            if name not in order:
                order.insert(place, name)
            elif order.index(name) < place:
                raise Invalid(f"{_listed(found)} do not go into one report: their models come in another order")
            place = order.index(name) + 1
    return {name: entries[name] for name in order}


ATTRIBUTES: Mapping[str, Callable[[Entry], Any]] = {
    "model": lambda entry: entry.model,
    "recipe": lambda entry: entry.recipe,
    "masks": lambda entry: entry.masks,
}


def _rows(found: Sequence[Remembered]) -> list[Row]:
    """The stages of all, each once, with all the paths that want it."""
    rows: dict[str, Row] = {}
    for row in (row for one in found for row in one.rows):
        known = rows.get(row.key)
        if known is None:
            rows[row.key] = row
            continue
        better, other = sorted((known, row), key=lambda each: FURTHEST.index(each.state))
        more = [path for path in other.paths if path not in better.paths]
        rows[row.key] = replace(better, others=[*better.others, *more])
    return list(rows.values())


def _same(found: Sequence[Remembered], what: str, values: Sequence[Any]) -> None:
    """Raise `Invalid` unless all have the same."""
    if any(value != values[0] for value in values):
        differ = "; ".join(f"{one.name}: {value}" for one, value in zip(found, values, strict=True))
        raise Invalid(f"{_listed(found)} do not go into one report: not the same {what} ({differ})")


def _listed(found: Sequence[Remembered]) -> str:
    return f"the MLflow experiments {', '.join(one.name for one in found)}"


def _first_of_all(several: Iterable[Iterable[Value]]) -> tuple[Value, ...]:
    """All values, each once, in the order in which they come first."""
    return tuple(dict.fromkeys(value for values in several for value in values))
