"""The report: report.json for programs, report.html for people, one page that opens offline."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape

from orchestrator.board import STATES
from orchestrator.drawing import drawing
from orchestrator.drawn_lattice import count
from orchestrator.fitting import fitting
from orchestrator.packing import packed
from orchestrator.verdict import cautions, headline, question, remarks, yardsticks
from orchestrator.words import arrow, between, clock, epochs

PAGE = Path(__file__).parent / "page"
LARGEST = 4_900_000  # bytes that pictures may fill a page up to, so that it goes into a mail
SMALL: Mapping[str, Any] = {"allow_nan": False, "separators": (",", ":")}  # how the page's JSON is written
# What turns the direction of the text after it, and so may have a name read as another: shown by its number.
TURNS = {ord(c): f"\\u{ord(c):04x}" for c in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}


def write(summary: Mapping[str, Any], folder: Path, pictures: Mapping[str, Any] | None = None) -> Path:
    """Write the files of a summary, each whole or not at all. -> report.html. `pictures`: see `pictures.pictures`."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    _put(folder / "report.json", json.dumps(summary, allow_nan=False))
    if pictures:
        _put(folder / "pictures.json", json.dumps(pictures, allow_nan=False))
    _put(page, render(summary, pictures))
    return page


def render(summary: Mapping[str, Any], pictures: Mapping[str, Any] | None = None) -> str:
    """The page. Whatever comes from the study or from an error is escaped: it stays text."""
    drawn = _straight(drawing(summary))
    summary = _straight({**summary, "stages": [{**stage, "history": []} for stage in summary["stages"]]})
    answers = summary["answers"]
    paths = [
        _row(outcome, answer) for answer in answers for outcome in (*answer["ranking"], answer["baseline"]) if outcome
    ]
    fill = partial(
        _templates().get_template("report.html").render,
        summary,
        question=question(summary),
        headlines=[(headline(summary, answer, full=True), _led(answer)) for answer in answers],
        figures=_figures(summary, answers[0]) if len(answers) == 1 else [],
        cautions=[line for answer in answers for line in remarks(summary, answer)] + cautions(summary),
        states=STATES,
        paths=paths,
        over_alone=any(answer["baseline"] for answer in answers),
        over_direct=any(answer["direct"] for answer in answers),
        tested=any(outcome["test"] is not None for outcome in paths),
        beside=[
            (answer["best"], rivals) for answer in answers if (rivals := yardsticks(summary, answer, answer["best"]))
        ],
        drawing=drawn,
        data=packed(drawn),
    )
    if not pictures:
        return fill(pictures=None)
    shown = _fitting(_straight(pictures), LARGEST - len(fill(pictures=None).encode()))
    return fill(pictures=shown, found=len(pictures["images"]))


@cache
def _templates() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(arrow=arrow, between=between, clock=clock, count=count, epochs=epochs, marking=_marking)
    pages.filters.update(quoted=shlex.quote, tight=_tight)
    pages.policies["json.dumps_kwargs"] = SMALL
    return pages


def _fitting(pictures: dict[str, Any], room: int) -> dict[str, Any]:
    """As many as there is room for beside the rest of the page."""

    def size(value: Any) -> int:
        return len(htmlsafe_json_dumps(value, **SMALL)) + 1

    return fitting(pictures, [size(one) for one in pictures["images"]], room - size({**pictures, "images": []}))


def _row(outcome: Mapping[str, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table of paths."""
    several = len(answer["tied"]) > 1
    return {
        **outcome,
        "alone": len(outcome["path"]) == 1,
        "first": _same(outcome, answer["best"]),
        "is_direct": _same(outcome, answer["direct"]),
        "tied": several and outcome["path"] in answer["tied"],
        "recommended": several and outcome["path"] == answer["recommended"],
    }


def _same(outcome: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is not None and outcome["path"] == other["path"]


def _led(answer: Mapping[str, Any]) -> str:
    """The path that the answer is about, as its sentence writes it."""
    return arrow(answer["best"]["path"]) if answer["best"] else ""


def _figures(summary: Mapping[str, Any], answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """The answer in figures: what each is of, how large, and what else there is to say of it."""
    best = answer["best"]
    if not best:
        return []
    seeds = len(best["scores"])
    bounds = " to ".join(f"{end:.3f}" for end in best["interval"]) if best["interval"] else ""
    found = [{"of": summary["metric"], "value": f"{best['score']:.3f}", "told": bounds or f"of {_many(seeds, 'seed')}"}]
    found += [
        {"of": f"over {one['name']}", "value": f"{one['gain']:+.3f}", "told": between(one["interval"])}
        for one in yardsticks(summary, answer, best)
    ]
    if best["seconds"] is not None:
        told = f"{_many(len(best['path']), 'stage')}, {'a' if seeds > 1 else 'one'} seed"
        found.append({"of": "training time", "value": clock(best["seconds"]), "told": told})
    return found


def _many(number: int, what: str) -> str:
    return f"{'one' if number == 1 else number} {what}{'' if number == 1 else 's'}"


def _marking(text: str, part: str) -> Markup:
    """The text with a path in it marked, which an end of a clause follows; no arrow begins a line."""
    places = [place for end in ":," if part and (place := text.find(f" {part}{end}") + 1)]
    start = min(places, default=len(text))
    pieces = (text[:start], text[start : start + len(part)], text[start + len(part) :])
    before, marked, after = (escape(piece.replace(" > ", "\u00a0> ")) for piece in pieces)
    return Markup("{}<strong>{}</strong>{}").format(before, marked, after) if marked else before


def _tight(html: Markup) -> Markup:
    """Without the space between tags, of which thousands of rows have much. In text there is no `>`: it is escaped."""
    return Markup(re.sub(r">\s+<", "><", html.strip()))


def _straight(value: Any) -> Any:
    """The same, with what turns the direction of text shown by its number."""
    if isinstance(value, str):
        return value if value.isascii() else value.translate(TURNS)
    if isinstance(value, dict):
        return {_straight(name): _straight(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_straight(one) for one in value]
    return value


def _put(path: Path, text: str) -> None:
    """Beside it first, then in its place, so that no reader finds half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(text.encode("utf-8", "backslashreplace"))  # a file name in a reason need not be UTF-8
    aside.replace(path)
