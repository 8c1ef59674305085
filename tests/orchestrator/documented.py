"""The commands that the README and the pages of docs/ have people type, wherever they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path as File
from typing import Any

import click

from orchestrator.cli import main

ROOT = File(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
# What has to be there when a command is read, and what stands for it.
THERE = {"DIR": ".", "/data/cats": ".", "FILE": str(README)}

# In text, behind four spaces, and in fenced blocks of a shell's.
INLINE = re.compile(r"`(tapath [a-z][^`]*)`")
INDENTED = re.compile(r"^    (.*)$", flags=re.MULTILINE)
FENCED = re.compile(r"^```sh[a-z ]*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[str]:
    """The lines of a text's blocks."""
    return INDENTED.findall(text) + [line for block in FENCED.findall(text) for line in block.splitlines()]


def ours(line: str) -> list[str]:
    """What stands behind `tapath` or `python -m orchestrator` in a line of a shell; nothing if neither is in it."""
    inner = re.search(r"\$\((tapath [^)]*)\)", line)
    line = inner[1] if inner else line
    if not re.search(r"(^|\s)(tapath|-m orchestrator)\s", line):
        return []
    words = shlex.split(line, comments=True)
    if "orchestrator" in words:
        words = words[words.index("orchestrator") :]
    return words[1 : next((i for i, word in enumerate(words) if word in (">", "|")), None)]


def typed(text: str) -> list[list[str]]:
    """Every command of a text, without the program's name."""
    inline = [ours(line) for line in INLINE.findall(text)]
    return inline + [words for line in blocks(text) if (words := ours(line))]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of a command, and what it would be called with; nothing where there is but its name.

    Raises what a user would read."""
    command: click.Command = main
    names = []
    while isinstance(command, click.Group):
        name, *words = words
        assert name in command.commands, name
        names, command = [*names, name], command.commands[name]
    if not words:
        return " ".join(names), {}
    there = [THERE.get(word, word) for word in words]
    return " ".join(names), command.make_context(names[-1], there).params
