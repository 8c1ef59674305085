"""What is reused or goes on though the code that trained it is another now: a key has names and knobs, and no code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.board import Board
from orchestrator.words import listed
from trainers import sources
from trainers.place import Place

Found = dict[str, dict[str, list[str]]]


def found(board: Board, place: Place, underway: Iterable[str]) -> Found:
    """Whose code has changed, by the keys of the stages that are `reused`, and of those that go on (`begun`).

    `underway`: the keys of stages that the store at this place has begun.
    """
    reused = {row.key: list(row.other_code) for row in board.rows.values() if row.other_code}
    begun = {key: list(sources.changed(sources.noted(place, key))) for key in underway if key in board.rows}
    return {"reused": reused, "begun": {key: names for key, names in sorted(begun.items()) if names}}


def text(made: Mapping[str, Mapping[str, Iterable[str]]]) -> list[str]:
    """The same for people, in a line; none if there is nothing to say."""
    reused, begun = made["reused"], made["begun"]
    names = dict.fromkeys(name for one in (reused, begun) for of in one.values() for name in of)
    if not names:
        return []
    who = [f"{_many(len(reused), 'is', 'are')} reused"] if reused else []
    who += [f"{_many(len(begun), 'goes', 'go')} on half-way"] if begun else []
    return [
        f"{' and '.join(who)} though the code of {listed(list(names))} has changed since. If that changes what is "
        "learnt, train anew in another --store, or give what you changed another name or knob, which makes other keys; "
        "if not, there is nothing to do. `tapath why STUDY` names the stages"
    ]


def _many(number: int, one: str, many: str) -> str:
    return f"{number} stage {one}" if number == 1 else f"{number} stages {many}"
