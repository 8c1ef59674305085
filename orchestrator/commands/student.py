"""Commands about the trained student: predict, export, latency."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path as File
from typing import Any

import click

from orchestrator.commands.options import change_options, study_options
from orchestrator.completion import AtHome
from orchestrator.exit_codes import DONE, NOT_WELL
from orchestrator.writable import writable


def detector_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """STUDY, WEIGHTS or models:/NAME@best; the command gets what is meant."""

    @click.argument("detector", metavar="STUDY|WEIGHTS|models:/NAME@best")
    @click.option("--student", metavar="MODEL", help="Of a study with several students, which.")
    @click.option("--model", help="What a published file is of, as in `tapath evaluate`.")
    @click.option("--data", help="Whose classes and category ids these are: as in a study, or a study's file.")
    @click.option("--tracking", help="MLflow's address, instead of the study's.")
    @change_options
    @wraps(command)
    def wrapped(
        detector: str,
        student: str | None,
        model: str | None,
        data: str | None,
        tracking: str | None,
        sets: tuple[str, ...],
        **options: Any,
    ) -> Any:
        from orchestrator.meant import meant

        words = {"student": student, "model": model, "data": data, "tracking": tracking}
        return command(lambda: meant(detector, **words, sets=sets), **options)

    return wrapped


@click.command()
@detector_options
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=AtHome(path_type=File, file_okay=False), default="predicted", show_default=True)
@click.option("--score-threshold", "threshold", type=click.FloatRange(0, 1), default=0.3, show_default=True)
@click.option("--as-stored", is_flag=True, help="Do not turn images as their cameras noted in EXIF.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(
    detector: Any, images: tuple[str, ...], out: File, threshold: float, as_stored: bool, as_json: bool
) -> None:
    """Find objects in image files and folders: boxes drawn, and COCO's format of results. Exit code 3 if an image
    turned out to be broken and was left out."""
    from orchestrator import prediction

    pictures = prediction.pictures(images)
    drawn = prediction.drawings(pictures, out)
    with writable(out, "--out"):
        made = prediction.find(detector(), pictures, drawn, out, threshold=threshold, as_stored=as_stored)
    for reason in made["broken"].values():
        click.echo(f"warning: left out: {reason}", err=True)
    click.echo(json.dumps(made, indent=1) if as_json else prediction.text(made))
    sys.exit(NOT_WELL if made["broken"] else DONE)


@click.command()
@detector_options
@click.option("--format", "kind", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True)
@click.option("--out", type=AtHome(path_type=File, file_okay=False), help="Default: exported/NAME")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(detector: Any, kind: Any, out: File | None, as_json: bool) -> None:
    """Write a detector as files that run without tapath: the network, and a runner that decodes and suppresses."""
    from orchestrator import exporting

    with writable(out or File("exported"), "--out"):
        meant = detector()
        made = exporting.export(meant, out or File("exported") / meant.name, kind=kind)
    click.echo(json.dumps(made, indent=1) if as_json else exporting.text(made))


@click.command()
@study_options
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images at once.")
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True, help="Passes that count.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def latency(study: Any, batch: int, runs: int, as_json: bool) -> None:
    """What each model of a study takes on this device: milliseconds an image, parameters, FLOPs."""
    from orchestrator import latency as measuring

    made = measuring.latency(study, batch=batch, runs=runs)
    click.echo(json.dumps(made, indent=1) if as_json else measuring.text(made))
