"""What a shell completes on the command line beyond commands and options: studies, and the models in them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path as File
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from orchestrator.yamlfile import read
from trainers.call import Invalid

SHELLS = ("bash", "zsh", "fish")


class AtHome(click.Path):
    """A path in which ~ is somebody's home, also where no shell has seen to that: --out=~/found."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value) if isinstance(value, str) else value, param, ctx)


class StudyFile(AtHome):
    """A study's file: where there are any, files of YAML are proposed alone."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        folder, _, start = incomplete.rpartition("/")
        there = File(folder) if folder else File("/" if incomplete.startswith("/") else ".")
        found = sorted(file.name for file in there.glob("*.y*ml") if file.name.startswith(start))
        before = incomplete[: len(incomplete) - len(start)]
        return [CompletionItem(before + name) for name in found] or super().shell_complete(ctx, param, incomplete)


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of the models of the study that was typed before, which is read but not checked."""
    tree: Any = None
    study = ctx.params.get("study") or next(iter(ctx.args), "")  # before an option without its value it is an argument
    with suppress(Invalid):
        tree = read(File(study)).tree
    known = tree.get("models") if isinstance(tree, dict) else None
    return [name for name in known if str(name).startswith(incomplete)] if isinstance(known, dict) else []


def script(shell: str, command: click.Command) -> str:
    """What a shell has to read to complete `tapath`."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three"
    return kind(command, {}, "tapath", "_TAPATH_COMPLETE").source()
