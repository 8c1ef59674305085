"""`tapath run` from start to end: check, train, track, report, and say what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path as File
from typing import Any

import click

from orchestrator import (
    elastic,
    expectations,
    forecast,
    other_code,
    pictures,
    provenance,
    reach,
    report,
    slow_start,
)
from orchestrator.board import Board, Row
from orchestrator.card import card
from orchestrator.chatter import Aside, aside
from orchestrator.connection import answering
from orchestrator.exit_codes import DONE, INTERRUPTED, NOT_WELL, UNTRACKED
from orchestrator.masking import without_secrets
from orchestrator.outcome import STATUS, answered, broken_off
from orchestrator.prepared import Prepared, prepare
from orchestrator.progress import Manner, Progress
from orchestrator.reported import folder_of, log_of, page_of
from orchestrator.rungs import rungs
from orchestrator.strategies.waves import judges
from orchestrator.study import Study
from orchestrator.study_run import begun
from orchestrator.summary import summarize
from orchestrator.swept import swept
from orchestrator.tracking import Ending, Tracking
from orchestrator.underway import Run
from orchestrator.warm import unknown
from orchestrator.writable import writable
from trainers.call import Invalid
from trainers.scratch import clear
from trainers.store import Damaged

MANY = 1000  # trainings that nobody starts by mistake

log = logging.getLogger(__name__)


def session(
    study: Study, *, address: str | None = None, manner: Manner = "", yes: bool = False, later: bool = False
) -> int:
    """Train what a study wants and lacks, then report; -> the exit code.

    later: though MLflow cannot be reached.
    """
    study = reach.lasting(study)
    prepared = prepare(study)
    prepared.store.writable()
    prepared.certain()
    for name in prepared.lattice.isolated():
        click.echo(f"warning: {name} lies on no path from teacher to student and is never trained", err=True)
    for one in elastic.listed(prepared):
        if not one["steady"]:
            click.echo(f"warning: {elastic.text(one)}", err=True)
    run = Run(prepared)
    if len(run.frontier.waiting) > MANY and not yes:
        raise Invalid(f"this would train {len(run.frontier.waiting)} stages; add --yes if that is what you want")
    if not later:
        reached(study.resources.tracking_uri)
    prepared.keep()
    clear()  # where nothing is left to be trained nobody else does
    with aside() as streams:
        progress = Progress(run.board, out=streams.out, err=streams.err, log=streams.log, manner=manner)
        streams.warn = progress.warn
        try:
            return _session(run, progress, streams, address=address, later=later)
        except BaseException as error:
            progress.broken(*broken_off(error))
            raise


def _session(run: Run, progress: Progress, streams: Aside, *, address: str | None, later: bool) -> int:
    """The same, of a run that speaks by `progress`."""
    prepared, study, ending = run.prepared, run.prepared.study, NOT_WELL
    with nullcontext() if run.over else run.on_ray(address):
        # Whatever can be refused was refused by now; from here on things are written.
        logged(streams, study)
        progress.begin(streams.file)
        tracking, patience = begun(prepared, later=later), study.resources.tracking_patience
        try:
            made, makespan = _train(run, tracking, progress)
            for row in run.board.rows.values():  # other paths may have come to want a stage since it was written
                tracking.update(row)
            tracking.unbegun(run.board.rows.values())
            failed = run.frontier.failed or run.reading.lost
            ending = INTERRUPTED if run.interrupted else NOT_WELL if failed else DONE
            with folder_of(study) as folder:
                past, costs = forecast.earlier(folder), prepared.costs
                cost = forecast.compared(run.board, costs=costs, made=made, makespan=makespan, earlier=past)
                summary = summary_of(prepared, run.board, cost)
                _report(run, summary, folder)
                streams.copy(folder)
            register(prepared, run.board, summary, tracking, patience=patience)
        finally:
            tracked = tracking.close(STATUS[ending], patience=patience, busy=_trained_elsewhere(run))
    if not run.interrupted:
        pictures.illustrate(prepared, run.board, summary)
    code = UNTRACKED if ending == DONE and not tracked else ending
    progress.answer(answered(run, summary, told=progress.told), summary, page=page_of(study), code=code)
    return code


def _trained_elsewhere(run: Run) -> set[str]:
    """The keys of the stages that other runs train, as far as the store says."""
    try:
        return run.prepared.busy(run.board)
    except OSError:
        return set()


def logged(streams: Aside, study: Study) -> None:
    """Have the log beside the report. Raises `Invalid` where neither could be written."""
    try:
        streams.keep(log_of(study))
    except OSError as error:
        message = f"{study.resources.runs} cannot be written: {error.strerror}; name a folder that can"
        raise study.refusal(Invalid(message, ("resources", "runs"))) from error


def reached(uri: str) -> None:
    """Raise `Invalid`, with what to do, where MLflow does not answer."""
    try:
        answering(uri)
    except Invalid as error:
        if error.__cause__ is None:  # it never will
            raise
        raise Invalid(f"{error}; start it, or train without it: --tracking-later", error.where) from error


def _train(run: Run, tracking: Tracking, progress: Progress) -> tuple[dict[str, Any], float]:
    """Train, and tell the terminal and MLflow of it; -> what was forecast, and how many seconds it took."""
    with progress:

        def changed(row: Row) -> None:
            tracking.update(row)
            progress.changed(row)

        run.changed, run.say, run.tell, run.leave = changed, progress.say, progress.tell, progress.leave
        run.refresh()
        made = forecast.forecast(run.prepared, run.handing.room)
        if run.handing.room:
            progress.expect(made, run.prepared.costs.relative, whole=not run.prepared.pausing)
        other = other_code.found(run.board, run.prepared.store.place, run.prepared.underway)
        slow = slow_start.text(slow_start.listed(run.prepared, run.board))
        for line in (*other_code.text(other), *run.prepared.warm.lines(), *slow, *forecast.text(made)):
            run.say(line)
        started = time.monotonic()
        if not run.over:
            run.train()
        return made, time.monotonic() - started


def summary_of(prepared: Prepared, board: Board, cost: Mapping[str, Any]) -> dict[str, Any]:
    """report.json."""
    study = prepared.study
    judging = judges(study.search, study.seeds) or study.seeds
    return summarize(
        name=study.name,
        text=without_secrets(study.yaml),
        metric=prepared.score_name,
        search=str(study.search),
        seeds=study.seeds,
        models={name: entry.model for name, entry in prepared.lattice.models.items()},
        edges=sorted(prepared.lattice.edges),
        students=prepared.lattice.students,
        board=board,
        parameters={name: size.parameters for name, size in prepared.sizes.items()},
        expected=expectations.compared(study.expected, prepared.lattice, board, study.seeds),
        source=without_secrets(study.source),
        sweeps=swept(board, prepared.sweep, judging, prepared.score_name) if prepared.sweep else (),
        rungs=rungs(
            board,
            stop=prepared.sweep.stop if prepared.sweep else None,
            seeds=study.seeds,
            judging=judging,
            metric=prepared.score_name,
            students=prepared.lattice.students,
        ),
        cost=cost,
        made=provenance.made(study),
    )


def _report(run: Run, summary: dict[str, Any], folder: File) -> None:
    """Write the report, and beside it why stages failed."""
    report.write(summary, folder)
    for key, text in run.tracebacks.items():
        if text:
            (folder / f"failed-{key}.txt").write_text(text)


def register(prepared: Prepared, board: Board, summary: dict[str, Any], tracking: Tracking, *, patience: float) -> None:
    """Register the student of the best path, of its seeds the best, under the study's name; of several students each,
    with its own name added."""
    for answer in summary["answers"]:
        if answer["best"] is None:
            continue
        row = max((board.rows[key] for key in answer["best"]["keys"]), key=lambda row: row.score or 0.0)
        several = len(summary["answers"]) > 1
        name = board.name + (f"-{answer['student']}" if several else "")
        try:
            with prepared.store.weights_copy(prepared.results[row.key]) as file:
                said = card(prepared, summary, answer, row, name=name)
                ids = prepared.inputs.dataset.val.categories
                tracking.register(name, row, file, patience=patience, card=said, categories=ids)
        except (Damaged, OSError) as error:
            log.warning("%s is not registered: %s", name, error)


def rewrite(study: Study, out: File | None = None) -> str:
    """The report of what the store has now, in its own folder or another; -> the page."""
    prepared = prepare(study).at_a_glance()
    board = prepared.board(prepared.frontier(prepared.stored))
    page, _ = _rewritten(prepared, board, out)
    return page


def _rewritten(prepared: Prepared, board: Board, out: File | None) -> tuple[str, dict[str, Any]]:
    """-> the page, and report.json."""
    for line in unknown(prepared.warm.as_json()):
        click.echo(f"warning: {line}", err=True)
    where = ("--out",) if out else ("resources", "runs")
    with nullcontext(out) if out else folder_of(prepared.study) as folder, writable(folder, *where):
        cost = forecast.compared(board, earlier=forecast.earlier(folder))
        summary = summary_of(prepared, board, cost)
        report.write(summary, folder, pictures.pictures(prepared, board, summary, folder))
    return str(out / "report.html") if out else page_of(prepared.study), summary


def relog(study: Study, out: File | None = None) -> bool:
    """Write the report, and log in MLflow what the store has and MLflow has not, whatever the reason; -> whether it has
    everything now. What another run is training is left to that, and so is the study's run in MLflow then."""
    prepared, patience = prepare(study).at_a_glance(), study.resources.tracking_patience
    frontier = prepared.frontier(prepared.stored)
    board = prepared.board(frontier)
    page, summary = _rewritten(prepared, board, out)
    click.echo(page)
    busy = prepared.busy(board)
    tracking = begun(prepared)
    try:
        for row in board.rows.values():
            if row.key not in busy:
                tracking.update(row)
        if busy:
            click.echo(f"warning: {len(busy)} stage(s) are being trained; that run logs them, and its end", err=True)
        else:
            tracking.unbegun(board.rows.values())
        register(prepared, board, summary, tracking, patience=patience)
    finally:
        status: Ending = "FINISHED" if frontier.over else "KILLED"
        tracked = tracking.close(status, patience=patience, busy=busy)
    return tracked
