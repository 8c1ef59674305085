"""How a study was run: the command, and the versions and the commit of what ran it."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path as File
from typing import Any

from orchestrator.masking import public
from orchestrator.study import Study

LIBRARIES = ("tapath", "torch", "torchvision", "ray", "mlflow")
SOURCES = ("orchestrator", "trainers")
PATIENCE = 10.0  # seconds for which git may think
TAG = "made"  # of the study's run in MLflow


def made(study: Study) -> dict[str, Any]:
    """`command`, as it was typed but for what only changed how it was run; `versions` by name; `commit`, the sources'
    own in git, or None, and whether they were `changed` since."""
    commit, changed = _commit(File(__file__).parent)
    return {
        "command": command(study, "run"),
        "versions": dict(_versions()),
        "commit": commit,
        "changed": changed,
    }


def command(study: Study, verb: str, *words: str) -> str:
    """What to type for a study as it is here, with what was set."""
    sets = (word for one in study.sets for word in ("--set", public(one)))
    return shlex.join(["tapath", verb, study.file, *sets, *words])


def remembered(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """The same from the tags of a study's run in MLflow; None where an earlier version logged it."""
    try:
        found: dict[str, Any] = json.loads(tags[TAG])
    except (KeyError, ValueError):
        return None
    return found


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name in LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:  # sources that were shipped with a job are not installed
            continue
    return tuple(found)


@lru_cache(maxsize=1)
def _commit(folder: File) -> tuple[str | None, bool]:
    """Of the repository that has these sources, which a repository around an installation has not."""
    try:
        _git(folder, "ls-files", "--error-unmatch", File(__file__).name)
        commit = _git(folder, "rev-parse", "HEAD").strip()
        told = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", *(f"../{name}" for name in SOURCES))
        return commit, bool(told.strip())
    except (OSError, subprocess.SubprocessError):
        return None, False


def _git(folder: File, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout
