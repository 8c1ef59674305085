"""Commands that answer: best asks MLflow, report writes the page again."""

from __future__ import annotations

import sys
from pathlib import Path as File
from typing import Any

import click

from orchestrator.commands.options import change_options, loaded_study
from orchestrator.completion import AtHome, StudyFile, models
from orchestrator.exit_codes import DONE, UNTRACKED
from trainers.call import Invalid


@click.command()
@click.argument("study", required=False, type=StudyFile(path_type=File))
@click.option(
    "--experiment", "experiments", multiple=True, help="An MLflow experiment, instead of a study; or several."
)
@click.option("--all", "everything", is_flag=True, help="Ask all experiments.")
@click.option("--compare", nargs=2, metavar="STUDY STUDY", help="Two studies or experiments, side by side.")
@click.option("--tracking", help="MLflow's address, instead of the study's.")
@change_options
@click.option("--data", help="Only on these data: the beginning of their fingerprint or of what a study writes.")
@click.option("--student", metavar="MODEL", shell_complete=models, help="Only paths to this model.")
@click.option("--under", multiple=True, metavar="COST=NUMBER", help="Only paths that take this at most: gpu_hours=20.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="List so many paths.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def best(
    study: File | None,
    experiments: tuple[str, ...],
    everything: bool,
    compare: tuple[str, str] | None,
    tracking: str | None,
    sets: tuple[str, ...],
    **options: Any,
) -> None:
    """Ask MLflow for the best path of a study or of experiments, or compare those of two."""
    from orchestrator import answer, asked

    if (study is not None) + bool(experiments) + everything + bool(compare) != 1:
        raise Invalid("name a study file, experiments with --experiment NAME or --all, or two studies with --compare")
    if sets and study is None:
        raise Invalid("--store and --set change a study, and here none is named")
    if compare:
        sides = [asked.of_either(name, tracking) for name in compare]
        said, warnings = answer.compared(compare, sides, **options)
    else:
        one = asked.of_study(study, tracking, sets) if study else asked.of_experiments(experiments or None, tracking)
        said, warnings = answer.ranked(one, **options)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    click.echo(said)


@click.command()
@click.argument("study", required=False, type=StudyFile(path_type=File))
@click.option("--store", help="Where results and weights lie, instead of resources.store.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change the study: resources.runs=elsewhere")
@click.option(
    "--experiment", "experiments", multiple=True, help="An MLflow experiment, instead of a study; or several."
)
@click.option("--tracking", help="MLflow's address, with --experiment.")
@click.option("--out", type=AtHome(path_type=File, file_okay=False), metavar="DIR", help="Write it there.")
@click.option("--relog", is_flag=True, help="Log in MLflow what the store has and MLflow has not.")
def report(
    study: File | None,
    store: str | None,
    sets: tuple[str, ...],
    experiments: tuple[str, ...],
    tracking: str | None,
    out: File | None,
    relog: bool,
) -> None:
    """Write the report again, from what the store has; or of experiments, from MLflow alone."""
    if (study is not None) + bool(experiments) != 1:
        raise Invalid("name a study file, or experiments with --experiment NAME")
    if study is not None:
        if tracking:
            raise Invalid("a study's report is made from its store; --tracking goes with --experiment", ("--tracking",))
        from orchestrator import session

        loaded = loaded_study(study, store, sets)
        if relog:
            sys.exit(DONE if session.relog(loaded, out) else UNTRACKED)
        click.echo(session.rewrite(loaded, out))
        return
    if store or sets or relog:
        raise Invalid("--store and --set change a study and --relog logs one; there is none with --experiment")
    from orchestrator import across

    page, warnings = across.rewrite(experiments, tracking, out)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    click.echo(page)
