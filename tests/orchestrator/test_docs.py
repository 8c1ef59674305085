"""What the pages of docs/ tell people to type and write works as it stands there, page after page in one folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path as File
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner
from ray.dashboard.modules.job.cli import submit as ray_submit

from orchestrator.cli import main
from orchestrator.commands.options import loaded_study
from tests.orchestrator import studies
from tests.orchestrator.documented import PAGES, README, ROOT, parsed, typed
from tests.orchestrator.documented import blocks as listed

IN_TURN = ["path-search", "sweeps", "mlflow"]  # a later page asks about what an earlier one trained
PATHS = r"`((?:trainers|orchestrator|tests|search_spaces|benchmarks|deploy)/[\w/.-]*)`"


class Block(NamedTuple):
    """A fenced block of a page."""

    kind: str  # what stands behind the fence
    text: str

    @property
    def file(self) -> str:
        """The file that its first line says it is."""
        return self.text.partition("\n")[0].removeprefix("# ")


def blocks(page: File) -> list[Block]:
    return [Block(*found) for found in re.findall(r"```([a-z ]+)\n(.*?)```", page.read_text(), flags=re.DOTALL)]


def written(page: File, folder: File) -> list[str]:
    """Write the page's studies into a folder. -> its commands, without the program's name."""
    for block in blocks(page):
        if block.kind == "yaml":
            (folder / block.file).write_text(block.text)
    return [
        line.removeprefix("tapath ") for block in blocks(page) if block.kind == "sh" for line in block.text.splitlines()
    ]


def in_turn(folder: File, lines: list[str], root: File = ROOT) -> list[dict[str, Any]]:
    """What each command prints and ends with, one after another in one process, with the sources in `root`."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.orchestrator.in_turn", "commands", *lines],
        cwd=folder,
        env=studies.environment() | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("page", [*PAGES, README], ids=lambda page: page.stem)
def test_every_command_of_a_page_is_one_that_there_is(page: File) -> None:
    """And of a study that comes with us, all that is changed on the command line can be."""
    for words in typed(page.read_text()):
        _, options = parsed(words)  # raises what a user would read
        if (ROOT / str(options.get("study"))).is_file():
            loaded_study(ROOT / options["study"], options.get("store"), options.get("sets", ()))


@pytest.mark.parametrize("page", [ROOT / "docs" / "cluster.md", README], ids=lambda page: page.stem)
def test_what_a_page_hands_to_ray_is_what_ray_takes(page: File) -> None:
    (line,) = [line for line in listed(page.read_text()) if line.startswith("ray job submit ")]
    asked = ray_submit.make_context("submit", shlex.split(line)[3:]).params
    assert asked["no_wait"] and asked["entrypoint"][:3] == ("python", "-m", "orchestrator")


def test_a_command_is_found_wherever_it_stands() -> None:
    text = 'See `tapath plan\nSTUDY` and:\n\n    tapath run a.yaml # why\n    eval "$(tapath completion bash)"\n'
    text += "    a: {tapath: 'it is}\n\n```sh elsewhere\ntapath schema > schema.json\n```\n"
    text += "\n    ray job submit -- python -m orchestrator run b.yaml\n"
    assert [" ".join(words) for words in typed(text)] == [
        *("plan STUDY", "run a.yaml", "completion bash", "run b.yaml", "schema"),
    ]
    for wrong in (["plann", "a.yaml"], ["plan", "a.yaml", "--no-dat"], ["completion", "tcsh"]):
        with pytest.raises((AssertionError, click.UsageError)):
            parsed(wrong)


def test_the_rayjob_of_the_page_is_printed(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the study that another page begins with."""
    monkeypatch.chdir(tmp_path)
    written(ROOT / "docs" / "path-search.md", tmp_path)
    (line,) = written(ROOT / "docs" / "cluster.md", tmp_path)
    ended = CliRunner().invoke(main, shlex.split(line))
    assert ended.exit_code == 0 and "kind: RayJob" in ended.stdout and "registry/tapath:1" in ended.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_a_page_names_are_there(page: File) -> None:
    examples = {block.file for block in blocks(page) if block.kind == "python"}
    assert [name for name in re.findall(PATHS, page.read_text()) if not (ROOT / name).exists()] == []
    assert all((ROOT / name).parent.is_dir() for name in examples)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: File) -> None:
    local = [name for name in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in name]
    assert [name for name in local if not (page.parent / name).exists()] == []


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_the_pages_say_can_be_done_can_be_done(tmp_path: File) -> None:
    lines = [line for name in IN_TURN for line in written(ROOT / "docs" / f"{name}.md", tmp_path)]
    ended = dict(zip(lines, in_turn(tmp_path, lines), strict=True))
    assert {line: one["out"] for line, one in ended.items() if one["code"] != 0} == {}
    assert "large > small" in ended["best shrink.yaml"]["out"]
    assert "LD.temperature" in ended["best sweep.yaml"]["out"]
    assert all(one["out"].strip() for one in ended.values())


# What a new loss has to be in, and what holds for it: of these files the tests that are about it or about all losses.
ABOUT_A_LOSS = (
    *("tests/test_rules.py", "tests/trainers/distill/test_no_host_sync.py", "tests/trainers/test_every_loss.py"),
    *("tests/trainers/test_every_loss_balanced.py", "tests/trainers/test_every_loss_shared.py"),
    *("tests/trainers/test_every_pair.py", "tests/trainers/test_every_pieces.py"),
    *("tests/trainers/test_every_sibling.py", "tests/orchestrator/test_readme.py", "tests/orchestrator/test_schema.py"),
    *("tests/orchestrator/test_search_spaces.py", "tests/orchestrator/test_small_studies.py"),
)
OF_IT = "attention or (every_loss_teaches and FCOS)"
OF_ALL = (
    *("keep_the_rule", "looked_at_and", "in_the_list", "forgotten", "lists_above", "all_losses_taught", "among_them"),
    *("has_its_row", "file_in_the_repository", "has_a_study", "is_exercised"),
)
NOT_ITS_STUDY = "not is_trained_and and not is_recorded"  # all small studies would be trained


def added(page: File, copy: File) -> None:
    """Do in a copy of the sources what a page says: new files, lines at the end of others, and a row of a table."""
    for block in blocks(page):
        text = block.text.partition("\n")[2]
        target = copy / block.file.partition(",")[0]
        match block.kind:
            case "python":
                with target.open("a") as stream:
                    stream.write(text)
            case "yaml":
                target.write_text(block.text)
            case "markdown":
                before, heading, after = target.read_text().partition("\n## Losses\n")
                last = re.findall(r"^\|.*\n", after.partition("\n## ")[0], flags=re.MULTILINE)[-1]
                target.write_text(before + heading + after.replace(last, last + text, 1))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_method_of_the_page_can_be_added_as_it_says_and_breaks_no_rule(tmp_path: File) -> None:
    page, copy = ROOT / "docs" / "adding-a-method.md", tmp_path / "copy"
    copy.mkdir()
    for name in ("orchestrator", "trainers", "tests", "search_spaces", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, copy)
    added(page, copy)
    sh = "".join(block.text for block in blocks(page) if block.kind == "sh")
    lines = [line.removeprefix("tapath ") for line in sh.splitlines()]
    words, places = zip(*(line.split(" > ") if " > " in line else (line, "") for line in lines), strict=True)
    ended = in_turn(copy, list(words), copy)
    assert [one["code"] for one in ended] == [0] * len(lines), ended
    for place, one in zip(places, ended, strict=True):
        if place:
            (copy / place).write_text(one["out"])
    stages = studies.stages(copy, "small_attention")
    assert all(epoch["train/loss_attentiontransfer"] > 0 for epoch in stages["large", "small"]["history"])

    own = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    chosen = f"({' or '.join([OF_IT, *OF_ALL])}) and {NOT_ITS_STUDY}"
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ABOUT_A_LOSS, "-k", chosen]
    benchmark = [sys.executable, "benchmarks/losses.py", "--quick", "AttentionTransfer"]
    for command in (tests, benchmark):
        ran = subprocess.run(command, cwd=copy, env=own, capture_output=True, text=True, timeout=900)
        assert ran.returncode == 0, ran.stdout + ran.stderr
