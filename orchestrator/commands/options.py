"""What several commands take: a study, where its results lie, and what is changed of it; and how a run speaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path as File
from typing import Any

import click

from orchestrator.completion import StudyFile


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """STUDY, --store and --set; the command gets a loaded study."""

    @click.argument("study", type=StudyFile(path_type=File))
    @change_options
    @wraps(command)
    def wrapped(study: File, sets: tuple[str, ...], **options: Any) -> Any:
        return command(loaded_study(study, None, sets), **options)

    return wrapped


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--store and --set; the command gets `sets`, all that is changed of a study."""

    @click.option("--store", help="Where results and weights lie, instead of resources.store.")
    @click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change the study: recipe.epochs=2")
    @wraps(command)
    def wrapped(*args: Any, store: str | None, sets: tuple[str, ...], **options: Any) -> Any:
        return command(*args, sets=changes(store, sets), **options)

    return wrapped


def manner_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--quiet and --json-lines, of which there may be one; the command gets its `manner`."""

    @click.option("--quiet", is_flag=True, help="Print only the answer.")
    @click.option("--json-lines", is_flag=True, help="Print each event as JSON, one a line, the answer last.")
    @wraps(command)
    def wrapped(*args: Any, quiet: bool, json_lines: bool, **options: Any) -> Any:
        if quiet and json_lines:
            raise click.UsageError("--quiet prints the answer alone, --json-lines every event: choose one of them")
        return command(*args, manner="quiet" if quiet else "json" if json_lines else "", **options)

    return wrapped


def loaded_study(study: File, store: str | None, sets: tuple[str, ...]) -> Any:
    from orchestrator.study import load

    return load(study, changes(store, sets))


def changes(store: str | None, sets: tuple[str, ...]) -> tuple[str, ...]:
    """What is changed of a study, its store last."""
    return (*sets, *((f"resources.store={json.dumps(store)}",) if store else ()))
