"""A study and what came of it as small tables, for notebooks. Names and texts are escaped: they stay text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from orchestrator.study import Study
from orchestrator.verdict import verdict
from orchestrator.words import arrow, clock
from trainers.address import in_bucket
from trainers.call import Invalid

RANKING = ("path", "role", "score", "spread", "seconds")
ROWS = 20  # of a table that nobody asked for


def of_study(study: Study) -> str:
    """Its models, and what it would train; read are no image files and no bucket."""
    rows = [[name, one.detector, one.backbone, one.recipe.epochs] for name, one in study.models.items()]
    models = table(["model", "detector", "backbone", "epochs"], rows)
    facts = table([], [[name, value] for name, value in _facts(study)])
    return f"<p><b>{escape(study.name)}</b></p>{models}{facts}"


def _facts(study: Study) -> Iterable[tuple[str, str]]:
    yield "data", str(study.data)
    yield "edges", "any" if study.edges == "any" else ", ".join(arrow(edge) for edge in study.edges)
    yield "losses", ", ".join(str(term) for term in study.distill)
    yield "search", str(study.search)
    yield "seeds", ", ".join(map(str, study.seeds))
    made = _planned(study)
    if made is None:
        return
    trainings = made["trainings"]
    yield "paths", f"{made['paths']}"
    about = "" if trainings["exact"] else "at most about "
    stored = f", {trainings['stored']} of them stored" if trainings["stored"] else ""
    yield "stages", f"{about}{trainings['needed']}{stored}"
    if made["cost"]["unit"] == "seconds" and made["cost"]["trainings"]:
        yield "cost", f"{clock(made['cost']['total'])} of training predicted"


def _planned(study: Study) -> dict[str, Any] | None:
    """What `tapath plan` says; without looking at what takes long to read, and nothing where that cannot be said."""
    from orchestrator.plan import plan

    quick = "root" not in study.data.args and not in_bucket(study.resources.store)
    for data in (True, False) if quick else (False,):
        try:
            return plan(study, data=data)
        except (Invalid, OSError):
            continue
    return None


def of_result(summary: Mapping[str, Any], page: str) -> str:
    """The answer, the paths, best first, and where the report lies."""
    said = "".join(f"<p>{escape(line)}</p>" for line in verdict(summary))
    rows = [
        [one["path"], _figure(one["score"], ".4f"), _figure(one["spread"], ".4f"), _time(one["seconds"])]
        for one in ranking(summary)
    ]
    head = ["path", summary["metric"], "spread", "training time"]
    more = f"<p>and {len(rows) - ROWS} more</p>" if len(rows) > ROWS else ""
    return f"{said}{table(head, rows[:ROWS])}{more}<p>report: {escape(page)}</p>"


def ranking(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was trained in full for each student: paths, itself alone, and that for longer; best first."""
    rows = []
    for answer in summary["answers"]:
        kinds = [("alone", answer["baseline"]), ("alone_same_compute", answer["same_compute"])]
        found = [("taught", outcome) for outcome in answer["ranking"]] + [pair for pair in kinds if pair[1]]
        for role, outcome in sorted(found, key=lambda pair: -pair[1]["score"]):
            low, high = outcome["interval"] or (None, None)
            rows.append(
                {
                    "student": answer["student"],
                    "path": arrow(outcome["path"]),
                    "role": role,
                    "low": low,
                    "high": high,
                    **{name: outcome[name] for name in ("score", "spread", "seconds", "settings")},
                    **{name: outcome[name] for name in ("gain_over_baseline", "gain_over_direct")},
                }
            )
    return rows


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """As HTML, whatever the cells say."""
    lines = ["".join(f"<th style='text-align:left'>{escape(cell)}</th>" for cell in head)] if head else []
    lines += ["".join(f"<td style='text-align:left'>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:{form}}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else clock(seconds)
