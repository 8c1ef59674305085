"""Of whom `tapath best` asks MLflow: a study by its file, or experiments by their names."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from orchestrator.alike import SHORTENED
from orchestrator.choice import choose
from orchestrator.connection import WHERE
from orchestrator.masking import without_secrets
from orchestrator.ranking import Found, paths
from orchestrator.resources import Resources
from orchestrator.yamlfile import YAML
from trainers.call import Invalid

if TYPE_CHECKING:
    from orchestrator.study import Study


@dataclass(frozen=True)
class Asked:
    """Which checkpoints of which MLflow, and what ranks them."""

    uri: str
    experiments: Sequence[str] | None  # None: all
    keys: Container[str] | None = None  # of the students; None: all
    by: str = "score"
    expected: Mapping[str, Mapping[str, float]] | None = None  # what was published of the study's paths
    source: str = ""
    # Of the study: a path that has fewer, dropped by a race or not there yet, is no match for one with all.
    seeds: int = 1
    students: Sequence[str] = ()  # of the study, in its order; without one the experiments say who they are

    def each(self, found: Sequence[Found]) -> list[str]:
        """The students of whom each has an answer of its own: those of a study, or of an experiment, with several. None
        where there is one: experiments may call theirs by other names."""
        if self.students:
            return [*self.students] if len(self.students) > 1 else []
        own: dict[str, dict[str, None]] = defaultdict(dict)  # by experiment, the best first
        for one in found:
            for experiment in one.experiments:
                own[experiment][one.student] = None
        several = [students for students in own.values() if len(students) > 1]
        return list(dict.fromkeys(name for students in several for name in students))

    def paths(self, **filters: Any) -> list[Found]:
        """The paths with a finite score for which the filters of `choose` hold, best first; one at least.

        Raises `Invalid`.
        """
        if self.experiments is None:
            where = "any MLflow experiment"
        else:
            where = f"the MLflow experiment{'s' * (len(self.experiments) > 1)} {', '.join(self.experiments)}"
        found = [f for f in paths(self.uri, self.experiments, keys=self.keys, by=self.by) if math.isfinite(f.score)]
        if self.keys is None:  # a study says itself who is a student: what was logged may be of before a change
            # Trained for longer or shorter than the recipe says it is a control, or a rung of a search.
            found = [f for f in found if not SHORTENED.search(f.path)]
        if not found:
            raise Invalid(f"no student of {where} is trained yet", WHERE)
        students = {f.student for f in found if self._is_whole(f)}
        return choose([f for f in found if self._is_whole(f) or f.student not in students], **filters)

    def _is_whole(self, one: Found) -> bool:
        return len(one.scores) >= self.seeds or not one.stages


def of_experiments(names: Sequence[str] | None, tracking: str | None) -> Asked:
    """Of these experiments, or all."""
    return Asked(tracking or Resources().tracking_uri, names)


def of_study(file: File, tracking: str | None, sets: Sequence[str] = ()) -> Asked:
    """Of a study as its file is now, with `sets`: checkpoints of before a change do not count. Raises `Invalid`."""
    # Imported here: it imports torch, and an experiment is asked for without.
    from orchestrator.study import load

    return of_loaded(load(file, sets), tracking)


def of_loaded(study: Study, tracking: str | None) -> Asked:
    """Of a study as it is. Raises `Invalid`."""
    keys, score = students(study)
    return Asked(
        tracking or study.resources.tracking_uri,
        [study.name],
        keys,
        f"val/{score}",
        study.expected,
        without_secrets(study.source),
        len(study.seeds),
        study.students,
    )


def of_either(name: str, tracking: str | None) -> Asked:
    """Of a study's file, if there is such a file or the name is one of YAML; else of an experiment."""
    file = File(name)
    if os.path.isfile(file) or file.suffix in YAML:  # the name of an experiment may be too long for a file
        return of_study(file, tracking)
    return of_experiments([name], tracking)


def students(study: Study) -> tuple[set[str], str]:
    """The keys of all stages that train a student of a study, alone or at the end of a path; and the figure that ranks
    them."""
    # Imported here, as above.
    from orchestrator.lattice import Path
    from orchestrator.prepared import prepare

    prepared = prepare(study)
    if prepared.sweep:  # which stages there are depends on how others did
        rows = prepared.board(prepared.frontier(prepared.stored)).rows
        # A stage may be a student's on one path and an equal assistant's on another.
        roles = {k: {prepared.lattice.role(p) for p in row.paths if p.budget == 1} for k, row in rows.items()}
        return {key for key, own in roles.items() if own & {"student", "alone"}}, prepared.score_name
    paths = [*prepared.lattice.paths(), *(Path((student,)) for student in prepared.lattice.students)]
    return {prepared.lattice.stage(path, seed).key for path in paths for seed in study.seeds}, prepared.score_name
