"""Commands that look after what was trained: gc, reproduce."""

from __future__ import annotations

import json
import sys
from pathlib import Path as File

import click

from orchestrator.completion import AtHome, StudyFile
from orchestrator.exit_codes import DONE, NOT_WELL


@click.command()
@click.argument("studies", nargs=-1, metavar="[STUDY]...", type=StudyFile(path_type=File))
@click.option(
    "--all-studies-in",
    "folder",
    type=AtHome(path_type=File, file_okay=False),
    help="All studies of a folder are needed.",
)
@click.option("--store", help="The store, instead of the studies' resources.store.")
@click.option("--tracking", help="An MLflow whose registered models are needed, beside the studies' own.")
@click.option("--older-than", "older", metavar="AGE", help="Only what was not touched for so long: 30d, 12h.")
@click.option("--delete", is_flag=True, help="Remove it; without this it is only listed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def gc(
    studies: tuple[File, ...],
    folder: File | None,
    store: str | None,
    tracking: str | None,
    older: str | None,
    delete: bool,
    as_json: bool,
) -> None:
    """List what a store has that none of these studies needs, no registered model and no run; --delete removes it.

    Name all studies that are still needed: what only others want is not.
    """
    from orchestrator import needed, unneeded

    def warn(line: str) -> None:
        click.echo(f"warning: {line}", err=True)

    files = [*studies, *(needed.studies_in(folder, warn) if folder else ())]
    found = unneeded.sort(files, store=store, tracking=tracking, older=older, say=warn)
    left = unneeded.remove(found, warn) if delete else None
    said = json.dumps(unneeded.as_json(found, left), indent=1) if as_json else unneeded.text(found, left)
    click.echo(said)
    sys.exit(NOT_WELL if left else DONE)


@click.command()
@click.argument("model")
@click.argument("stage", required=False)
@click.option("--seed", type=click.IntRange(0), help="Of a stage that was trained with several.")
@click.option(
    "--seeds",
    type=click.IntRange(0),
    help="If other weights come of it: so many other seeds. Without it none, or two where the study has a single one.",
)
@click.option("--tracking", help="MLflow's address, with a registered model.")
@click.option("--store", help="An empty place to train in, that stays; without it a temporary one.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change the study: data.COCO.root=/data/coco")
@click.option("--address", help="A running Ray cluster; without it Ray starts here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reproduce(
    model: str,
    stage: str | None,
    seed: int | None,
    seeds: int | None,
    tracking: str | None,
    store: str | None,
    sets: tuple[str, ...],
    address: str | None,
    as_json: bool,
) -> None:
    """Train MODEL again, as models:/demo@best, or a STAGE of a study, and compare. Exit code 3 if it is another.

    Where other weights come of it, it is enough that the score lies within the noise of seeds.
    """
    from orchestrator import originals
    from orchestrator import reproduce as training
    from orchestrator.card import REGISTERED
    from orchestrator.meant import only
    from orchestrator.resources import Resources
    from orchestrator.study import load

    only(("--seed", seed) if model.startswith(REGISTERED) else ("--tracking", tracking if stage else None))
    if stage is None:
        uri = tracking or Resources().tracking_uri
        original = originals.of_model(model, tracking=uri, sets=sets)
    else:
        original = originals.of_study(load(File(model), sets), stage, seed)
    made = training.reproduce(
        original, store=store, seeds=seeds, address=address, say=lambda line: click.echo(line, err=True)
    )
    click.echo(json.dumps(training.as_json(made), indent=1) if as_json else training.text(made))
    sys.exit(made.code)
