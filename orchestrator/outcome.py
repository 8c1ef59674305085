"""What came of a run: its exit code, and what is said in the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import expectations
from orchestrator.exit_codes import DONE, INTERRUPTED, NOT_WELL, REFUSED, UNEXPECTED
from orchestrator.masking import public
from orchestrator.reported import page_of
from orchestrator.tracking import Ending
from orchestrator.underway import Run
from orchestrator.verdict import beside, verdict
from orchestrator.words import plain
from trainers.call import Invalid

# Of the study's run in MLflow, by the exit code.
STATUS: dict[int, Ending] = {
    DONE: "FINISHED",
    NOT_WELL: "FAILED",
    INTERRUPTED: "KILLED",
}


def broken_off(error: BaseException) -> tuple[int, str]:
    """The exit code of a run that an error broke off, and the error in words."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    return (REFUSED if isinstance(error, Invalid) else UNEXPECTED), public(str(error) or type(error).__name__)


def answered(run: Run, summary: Mapping[str, Any], *, told: bool) -> list[str]:
    """What people are told in the end: which path is best, what it stands beside, and what failed and why.

    `told`: they were told why when it happened.
    """
    folder = page_of(run.prepared.study).rpartition("/")[0]
    lines = [*verdict(summary, reasons=False), *beside(summary)]
    lines += expectations.text(summary["expected"], summary["source"])
    for key, reason in run.frontier.failed.items():
        row, why = run.board.rows[key], "as said above" if told else plain(reason)
        where = f"; where: {folder}/failed-{key}.txt" if run.tracebacks.get(key) else ""
        lines.append(f"failed: {row.path} (seed {row.seed}): {why}{where}")
    if run.frontier.failed:
        lines.append("What is done is kept; the same command tries again what failed.")
    return lines
