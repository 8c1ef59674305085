"""Commands for whoever begins: init, doctor, schema, completion."""

from __future__ import annotations

import json
import sys
from pathlib import Path as File
from typing import Any

import click

from orchestrator.completion import SHELLS, AtHome, StudyFile, script
from orchestrator.writable import writable


@click.command()
@click.argument("file", required=False, type=AtHome(path_type=File, dir_okay=False))
@click.option("--data", type=AtHome(path_type=File), help="The folder of the data; without it, drawn digits.")
@click.option("--detector", help="What kind of detector all are, such as GFL.")
@click.option("--teacher", help="The teacher's backbone, such as r101.")
@click.option("--student", help="The student's backbone, such as r18.")
@click.option("--teacher-weights", metavar="FILE", help="The teacher's weights, a path or URL; `none`: it starts anew.")
@click.option("--gpus", type=click.IntRange(0), help="How many GPUs there are.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
def init(file: File | None, force: bool, yes: bool, **answers: Any) -> None:
    """Write a study to begin with: asks what it is not told, looks at the data, and proposes assistants."""
    from orchestrator import beginning

    ask = None if yes or not sys.stdin.isatty() else click.prompt
    file = file or File("study.yaml")
    with writable(file, "FILE", folder=False):
        said = beginning.write(file, answers, ask=ask, force=force)
    for line in said:
        click.echo(line)


@click.command()
@click.argument("study", required=False, type=StudyFile(path_type=File))
@click.option("--tracking", help="MLflow's address, instead of the study's.")
@click.option("--address", help="A Ray cluster that should be running, as HEAD:6379.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(study: File | None, tracking: str | None, address: str | None, as_json: bool) -> None:
    """Look whether all that a run needs is there and works, and say how to mend what is not. Exit code 3 if any is not.

    With STUDY its store, tracking and data are looked at, too.
    """
    from orchestrator import doctor as examining

    found = examining.examine(study, tracking=tracking, address=address)
    click.echo(json.dumps(examining.as_json(found), indent=1) if as_json else examining.text(found))
    sys.exit(examining.code(found))


@click.command()
def schema() -> None:
    """Print the JSON schema of studies, by which editors complete and check them."""
    from orchestrator import schema as described

    click.echo(described.text(), nl=False)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what a shell has to read so that it completes commands, options, studies and models."""
    click.echo(script(shell, ctx.find_root().command))
