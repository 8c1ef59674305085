"""What libraries print goes into the log, what we say to the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path as File

import pytest

from orchestrator.chatter import Unexpected, aside
from trainers.call import Invalid

PROGRAM = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from orchestrator.chatter import aside

with aside() as streams:
    streams.warn = lambda text: print("warned:", text, file=streams.err)
    print("early print")
    streams.keep(Path("runs/tiny/run.log"))
    print("a library prints")
    print("and complains", file=sys.stderr)
    os.write(1, b"C++ prints\\n")
    os.write(2, b"C++ complains\\n")
    subprocess.run(["sh", "-c", "echo a child prints; echo a child complains >&2"])
    warnings.warn("a warning of Python")
    logging.getLogger("alembic.runtime").info("Running upgrade to postgresql://me:secret@host/db")
    logging.getLogger("orchestrator.tracking").warning("MLflow is away")
    print("our answer", file=streams.out)
    print("our progress", file=streams.err)
print("after")
print("after it", file=sys.stderr)
"""
CHATTER = (
    *("early print", "a library prints", "and complains", "C++ prints", "C++ complains", "a child prints"),
    *("a child complains", "a warning of Python", "INFO alembic.runtime: Running upgrade to postgresql://host/db"),
    "WARNING orchestrator.tracking: MLflow is away",
)


def test_all_that_others_print_is_in_the_log_and_nothing_of_it_on_the_terminal(tmp_path: File) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    here = str(File(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": here},
        check=True,
    )
    assert ran.stdout == "our answer\nafter\n"
    assert ran.stderr == "warned: MLflow is away\nour progress\nafter it\n"
    log = (tmp_path / "runs/tiny/run.log").read_text()
    for said in CHATTER:
        assert said in log, said
    assert "our" not in log and "secret" not in log


def test_without_a_place_for_it_the_log_is_gone(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with aside() as streams:
        logging.getLogger("some.library").warning("it starts")
    assert streams.file == "" and list(tmp_path.iterdir()) == []


def test_a_second_run_goes_on_in_the_same_log(tmp_path: File) -> None:
    for word in ("first", "second"):
        with aside() as streams:
            streams.keep(tmp_path / "run.log")
            logging.getLogger("some.library").warning(word)
    assert [line.split()[-1] for line in (tmp_path / "run.log").read_text().splitlines()] == ["first", "second"]


def test_an_error_that_nobody_has_thought_of_is_in_the_log_and_names_it(tmp_path: File) -> None:
    with pytest.raises(Unexpected) as raised, aside() as streams:
        streams.keep(tmp_path / "run.log")
        raise KeyError("postgresql://me:secret@host/db")
    assert raised.value.log == str(tmp_path / "run.log") and isinstance(raised.value.__cause__, KeyError)
    log = (tmp_path / "run.log").read_text()
    assert "Traceback" in log and "KeyError: 'postgresql://host/db'" in log


@pytest.mark.parametrize("error", [Invalid("wrong", ("search",)), BrokenPipeError(32, "Broken pipe")])
def test_what_is_known_is_raised_as_it_is(tmp_path: File, error: Exception) -> None:
    with pytest.raises(type(error)), aside() as streams:
        streams.keep(tmp_path / "run.log")
        raise error
    assert (tmp_path / "run.log").read_text() == ""


def test_before_there_is_a_log_an_error_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), aside():
        raise ZeroDivisionError


def test_loggers_and_descriptors_are_as_they_were_afterwards() -> None:
    root, ours = logging.getLogger(), logging.getLogger("orchestrator")
    before = (root.level, list(root.handlers), list(ours.handlers), os.fstat(1).st_ino, os.fstat(2).st_ino)
    with aside():
        assert (os.fstat(1).st_ino, os.fstat(2).st_ino) != before[3:]
    assert (root.level, root.handlers, ours.handlers, os.fstat(1).st_ino, os.fstat(2).st_ino) == before


def test_a_copy_of_the_log_may_lie_beside_the_report(tmp_path: File) -> None:
    with aside() as streams:
        streams.keep(tmp_path / "here" / "run.log")
        logging.getLogger("some.library").warning("it starts")
        (tmp_path / "report").mkdir()
        streams.copy(tmp_path / "report")
        streams.copy(tmp_path / "here")  # the same file
    assert "it starts" in (tmp_path / "report" / "run.log").read_text()
    assert (tmp_path / "here" / "run.log").read_text() == (tmp_path / "report" / "run.log").read_text()
