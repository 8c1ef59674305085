"""Commands about data and weights without a study: evaluate, data digits, data check, data split."""

from __future__ import annotations

import json
import sys
from pathlib import Path as File
from typing import Any

import click

from orchestrator.completion import AtHome
from orchestrator.cores import cores
from orchestrator.writable import writable
from trainers.call import Invalid


@click.command()
@click.argument("weights")
@click.option("--data", required=True, help="As in a study, '{COCO: {root: ...}}', or a study's file.")
@click.option("--metric", help="As in a study, '{VocAP: {points: area}}', instead of the data's.")
@click.option("--model", help="What a published file is of: '{detector: GFL, backbone: {ResNet: {depth: 50}}}'.")
@click.option("--recipe", help="Changes how it is measured: '{batch: 4, resize: [800, 1333]}'.")
@click.option(
    "--loader-workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that load images."
)
@click.option("--save", type=AtHome(path_type=File), help="Write what is found, in COCO's format of results.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(weights: str, save: File | None, as_json: bool, **options: Any) -> None:
    """How good weights are: a stage's folder in a store, or a published file with its --model."""
    from orchestrator import evaluation

    if save is not None and not save.parent.is_dir():
        raise Invalid(f"there is no folder {save.parent} to write {save.name} to", ("--save",))
    with writable(save, "--save", folder=False):
        made = evaluation.evaluate(weights, **options)
        results = made.pop("results")
        if save is not None:
            save.write_text(json.dumps(results))
    click.echo(json.dumps(made, indent=1) if as_json else evaluation.text(made))


@click.group()
def data() -> None:
    """Data sets."""


@data.command()
@click.argument("folder", type=AtHome(path_type=File))
@click.option("--classes", default=3, show_default=True)
@click.option("--train", default=600, show_default=True, help="Training images.")
@click.option("--val", default=200, show_default=True, help="Validation images.")
@click.option("--size", default=64, show_default=True, help="Pixels a side.")
@click.option("--seed", default=0, show_default=True)
def digits(folder: File, **knobs: int) -> None:
    """Write the demo set as a folder with COCO annotations. A study on it is the same study."""
    from orchestrator.yamlfile import flow
    from trainers import data as datasets
    from trainers.call import Call
    from trainers.data.digits import write

    made = Call(name="Digits", args=knobs).complete(datasets).of(datasets)
    with writable(folder, "FOLDER"):
        write(made, folder)
    click.echo(f"{len(made.train)} training and {len(made.val)} validation images in {folder}")
    click.echo(f"use it with  data: {flow({'COCO': {'root': str(folder)}})}")


@data.command()
@click.argument("target", metavar="DIR", type=AtHome(path_type=File, exists=True))
@click.option("--train", help="The annotations of the training images, from DIR.")
@click.option("--val", help="The annotations of the validation images, from DIR.")
@click.option("--train-images", help="The folder of the training images, from DIR.")
@click.option("--val-images", help="The folder of the validation images, from DIR.")
@click.option("--images", type=AtHome(path_type=File), help="The folder of images, if DIR is one annotation file.")
@click.option("--fix", type=AtHome(path_type=File), metavar="OUT", help="Write a clean copy of the annotations.")
@click.option("--jobs", type=click.IntRange(1), default=cores(), help="Processes that read images.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(target: File, images: File | None, fix: File | None, jobs: int, as_json: bool, **knobs: str | None) -> None:
    """Read all of a COCO folder once, and say what is wrong with it. Exit code 3 if anything is."""
    from orchestrator import checked, datacheck

    given = {key: value for key, value in knobs.items() if value is not None}
    report = datacheck.check(target, knobs=given, images=images, fix=fix, jobs=jobs)
    click.echo(json.dumps(checked.as_json(report), indent=1) if as_json else checked.text(report))
    sys.exit(report.code)


@data.command()
@click.argument("annotations", metavar="FILE", type=AtHome(path_type=File, exists=True, dir_okay=False))
@click.option(
    "--val",
    "share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="The part of the images to measure on.",
)
@click.option("--seed", default=0, show_default=True, help="Another one draws other images.")
@click.option("--out", type=AtHome(path_type=File, file_okay=False), help="Default: the folder of FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def split(annotations: File, share: float, seed: int, out: File | None, as_json: bool) -> None:
    """Make two of one COCO annotation file: one to train on, and one to measure on."""
    from orchestrator import dividing

    with writable(out or annotations.parent, "--out"):
        made = dividing.split(annotations, share=share, seed=seed, out=out)
    click.echo(json.dumps(made, indent=1) if as_json else dividing.text(made))
