"""What shells complete: in a real bash, and for studies and models as click asks for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path as File

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from orchestrator.cli import main
from tests.orchestrator.studies import TAPATH, write

BASH = shutil.which("bash")


def completed(*words: str) -> list[str]:
    """What is proposed for the last of these words."""
    found = ShellComplete(main, {}, "tapath", "_TAPATH_COMPLETE").get_completions(list(words[:-1]), words[-1])
    return [one.value for one in found]


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_bash_completes_a_command(tmp_path: File) -> None:
    script = f"""
        eval "$({TAPATH} completion bash)"
        COMP_WORDS=(tapath pl) COMP_CWORD=1
        _tapath_completion tapath pl tapath
        echo "${{COMPREPLY[@]}}"
        complete -p tapath
    """
    own = {**os.environ, "PATH": f"{File(TAPATH).parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run([str(BASH), "-c", script], capture_output=True, text=True, env=own, cwd=tmp_path)
    reply, registered = ended.stdout.splitlines()
    assert reply == "plan", ended.stderr
    assert "_tapath_completion" in registered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script_of_its_own(shell: str) -> None:
    ended = CliRunner().invoke(main, ["completion", shell])
    assert ended.exit_code == 0 and f"_TAPATH_COMPLETE={shell}_complete" in ended.stdout


def test_another_shell_is_refused_with_those_that_there_are() -> None:
    ended = CliRunner().invoke(main, ["completion", "cmd"])
    assert ended.exit_code == 2 and "'bash', 'zsh', 'fish'" in ended.stderr


@pytest.mark.usefixtures("in_a_folder")
def test_studies_are_proposed_by_the_beginning_of_their_names() -> None:
    for name in ("demo.yaml", "dev.yml", "notes.txt", "other.yaml", "more/deep.yaml"):
        write(File(name).parent, name=File(name).name)
    assert completed("plan", "") == ["demo.yaml", "dev.yml", "other.yaml"]
    assert completed("plan", "de") == ["demo.yaml", "dev.yml"]
    assert completed("run", "more/") == ["more/deep.yaml"]
    assert completed("gc", "demo.yaml", "o") == ["other.yaml"]


@pytest.mark.usefixtures("in_a_folder")
def test_where_there_is_no_study_the_shell_completes_files_itself() -> None:
    (found,) = ShellComplete(main, {}, "tapath", "_TAPATH_COMPLETE").get_completions(["plan"], "folder/")
    assert found.type == "file"


@pytest.mark.usefixtures("in_a_folder")
def test_models_are_those_of_the_study_that_was_typed() -> None:
    write(File())
    assert completed("why", "tiny.yaml", "") == ["big", "mid", "low", "wee"]
    assert completed("best", "tiny.yaml", "--student", "w") == ["wee"]


@pytest.mark.usefixtures("in_a_folder")
def test_a_study_that_is_none_proposes_nothing_and_breaks_nothing() -> None:
    File("broken.yaml").write_text("models: [")
    File("listed.yaml").write_text("[1, 2]")
    for name in ("broken.yaml", "listed.yaml", "missing.yaml"):
        assert completed("why", name, "") == []
