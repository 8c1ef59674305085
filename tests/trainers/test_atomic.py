"""New files are all there or none, whatever fails, and none is written over."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trainers.atomic import write_new
from trainers.call import Invalid

TEXTS = {"out/new/a.json": "first " * 1000, "out/new/b.json": "second " * 1000}
STEPS = ["mkdir", "mkdir", *["fill", "fsync"] * 2, *["link"] * 2, *["unlink"] * 2, *["open", "fsync"] * 3]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the files are written, with another file in it."""
    (tmp_path / "other.json").write_text("other")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> dict[str, str | None]:
    """All files with what they hold, and all folders."""
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    return {name: file.read_text() if file.is_file() else None for name, file in found.items()}


def fills() -> dict[Path, Callable[[Path], object]]:
    return {Path(name): partial(Path.write_text, data=text) for name, text in TEXTS.items()}


def failing(monkeypatch: pytest.MonkeyPatch, moment: int, error: BaseException, *, after: bool = False) -> list[str]:
    """Fail once, at the n-th operation that changes the disk, just before or just after it. -> those so far."""
    done: list[str] = []

    def mortal(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def act(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            if len(done) == moment and not after:
                raise error
            result = operation(*args, **kwargs)
            if len(done) == moment:
                raise error
            return result

        return act

    for name in ("mkdir", "link", "unlink", "rename", "open", "fsync"):
        if not (name == "open" and after):  # what is open then was only read
            monkeypatch.setattr(os, name, mortal(name, getattr(os, name)))
    monkeypatch.setattr(Path, "write_text", mortal("fill", Path.write_text))
    return done


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


def test_files_are_flushed_before_they_are_named_and_their_folders_after(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(folder)
    with monkeypatch.context() as patch:
        done = failing(patch, 0, full())
        write_new(fills())
    assert done == STEPS
    assert everything(folder) == {**before, "out": None, "out/new": None, **TEXTS}


@pytest.mark.parametrize("moment", range(1, len(STEPS) + 1))
def test_a_full_disk_at_any_step_leaves_the_folder_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    before = everything(folder)
    with monkeypatch.context() as patch:
        failing(patch, moment, full())
        with pytest.raises(Invalid, match=r"cannot write out\S*: No space left on device; nothing was written"):
            write_new(fills())
    assert everything(folder) == before
    write_new(fills())
    assert everything(folder).items() > TEXTS.items()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", range(1, len(STEPS) - 3))
def test_an_interrupt_at_any_step_leaves_the_folder_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int, after: bool
) -> None:
    before = everything(folder)
    with monkeypatch.context() as patch:
        failing(patch, moment, KeyboardInterrupt(), after=after)
        with pytest.raises(KeyboardInterrupt):
            write_new(fills())
    assert everything(folder) == before


@pytest.mark.parametrize("moment", range(1, 5))
def test_without_hard_links_it_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    before = everything(folder)
    with monkeypatch.context() as patch:
        without_links(patch)
        write_new(fills())
    assert everything(folder) == {**before, "out": None, "out/new": None, **TEXTS}
    for name in TEXTS:
        (folder / name).unlink()
    (folder / "out" / "new").rmdir()
    (folder / "out").rmdir()
    with monkeypatch.context() as patch:
        done = failing(patch, 6 + moment, full())  # made, filled and flushed: then opened and renamed, twice
        without_links(patch)
        with pytest.raises(Invalid, match=r"cannot write out/new/[ab]\.json: No space left on device"):
            write_new(fills())
    assert done[6 : 6 + moment] == ["open", "rename", "open", "rename"][:moment]
    assert everything(folder) == before


@pytest.mark.parametrize("prepare", [without_links, lambda _: None], ids=["without links", "with links"])
@pytest.mark.parametrize("dangling", [False, True], ids=["file", "dangling link"])
def test_a_file_that_comes_up_meanwhile_is_named_and_never_written_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch, prepare: Any, dangling: bool
) -> None:
    theirs = folder / "out" / "new" / "b.json"

    def late(aside: Path) -> None:
        aside.write_text("ours")
        theirs.symlink_to("nowhere") if dangling else theirs.write_text("theirs")

    prepare(monkeypatch)
    with pytest.raises(Invalid, match=r"^out/new/b\.json is there already and is not written over; nothing was"):
        write_new({**fills(), Path("out/new/b.json"): late})
    assert os.listdir(folder / "out" / "new") == ["b.json"]
    assert os.readlink(theirs) == "nowhere" if dangling else theirs.read_text() == "theirs"


def test_what_cannot_be_removed_again_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(*_: Any, **__: Any) -> None:
        raise full()

    monkeypatch.setattr(os, "link", stuck)
    monkeypatch.setattr(os, "unlink", stuck)
    with pytest.raises(Invalid, match=r"on device; these cannot be removed: out/new/\.a\.json\.[\w-]+, out/new/\.b\."):
        write_new(fills())


def test_an_error_of_another_kind_passes_through_and_leaves_nothing(folder: Path) -> None:
    def broken(aside: Path) -> None:
        aside.write_text("half")
        raise RecursionError

    before = everything(folder)
    with pytest.raises(RecursionError):
        write_new({**fills(), Path("out/new/b.json"): broken})
    assert everything(folder) == before


def test_a_folder_that_cannot_be_flushed_is_no_failure(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_new(fills())
    assert everything(folder).items() >= TEXTS.items()


KILLED = """
import os, signal, sys
from pathlib import Path
from trainers.atomic import write_new

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def second(aside):
    with aside.open("w") as stream:
        stream.write("half")
        stream.flush()
        if sys.argv[1] == "filling":
            die()
        stream.write(" whole")

def link(aside, file, named=[], real=os.link):
    if named:
        die()
    named.append(file)
    real(aside, file)

if sys.argv[1] == "naming":
    os.link = link
write_new({Path("out/a.json"): lambda aside: aside.write_text("whole"), Path("out/b.json"): second})
"""


@pytest.mark.parametrize(
    ("moment", "named"),
    [
        ("filling", {}),
        ("naming", {"a.json": "whole"}),
        ("never", {"a.json": "whole", "b.json": "half whole"}),
    ],
)
def test_a_killed_process_leaves_no_name_with_half_its_content(
    folder: Path, moment: str, named: dict[str, str]
) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", KILLED, moment], env=env, check=False)
    assert ended.returncode == (0 if moment == "never" else -signal.SIGKILL)
    assert {file.name: file.read_text() for file in (folder / "out").glob("[!.]*")} == named
