"""What cannot be written is told at the option that names it, before anything else is done where that can be known."""

from __future__ import annotations

import errno
import os
from pathlib import Path as File

import pytest
from PIL import Image

from orchestrator.writable import writable
from tests.orchestrator.commands import DIGITS, folder, run
from tests.orchestrator.studies import write
from trainers.call import Invalid

__all__ = ["folder"]  # a fixture, for each test here

COMMANDS = {
    "evaluate": (("nowhere", "--data", DIGITS, "--save", "there"), "--save: there cannot be written: it is a folder"),
    "predict": (("nowhere", "one.png", "--out", "one.png/in"), "--out: one.png/in cannot be written: "),
    "export": (("nowhere", "--out", "one.png/in"), "--out: one.png/in cannot be written: "),
    "init": (("one.png/in.yaml",), "FILE: one.png/in.yaml cannot be written: "),
    "data": (("digits", "one.png/in", "--train", "4"), "FOLDER: one.png/in cannot be written: "),
    "report": (("tiny.yaml", "--out", "one.png/in"), "--out: one.png/in cannot be written: "),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_that_cannot_be_written_is_one_line_and_exit_code_2(command: str, folder: File) -> None:
    words, part = COMMANDS[command]
    Image.new("RGB", (8, 9)).save("one.png")
    File("there").mkdir()
    write(folder)
    before = sorted(folder.rglob("*"))
    ended = run(command, *words)
    (line,) = ended.stderr.splitlines()
    assert ended.exit_code == 2 and line.startswith(f"error: {part}") and "; name another f" in line
    assert sorted(folder.rglob("*")) == before


def test_of_a_report_without_out_it_is_the_study_that_names_the_place(folder: File) -> None:
    File("runs").write_text("mine")
    write(folder)
    ended = run("report", "tiny.yaml")
    assert ended.exit_code == 2 and "error: resources.runs: runs/tiny cannot be written: " in ended.stderr


def test_a_disk_that_is_full_is_told_with_what_to_do(tmp_path: File) -> None:
    with pytest.raises(Invalid, match="No space left on device; make room") as raised, writable(tmp_path, "--out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.where == ("--out",)


@pytest.mark.parametrize("name", ["out/deep/a.png", "out", ".", "out/.results.json.1-2"])
def test_what_goes_wrong_in_the_folder_or_above_it_is_about_it(name: str, folder: File) -> None:
    File("out/deep").mkdir(parents=True)
    with pytest.raises(Invalid, match="out cannot be written"), writable(File("out"), "--out"):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / name))


def test_a_file_before_it_has_its_name_is_about_it_too(folder: File) -> None:
    with pytest.raises(Invalid), writable(File("it.json"), "--save", folder=False):
        raise PermissionError(errno.EACCES, "Permission denied", ".it.json.1-2")


@pytest.mark.parametrize("error", [OSError("gone"), FileNotFoundError(errno.ENOENT, "No such file", "store/a.json")])
def test_an_error_about_anything_else_passes_through(error: OSError, folder: File) -> None:
    with pytest.raises(type(error), match=r"gone|No such file"), writable(File("out"), "--out"):
        raise error


def test_nothing_is_said_of_what_nobody_asked_for() -> None:
    with pytest.raises(OSError, match="No space left"), writable(None, "--save"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_is_somebody_elses_is_refused_before(folder: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(Invalid, match="Permission denied"), writable(File("out"), "--out"):
        raise AssertionError("it was begun")
