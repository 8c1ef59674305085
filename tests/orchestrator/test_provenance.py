"""How a study was run: its YAML with what was set, the command, versions, and the commit of the sources."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from orchestrator import provenance
from orchestrator.study import Study, load
from tests.orchestrator.study_texts import TEXT

SETS = ("recipe.lr=1e-5", "seeds=[3, 4]", "resources.store='s3://bucket/it''s'", "recipe.optimizer.SGD.momentum=0.8")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TEXT + "# why\n")
    return file


def again(study: Study, folder: Path) -> Study:
    """The same read once more, from its own YAML."""
    folder.mkdir()
    (folder / "tiny.yaml").write_text(study.yaml)
    return load(folder / "tiny.yaml")


def test_the_yaml_of_a_study_as_it_is_keeps_every_word(study: Path) -> None:
    assert load(study).yaml == study.read_text()


def test_the_yaml_of_a_study_holds_what_was_set_and_is_the_same_study(study: Path, tmp_path: Path) -> None:
    changed = load(study, SETS)
    assert changed.resolved() != load(study).resolved()
    assert again(changed, tmp_path / "again").resolved() == changed.resolved()


def test_the_command_is_what_was_typed_without_passwords(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parent)
    sets = ("recipe.lr=0.1", "resources.tracking=http://me:hush@mlflow:5000")
    made = provenance.made(load("tiny.yaml", sets))
    assert made["command"] == "tapath run tiny.yaml --set recipe.lr=0.1 --set resources.tracking=http://mlflow:5000"
    assert {"python", "torch", "torchvision", "ray", "mlflow"} <= set(made["versions"])
    assert json.loads(json.dumps(made)) == made


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A repository with sources like ours."""
    folder = tmp_path / "repository" / "orchestrator"
    folder.mkdir(parents=True)
    (folder / "provenance.py").write_text("1")
    git(folder.parent, "init", "-q")
    git(folder, "add", "provenance.py")
    git(folder, "commit", "-qm", "one")
    return folder


@pytest.fixture(autouse=True)
def _forget() -> None:
    provenance._commit.cache_clear()


def test_the_commit_is_that_of_the_sources_and_it_is_said_if_they_have_changed(sources: Path) -> None:
    commit = git(sources, "rev-parse", "HEAD")
    (sources.parent / "notes.txt").write_text("no source")
    assert provenance._commit(sources) == (commit, False)
    provenance._commit.cache_clear()
    (sources / "provenance.py").write_text("2")
    assert provenance._commit(sources) == (commit, True)


def test_a_repository_around_an_installation_is_not_its_own(sources: Path, tmp_path: Path) -> None:
    installed = sources.parent / ".venv" / "orchestrator"
    installed.mkdir(parents=True)
    (installed / "provenance.py").write_text("1")
    assert provenance._commit(installed) == (None, False)
    assert provenance._commit(tmp_path) == (None, False)


def test_without_git_nothing_is_said_of_a_commit(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance._commit(sources) == (None, False)


@pytest.mark.parametrize("tags", [{}, {"made": ""}, {"made": '{"command": "tapa'}])
def test_where_an_earlier_version_noted_nothing_or_half_of_it_it_is_left_out(tags: dict[str, str]) -> None:
    assert provenance.remembered(tags) is None
