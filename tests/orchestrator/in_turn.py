"""Commands and studies one after another in one process, each as `tapath` runs it, on a Ray that is started once."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from click.testing import CliRunner

from orchestrator.cli import main as tapath
from orchestrator.session import session
from orchestrator.study import load


@contextmanager
def one_ray() -> Iterator[None]:
    """Each study would start its own Ray, and take it down. With one core, as for a second stage another process would
    have to load everything, which takes longer than a tiny study."""
    ray.init(address="local", num_cpus=1, include_dashboard=False)
    try:
        yield
    finally:
        ray.shutdown()


def run(files: list[str], sets: dict[str, list[str]]) -> dict[str, int]:
    """-> the exit code of each study. `sets`: for some of the files, what `--set` would change."""
    with one_ray():
        return {file: session(load(file, sets.get(file, [])), manner="quiet") for file in files}


def say(lines: list[str]) -> list[dict[str, Any]]:
    """-> what each command prints and ends with."""
    with one_ray():
        ended = [CliRunner().invoke(tapath, shlex.split(line)) for line in lines]
    return [{"out": one.output, "code": one.exit_code} for one in ended]


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    print(json.dumps(say(words) if what == "commands" else run(words, json.loads(what))))
