"""What a publication says of a study's paths, beside what was measured of them. It changes no stage."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from orchestrator import settings
from orchestrator.board import TRAINED, Board
from orchestrator.lattice import Lattice, Path
from trainers.call import Invalid, alternatives

PER_CENT = 100  # publications print per cent, metrics say parts of 1


# {"r101 > r18": {"AP": 36.5}}, per cent; with a grid "r101 > r18 (LD.temperature 5)" is one of its settings
Expected = Mapping[str, Mapping[str, float]]


def parts(path: str) -> tuple[tuple[str, ...], str]:
    """The models of a path as it is written, and the setting of its last edge, if it names one."""
    names, _, setting = path.partition(" (")
    return tuple(names.split(" > ")), setting.removesuffix(")")


def check_paths(expected: Expected, lattice: Lattice, known: Collection[str] = ()) -> None:
    """Raise `Invalid`, at (path,), for a path whose last model this lattice does not train or measure, or for a setting
    that is not one of these."""
    for path in expected:
        models, setting = parts(path)
        if setting and setting not in known:
            raise Invalid(f"the setting {alternatives(setting, known)}", (path,))
        for name in models:
            if name not in lattice.rank:
                raise Invalid(alternatives(name, lattice.rank), (path,))
        if not lattice.has(models):
            raise Invalid(
                f"this is no path here: one starts at {lattice.root} and follows the edges, as in "
                f"{lattice.shortest(lattice.students[-1])}, or is {lattice.students[-1]} alone",
                (path,),
            )


def check_figures(expected: Expected, known: Collection[str]) -> None:
    """Raise `Invalid`, at (path, figure), for a figure that is not one of those that the metric can say."""
    for path, figures in expected.items():
        for figure in figures:
            if figure not in known:
                raise Invalid(f"the metric says no such figure here: {alternatives(figure, known)}", (path, figure))


def compared(expected: Expected, lattice: Lattice, board: Board, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For each figure its path, its name, what was published and what was measured, in per cent, and the difference.

    Measured is the mean over the seeds; None until all of them have it.
    """
    found = []
    for path, figures in expected.items():
        models, setting = parts(path)
        of_path = [(row, own) for row in board.rows.values() for own in row.paths if own.models == models]
        swept = [(row, own) for row, own in of_path if own.budget == 1 and own.settings]
        keys = [lattice.stage(Path(models), seed).key for seed in seeds]
        # Equal stages are one, whatever the names under which they are wanted.
        rows = [board.rows[key] for key in keys if key in board.rows]
        if setting:
            rows = [row for row, own in swept if settings.text(own.setting) == setting]
        elif swept:  # the best setting stands for the path
            tried = [[row for row, own in swept if own.settings == one] for one in {own.settings for _, own in swept}]
            # In a race only the winner is trained with all the seeds.
            whole = [rows for rows in tried if len(rows) == len(seeds) and all(row.state in TRAINED for row in rows)]
            rows = max(whole, key=lambda rows: fmean(row.score or 0.0 for row in rows), default=[])
        done = [row.metrics for row in rows if row.state in TRAINED]
        for figure, published in figures.items():
            values = [metrics[f"val/{figure}"] for metrics in done if f"val/{figure}" in metrics]
            measured = fmean(values) if len(values) == len(seeds) else None
            found.append(beside(path, figure, published, measured))
    return found


def of(expected: Expected, path: str, measured: Mapping[str, float]) -> list[dict[str, Any]]:
    """The same for one path and what its metric said, in parts of 1."""
    published = expected.get(path, {})
    return [beside(path, figure, value, measured.get(figure)) for figure, value in published.items()]


def beside(path: str, figure: str, published: float, measured: float | None) -> dict[str, Any]:
    """One published figure, in per cent, and what was measured, in parts of 1."""
    own = None if measured is None else PER_CENT * measured
    return {
        "path": path,
        "figure": figure,
        "published": published,
        "measured": own,
        "difference": None if own is None else own - published,
    }


def text(rows: Iterable[Mapping[str, Any]], source: str) -> list[str]:
    """The comparison for people; nothing when there is none."""
    rows = list(rows)
    if not rows:
        return []
    width = max(len("path"), *(len(row["path"]) for row in rows))
    lines = ["", f"  {'path':<{width}}  {'figure':<8}{'published':>10}{'measured':>10}{'difference':>12}"]
    for row in rows:
        own = "" if row["measured"] is None else f"{row['measured']:10.2f}{row['difference']:+12.2f}"
        lines.append(f"  {row['path']:<{width}}  {row['figure']:<8}{row['published']:10.2f}{own}")
    return [*lines, f"  in per cent; published: {source}" if source else "  in per cent"]
