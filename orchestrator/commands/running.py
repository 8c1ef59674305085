"""Commands about one study: plan, run, submit, status, why."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from orchestrator.commands.options import manner_options, study_options
from orchestrator.completion import models


@click.command()
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-data", is_flag=True, help="Read neither data nor published weights nor the store.")
def plan(study: Any, as_json: bool, no_data: bool) -> None:
    """What would be trained: checks everything down to the shapes, trains nothing."""
    from orchestrator import plan as planning

    made = planning.plan(study, data=not no_data)
    click.echo(json.dumps(made, indent=1) if as_json else planning.text(made))


@click.command()
@study_options
@click.option("--address", help="A running Ray cluster; without it Ray starts here.")
@manner_options
@click.option("--yes", is_flag=True, help="Train more than a thousand stages.")
@click.option("--tracking-later", "later", is_flag=True, help="Train though MLflow cannot be reached; log it later.")
def run(study: Any, address: str | None, manner: Any, yes: bool, later: bool) -> None:
    """Train what is wanted and missing, then say which path is best. Run it again to go on."""
    from orchestrator.session import session

    sys.exit(session(study, address=address, manner=manner, yes=yes, later=later))


@click.command()
@study_options
@click.option("--address", help="The cluster's job server, http://HEAD:8265.")
@click.option("--follow", is_flag=True, help="Read along until it ends, and end with its exit code.")
@manner_options
@click.option("--yes", is_flag=True, help="Train more than a thousand stages.")
@click.option("--tracking-later", "later", is_flag=True, help="Train though MLflow cannot be reached; log it later.")
@click.option("--kuberay", is_flag=True, help="Print a RayJob for Kubernetes instead.")
@click.option("--image", default="tapath:latest", show_default=True, help="With --kuberay: an image with tapath in it.")
@click.option("--claim", default="tapath", show_default=True, help="With --kuberay: the volume claim of the store.")
def submit(
    study: Any,
    address: str | None,
    follow: bool,
    manner: Any,
    yes: bool,
    later: bool,
    kuberay: bool,
    image: str,
    claim: str,
) -> None:
    """Run the study as a job of a Ray cluster. Submit it again to go on."""
    asked = {"--quiet": manner == "quiet", "--json-lines": manner == "json", "--yes": yes, "--tracking-later": later}
    words = tuple(word for word, wanted in asked.items() if wanted)
    if kuberay:
        from orchestrator.kuberay import manifest

        click.echo(manifest(study, image=image, claim=claim, words=words), nl=False)
        return
    from orchestrator.submit import submit as start

    def say(text: str) -> None:
        """A job's log has its stdout and its stderr in one; here they are two again, as far as a program needs."""
        click.echo(text, err=manner == "json" and not text.startswith("{"))

    sys.exit(start(study, address=address, follow=follow, words=words, say=say))


@click.command()
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(study: Any, as_json: bool) -> None:
    """Which stages are done, begun or missing, as the store has it."""
    from orchestrator import plan as planning

    made = planning.status(study)
    click.echo(json.dumps(made, indent=1) if as_json else planning.status_text(made))


@click.command()
@study_options
@click.argument("stage", required=False, shell_complete=models)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def why(study: Any, stage: str | None, as_json: bool) -> None:
    """Why each stage will train or is reused; or STAGE alone, by the beginning of its key or by its path."""
    from orchestrator import why as reasons

    made = reasons.why(study, stage)
    click.echo(json.dumps(made, indent=1) if as_json else reasons.text(made))
