"""The command line: tapath plan | run | submit | status | why | best | report | evaluate | data."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path as File
from typing import Any

import click

from orchestrator.document import printable
from trainers.call import Invalid

# The exit code after Ctrl-C; 2 is bad input, as in click itself. `session` has the others.
INTERRUPTED = 130


class Group(click.Group):
    """Turns a user's mistake into one message and exit code 2, and Ctrl-C into 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Invalid as error:
            if ctx.params.get("debug"):
                raise
            where = ".".join(str(part) for part in error.where)
            lines = f"error: {f'{where}: ' if where else ''}{error}".split("\n")
            click.echo("\n".join(map(printable, lines)), err=True)  # it may have names out of files in it
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Group)
@click.version_option(package_name="tapath")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def main(debug: bool) -> None:
    """Find the best teacher -> assistant -> student path for an object detector."""


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """STUDY, --store and --set; the command gets a loaded study."""

    @click.argument("study", type=click.Path(path_type=File))
    @click.option("--store", help="Where results and weights lie, instead of resources.store.")
    @click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change the study: recipe.epochs=2")
    @wraps(command)
    def wrapped(study: File, store: str | None, sets: tuple[str, ...], **options: Any) -> Any:
        return command(_loaded(study, store, sets), **options)

    return wrapped


def _loaded(study: File, store: str | None, sets: tuple[str, ...]) -> Any:
    from orchestrator.study import load

    extra = (f"resources.store={json.dumps(store)}",) if store else ()
    return load(study, (*sets, *extra))


@main.command()
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-data", is_flag=True, help="Read neither data nor published weights nor the store.")
def plan(study: Any, as_json: bool, no_data: bool) -> None:
    """What would be trained: checks everything down to the shapes, trains nothing."""
    from orchestrator import plan as planning

    made = planning.plan(study, data=not no_data)
    click.echo(json.dumps(made, indent=1) if as_json else planning.text(made))


@main.command()
@study_options
@click.option("--address", help="A running Ray cluster; without it Ray starts here.")
@click.option("--quiet", is_flag=True, help="Print only the answer.")
@click.option("--yes", is_flag=True, help="Train more than a thousand stages.")
@click.option("--tracking-later", "later", is_flag=True, help="Train though MLflow cannot be reached; log it later.")
def run(study: Any, address: str | None, quiet: bool, yes: bool, later: bool) -> None:
    """Train what is wanted and missing, then say which path is best. Run it again to go on."""
    from orchestrator.session import session

    sys.exit(session(study, address=address, quiet=quiet, yes=yes, later=later))


@main.command()
@study_options
@click.option("--address", help="The cluster's job server, http://HEAD:8265.")
@click.option("--follow", is_flag=True, help="Read along until it ends, and end with its exit code.")
@click.option("--yes", is_flag=True, help="Train more than a thousand stages.")
@click.option("--tracking-later", "later", is_flag=True, help="Train though MLflow cannot be reached; log it later.")
@click.option("--kuberay", is_flag=True, help="Print a RayJob for Kubernetes instead.")
@click.option("--image", default="tapath:latest", show_default=True, help="With --kuberay: an image with tapath in it.")
@click.option("--claim", default="tapath", show_default=True, help="With --kuberay: the volume claim of the store.")
def submit(
    study: Any, address: str | None, follow: bool, yes: bool, later: bool, kuberay: bool, image: str, claim: str
) -> None:
    """Run the study as a job of a Ray cluster. Submit it again to go on."""
    words = (*(["--yes"] if yes else []), *(["--tracking-later"] if later else []))
    if kuberay:
        from orchestrator.kuberay import manifest

        click.echo(manifest(study, image=image, claim=claim, words=words), nl=False)
        return
    from orchestrator.submit import submit as start

    sys.exit(start(study, address=address, follow=follow, words=words, say=click.echo))


@main.command()
@study_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(study: Any, as_json: bool) -> None:
    """Which stages are done, begun or missing, as the store has it."""
    from orchestrator import plan as planning

    made = planning.status(study)
    click.echo(json.dumps(made, indent=1) if as_json else planning.status_text(made))


@main.command()
@study_options
@click.argument("stage", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def why(study: Any, stage: str | None, as_json: bool) -> None:
    """Why each stage will train or is reused; or STAGE alone, by the beginning of its key or by its path."""
    from orchestrator import why as reasons

    made = reasons.why(study, stage)
    click.echo(json.dumps(made, indent=1) if as_json else reasons.text(made))


@main.command()
@click.argument("study", required=False, type=click.Path(path_type=File))
@click.option(
    "--experiment", "experiments", multiple=True, help="An MLflow experiment, instead of a study; or several."
)
@click.option("--all", "everything", is_flag=True, help="Ask all experiments.")
@click.option("--compare", nargs=2, metavar="STUDY STUDY", help="Two studies or experiments, side by side.")
@click.option("--tracking", help="MLflow's address, instead of the study's.")
@click.option("--data", help="Only on these data: the beginning of their fingerprint or of what a study writes.")
@click.option("--student", metavar="MODEL", help="Only paths to this model.")
@click.option("--under", multiple=True, metavar="COST=NUMBER", help="Only paths that take this at most: gpu_hours=20.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="List so many paths.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def best(
    study: File | None,
    experiments: tuple[str, ...],
    everything: bool,
    compare: tuple[str, str] | None,
    tracking: str | None,
    **options: Any,
) -> None:
    """Ask MLflow for the best path of a study or of experiments, or compare those of two."""
    from orchestrator import answer, asked

    if (study is not None) + bool(experiments) + everything + bool(compare) != 1:
        raise Invalid("name a study file, experiments with --experiment NAME or --all, or two studies with --compare")
    if compare:
        sides = [asked.of_either(name, tracking) for name in compare]
        said, warnings = answer.compared(compare, sides, **options)
    else:
        one = asked.of_study(study, tracking) if study else asked.of_experiments(experiments or None, tracking)
        said, warnings = answer.ranked(one, **options)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    click.echo(said)


@main.command()
@click.argument("study", required=False, type=click.Path(path_type=File))
@click.option("--store", help="Where results and weights lie, instead of resources.store.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change the study: resources.runs=elsewhere")
@click.option(
    "--experiment", "experiments", multiple=True, help="An MLflow experiment, instead of a study; or several."
)
@click.option("--tracking", help="MLflow's address, with --experiment.")
@click.option("--out", type=click.Path(path_type=File, file_okay=False), metavar="DIR", help="Write it there.")
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

        loaded = _loaded(study, store, sets)
        if relog:
            sys.exit(0 if session.relog(loaded, out) else session.UNTRACKED)
        click.echo(session.rewrite(loaded, out))
        return
    if store or sets or relog:
        raise Invalid("--store and --set change a study and --relog logs one; there is none with --experiment")
    from orchestrator import across

    page, warnings = across.rewrite(experiments, tracking, out)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    click.echo(page)


@main.command()
@click.argument("weights")
@click.option("--data", required=True, help="As in a study, '{COCO: {root: ...}}', or a study's file.")
@click.option("--metric", help="As in a study, '{VocAP: {points: area}}', instead of the data's.")
@click.option("--model", help="What a published file is of: '{detector: GFL, backbone: {ResNet: {depth: 50}}}'.")
@click.option("--recipe", help="Changes how it is measured: '{batch: 4, resize: [800, 1333]}'.")
@click.option("--loader-workers", default=0, show_default=True, help="Processes that load images.")
@click.option("--save", type=click.Path(path_type=File), help="Write what is found, in COCO's format of results.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(weights: str, save: File | None, as_json: bool, **options: Any) -> None:
    """How good weights are: a stage's folder in a store, or a published file with its --model."""
    from orchestrator import evaluation

    if save is not None and not save.parent.is_dir():
        raise Invalid(f"there is no folder {save.parent} to write {save.name} to", ("--save",))
    made = evaluation.evaluate(weights, **options)
    results = made.pop("results")
    if save is not None:
        save.write_text(json.dumps(results))
    click.echo(json.dumps(made, indent=1) if as_json else evaluation.text(made))


@main.group()
def data() -> None:
    """Data sets."""


@data.command()
@click.argument("folder", type=click.Path(path_type=File))
@click.option("--classes", default=3, show_default=True)
@click.option("--train", default=600, show_default=True, help="Training images.")
@click.option("--val", default=200, show_default=True, help="Validation images.")
@click.option("--size", default=64, show_default=True, help="Pixels a side.")
@click.option("--seed", default=0, show_default=True)
def digits(folder: File, **knobs: int) -> None:
    """Write the demo set as a folder with COCO annotations. A study on it is the same study."""
    from trainers import data as datasets
    from trainers.call import Call
    from trainers.data.digits import write

    made = Call(name="Digits", args=knobs).complete(datasets).of(datasets)
    write(made, folder)
    click.echo(f"{len(made.train)} training and {len(made.val)} validation images in {folder}")
    click.echo(f"use it with  data: {{COCO: {{root: {folder}}}}}")


@data.command()
@click.argument("target", metavar="DIR", type=click.Path(path_type=File, exists=True))
@click.option("--train", help="The annotations of the training images, from DIR.")
@click.option("--val", help="The annotations of the validation images, from DIR.")
@click.option("--train-images", help="The folder of the training images, from DIR.")
@click.option("--val-images", help="The folder of the validation images, from DIR.")
@click.option("--images", type=click.Path(path_type=File), help="The folder of images, if DIR is one annotation file.")
@click.option("--fix", type=click.Path(path_type=File), metavar="OUT", help="Write a clean copy of the annotations.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes that read images.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(target: File, images: File | None, fix: File | None, jobs: int, as_json: bool, **knobs: str | None) -> None:
    """Read all of a COCO folder once, and say what is wrong with it. Exit code 3 if anything is."""
    from orchestrator import checked, datacheck

    given = {key: value for key, value in knobs.items() if value is not None}
    report = datacheck.check(target, knobs=given, images=images, fix=fix, jobs=jobs)
    click.echo(json.dumps(checked.as_json(report), indent=1) if as_json else checked.text(report))
    sys.exit(report.code)
