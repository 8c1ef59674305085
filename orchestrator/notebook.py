"""Studies in a notebook: load one, run it, ask which path is best; what comes of it as pandas' frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from orchestrator import shown
from orchestrator import study as studies
from orchestrator.study import Study
from orchestrator.words import arrow

if TYPE_CHECKING:  # all three take seconds, and a study that is only looked at needs none
    from pandas import DataFrame

    from orchestrator.asked import Asked
    from orchestrator.ranking import Found

TEXT = "study.yaml"  # what a study is called in messages that is no file


def load(path_or_text: File | str, sets: Sequence[str] = ()) -> Study:
    """The study in a file, or of YAML itself: whatever has more than one line, or begins with `{`; after each of `sets`
    (`recipe.epochs=2`). Raises `Invalid` with line, key and what would do."""
    text = str(path_or_text)
    written = isinstance(path_or_text, str) and ("\n" in text.strip() or text.lstrip().startswith("{"))
    return studies.load(TEXT, sets, text=text) if written else studies.load(path_or_text, sets)


def run(
    study: Study | File | str,
    *,
    address: str | None = None,
    quiet: bool = False,
    yes: bool = False,
    later: bool = False,
) -> Result:
    """Train what a study wants and lacks, as `tapath run` does, and report; run it again to go on.

    On the Ray that this process is connected to, and leaves it as it is; else on that at `address`; else on one that is
    started here for as long as it takes. An interrupt ends all stages after their step. `quiet`: print only the answer;
    `yes`: train more than a thousand stages; `later`: though MLflow cannot be reached. Raises `Invalid`.
    """
    from orchestrator.reported import figures_of, page_of
    from orchestrator.session import session

    wanted = study if isinstance(study, Study) else load(study)
    code = session(wanted, address=address, manner="quiet" if quiet else "", yes=yes, later=later)
    return Result(code, page_of(wanted), figures_of(wanted))


def best(
    study_or_experiment: Study | File | str | Sequence[str] | None = None,
    *,
    tracking: str | None = None,
    data: str | None = None,
    student: str | None = None,
    under: Sequence[str] = (),
    top: int | None = None,
) -> DataFrame:
    """What MLflow has of the paths to the student, best first: of a study, or its file; of an experiment, or several;
    or of all.

    `data`, `student` and `under` (`gpu_hours=20`) leave only some, as in `tapath best`; `top` the first. Raises
    `Invalid`.
    """
    import pandas

    found = _asked(study_or_experiment, tracking).paths(data=data, student=student, under=under)
    return pandas.DataFrame([_path(one) for one in found[:top]])


@dataclass(frozen=True)
class Result:
    """What came of a study."""

    code: int  # as `tapath run` ends: 0 all is done, 3 some stages failed, 4 MLflow lacks some, 130 interrupted
    report: str  # the page
    summary: Mapping[str, Any] = field(repr=False)  # report.json

    @cached_property
    def ranking(self) -> DataFrame:
        """A row for each path, best first, the student alone and that with the compute of the best path among them.

        Scores are means over the seeds, `low` and `high` the ends of their 95% interval; what is not known is NaN.
        """
        import pandas

        columns = ["student", *shown.RANKING, "low", "high", "gain_over_baseline", "gain_over_direct", "settings"]
        return pandas.DataFrame(shown.ranking(self.summary), columns=columns)

    @cached_property
    def stages(self) -> DataFrame:
        """A row for each stage, by its key."""
        import pandas

        rows = [
            {name: value for name, value in stage.items() if name != "history"} | {"path": arrow(stage["path"])}
            for stage in self.summary["stages"]
        ]
        return pandas.DataFrame(rows).set_index("key")

    @cached_property
    def curves(self) -> DataFrame:
        """A row for each epoch of each stage, with a column for each loss and each figure."""
        import pandas

        rows = [
            {"key": stage["key"], "path": arrow(stage["path"]), "seed": stage["seed"], **epoch}
            for stage in self.summary["stages"]
            for epoch in stage["history"]
        ]
        return pandas.DataFrame(rows).astype({"epoch": int}) if rows else pandas.DataFrame(columns=["key", "epoch"])

    def _repr_html_(self) -> str:
        return shown.of_result(self.summary, self.report)


def _asked(named: Study | File | str | Sequence[str] | None, tracking: str | None) -> Asked:
    from orchestrator import asked

    if isinstance(named, Study):
        return asked.of_loaded(named, tracking)
    if isinstance(named, str | File):
        return asked.of_either(str(named), tracking)
    return asked.of_experiments(named, tracking)


def _path(found: Found) -> dict[str, Any]:
    """A path as a row; its figures are columns."""
    return {
        "path": found.path,
        "student": found.student,
        "role": found.role,
        "score": found.score,
        "spread": found.spread,
        "seeds": len(found.scores),
        "seconds": found.seconds,
        "gpu_hours": found.worker_seconds / 3600,
        "parameters": found.parameters,
        "latency_ms": found.latency_ms,
        "settings": "; ".join(found.settings),
        "experiments": ", ".join(found.experiments),
        "data": "; ".join(found.names) or found.data,
        "metric": found.metric,
        **{name: value for name, value in found.figures.items() if name != found.metric},
        "keys": found.keys,
        "weights": found.uris,
    }
