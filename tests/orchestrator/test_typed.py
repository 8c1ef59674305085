"""Every command that the README or a page of docs/ has people type is run, as it stands there.

Those of the README but for `run` and `submit` run in test_readme.py, and the blocks of the pages in test_docs.py. Here
run the others: one after another in one folder and one process, with places of this machine for those that are named.
"""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path as File
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import submit
from orchestrator.cli import main
from orchestrator.study import load
from tests.orchestrator.documented import PAGES, README, ROOT, ours, parsed, typed
from tests.orchestrator.studies import stored, without, write
from tests.orchestrator.test_docs import IN_TURN, blocks, in_turn
from tests.orchestrator.test_readme import COMMANDS, LINES

# Pages whose blocks test_docs.py runs: one after another, in a copy of the sources, and without a cluster.
RUN_THERE = {*IN_TURN, "adding-a-method", "cluster"}
# Read, but not run, and why.
READ_ALONE = {"submit STUDY --follow": "a table of exit codes names the option; no cluster and no store stand there"}
# What stands for a user's own is a tiny study here, and places of this machine.
HERE = {
    **dict.fromkeys(("STUDY", "study.yaml", "search_spaces/demo.yaml"), "tiny.yaml"),
    "/shared/store": "shared",
    "resources.store=/shared/store": "resources.store=shared",
    "http://mlflow:5000": "sqlite:///mlflow.db",
    "resources.tracking=http://mlflow:5000": "resources.tracking=sqlite:///mlflow.db",
}


def every() -> set[str]:
    """All commands with something behind their names, of all pages."""
    found = [words for page in [*PAGES, README] for words in typed(page.read_text())]
    return {shlex.join(words) for words in found if parsed(words)[1]}


def run_there() -> set[str]:
    sh = {page.stem: [one.text for one in blocks(page) if one.kind == "sh"] for page in PAGES}
    assert {page for page, texts in sh.items() if texts} == RUN_THERE
    lines = [line for texts in sh.values() for text in texts for line in text.splitlines()]
    return {*map(normal, COMMANDS), *LINES} | {shlex.join(ours(line)) for line in lines}


def normal(command: str) -> str:
    return shlex.join(shlex.split(command))


REST = sorted(every() - run_there() - READ_ALONE.keys())
SUBMITTED = [command for command in REST if command.startswith("submit ")]
# Later ones ask of what was run.
RUN = sorted((c for c in REST if c not in SUBMITTED), key=lambda command: not command.startswith("run "))


def test_what_is_only_read_stands_somewhere() -> None:
    assert READ_ALONE.keys() <= every()
    assert any("sweep=" in command for command in RUN) and any("--tracking-later" in command for command in RUN)


def on_this_machine(command: str) -> str:
    """A study that was published is planned by the same words, and without its data, which are not here."""
    name, study, *words = shlex.split(command)
    if study.startswith("search_spaces/") and study not in HERE:
        return shlex.join(["plan", str(ROOT / study), *words, "--no-data"])
    return shlex.join([name, HERE.get(study, study), *(HERE.get(word, word) for word in words)])


@pytest.mark.ray
@pytest.mark.slow
def test_what_trains_and_what_asks_of_it_works_as_it_is_typed(tmp_path: File) -> None:
    write(tmp_path, without("mid", "low"))
    ended = dict(zip(RUN, in_turn(tmp_path, list(map(on_this_machine, RUN))), strict=True))
    assert {command: one["out"] for command, one in ended.items() if one["code"] != 0} == {}
    assert all(one["out"].strip() for one in ended.values())
    assert "big > wee" in ended["run study.yaml"]["out"]
    assert len(stored(tmp_path, "shared")) == 3, "of the study"
    assert len(stored(tmp_path)) == 3 + 2, "of the sweep one weight is the study's own"


class Pretended:
    """A cluster's job server that takes a job and runs nothing."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    def list_jobs(self) -> list[Any]:
        return []

    def submit_job(self, **job: Any) -> str:
        self.jobs.append(job)
        return "job"


@pytest.mark.parametrize("command", SUBMITTED)
def test_what_is_submitted_brings_with_it_all_that_the_job_needs(
    command: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the cluster, where tests/orchestrator/test_submit.py goes on with a real one."""
    asked, cluster = dict[str, str](), Pretended()
    monkeypatch.setattr(submit, "connected", lambda address: asked.update(address=address) or cluster)
    monkeypatch.setattr(submit, "followed", lambda *job: 0)
    monkeypatch.chdir(tmp_path)
    name, _, *words = shlex.split(command)
    write(tmp_path)
    ended = CliRunner().invoke(main, [name, "tiny.yaml", *words])
    assert ended.exit_code == 0 and asked == {"address": "http://HEAD:8265"}, ended.output
    (job,) = cluster.jobs
    sets = [word for before, word in pairwise(shlex.split(job["entrypoint"])) if before == "--set"]
    resources = load(tmp_path / "tiny.yaml", sets).resources
    assert (resources.store, resources.tracking) == ("/shared/store", "http://mlflow:5000")
