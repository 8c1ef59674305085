"""The finished stages of a store, and which of them is the nearest to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from orchestrator.differences import ABSENT, Plain, distance, recorded, written


class Column(NamedTuple):
    """A field of many stages: its distinct values, and which of them each stage has."""

    parts: list[Any]
    which: list[int]


class Finished:
    """Finished stages by key, from their records; one that says of no stage is left out.

    Stages have most of their parts in common: two parts are compared once, and so are two teachers.
    """

    def __init__(self, records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        self.stages: dict[str, Plain] = {}
        self.scores: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}  # of every stage and every teacher, by its text; 0 is nobody
        self._all: list[Plain] = [{}]  # by number
        self._teachers = [0]  # their numbers, by number
        self._places: dict[str, int] = {}  # the numbers of the stages, by key
        for key, record in records:
            stage = record.get("stage")
            if isinstance(stage, dict):
                self.stages[key] = recorded(key, stage)
                self.scores[key] = record.get("score")
                self._places[key] = self._number(self.stages[key])
        fields = dict.fromkeys(name for one in self._all for name in one if name != "teacher")
        self._columns = {name: column(one.get(name, ABSENT) for one in self._all) for name in fields}
        self._models = {key: written(stage.get("model", ABSENT)) for key, stage in self.stages.items()}
        self._known: dict[tuple[str, str], list[int]] = {}
        self._rows: dict[str, list[int]] = {}

    def nearest(self, stage: Plain) -> str | None:
        """The key of the one at the smallest `distance`, of the same model if there is any; ties by key."""
        row, model = self._row(stage), written(stage["model"])
        return min(self.stages, key=lambda key: (self._models[key] != model, row[self._places[key]], key), default=None)

    def _number(self, stage: Any) -> int:
        if not isinstance(stage, dict):
            return 0
        text = written(stage)
        if text not in self._numbers:
            self._teachers.append(self._number(stage.get("teacher")))
            self._all.append(stage)
            self._numbers[text] = len(self._all) - 1
        return self._numbers[text]

    def _row(self, stage: Any) -> list[int]:
        """The distance of each from this stage, by number."""
        text = written(stage)
        if text not in self._rows:
            known = isinstance(stage, dict)
            self._rows[text] = self._distances(stage) if known else [0, *(distance(None, one) for one in self._all[1:])]
        return self._rows[text]

    def _distances(self, stage: Plain) -> list[int]:
        above = self._row(stage.get("teacher"))
        columns = [[above[number] for number in self._teachers]]
        for name, (_, which) in self._columns.items():
            each = self._each(name, stage.get(name, ABSENT))
            columns.append([each[part] for part in which])
        sums = map(sum, zip(*columns, strict=True))
        next(sums)  # nobody has no fields to compare
        return [distance(stage, None), *sums]

    def _each(self, name: str, value: Any) -> list[int]:
        """The distance of each known value of a field from this one."""
        at = name, written(value)
        if at not in self._known:
            self._known[at] = [distance(value, part, (name,)) for part in self._columns[name].parts]
        return self._known[at]


def column(values: Iterable[Any]) -> Column:
    known, parts, which = dict[str, int](), list[Any](), list[int]()
    for value in values:
        text = written(value)
        if text not in known:
            known[text] = len(parts)
            parts.append(value)
        which.append(known[text])
    return Column(parts, which)
