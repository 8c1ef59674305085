"""The data of a stage on the node's own disk: copied there once from a shared folder that may be slow, read ever after.

Under the scratch folder each data set has a folder, named after its kind, its arguments and what its files say. A lock
of the kernel's, which goes with its process however that ends, has one process of the node copy. A file gets its name
when it is whole, and the marker that lists all of them is written last.

The marker has size and time of change of every copy, and they are compared whenever a stage begins: that finds what
was truncated, written over or removed for the price of one look at each file. Digests would have all bytes read again,
which is what a copy is to save; that the annotations are those of the study is checked by their content in any case.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainers import build, data
from trainers.atomic import write
from trainers.call import Call, Invalid, canonical, offers
from trainers.loop import Stopped
from trainers.order import Order
from trainers.staged import use

COPIES = 16  # files at once: a network answers late, but many at a time
LOOK = 0.2  # seconds between two looks at whether another process is through
FULL = {errno.ENOSPC, errno.EDQUOT}

Say = Callable[[str], None]
Stop = Callable[[], bool]


def opened(order: Order, *, stop: Stop, say: Say) -> Any:
    """The data set of a stage, from the node's own disk if the order says so. Raises `Invalid` when it is another, or
    if there is not enough room on that disk."""
    return _checked(order, staged(order, stop=stop, say=say))


def _checked(order: Order, call: Call) -> Any:
    found, wanted = build.dataset(call), order.stage.data
    if build.identity(found) != wanted.fingerprint:
        changed = "its annotations, its image list or its metric changed"
        raise Invalid(f"{order.data} is not the data of this study any more: {changed}")
    if wanted.masks and build.masks(found) != wanted.masks:
        raise Invalid(f"{order.data} is not the data of this study any more: its masks changed")
    return found


def staged(order: Order, *, stop: Stop, say: Say) -> Call:
    """The data set with its root on the node's own disk, where all its files are; as it is if it has none, or if they
    cannot be copied there, of which `say` is told. Raises `Invalid` if there is no room for them."""
    if not order.stage_data or "root" not in order.data.args:
        return order.data
    place = scratch(order.stage_data)
    try:
        folder = _own(place) / named(order.data, order.content or order.stage.data.fingerprint)
        folder.mkdir(exist_ok=True)
        use(folder)
        here = order.data.model_copy(update={"args": {**order.data.args, "root": str(folder / "files")}})
        if not _is_whole(folder):
            with _alone(folder / "lock", stop, say):
                if not _is_whole(folder):  # nobody else has copied meanwhile
                    _fill(order, here, folder, stop)
        return here
    except Elsewhere as error:
        say(f"{error}; the data are read from {order.data.args['root']}")
    except OSError as error:
        if error.errno in FULL:
            raise Invalid(f"{place} is full, no more of the data can be copied there; {ADVICE}") from None
        say(f"{place}: {error.strerror or error}; the data are read from {order.data.args['root']}")
    return order.data


ADVICE = "make room, or name another folder by resources.stage_data, or leave that out"


class Elsewhere(Exception):
    """Some files of a data set are not in its folder."""


def anywhere(data: Call) -> Call:
    """The same data set for a process that works in another folder: its own is named from the root on."""
    if "root" not in data.args:
        return data
    return data.model_copy(update={"args": {**data.args, "root": str(Path(data.args["root"]).expanduser().absolute())}})


def scratch(stage_data: bool | str) -> Path:
    """The folder that is meant: the one that is named, or one of this user's own among temporary files."""
    if isinstance(stage_data, str):
        return Path(stage_data).expanduser()
    return Path(tempfile.gettempdir()) / f"tapath-{os.getuid()}"


def _own(place: Path) -> Path:
    """Make it where it is missing, for nobody else to write to."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.parent == Path(tempfile.gettempdir()) and place.stat().st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it belongs to somebody else")
    return place


def named(call: Call, content: str) -> str:
    """The same for the same files, wherever they come from, and however detections in them are judged."""
    args = {name: value for name, value in call.args.items() if name not in ("root", "metric")}
    said = {"kind": call.name, "args": args, "content": content}
    return f"{call.name}-{hashlib.sha256(canonical(said).encode()).hexdigest()[:16]}"


def _is_whole(folder: Path) -> bool:
    """Whether all was copied, and is as it was then."""
    try:
        listed = json.loads((folder / "whole.json").read_bytes())
        return all(_stamp(folder / "files" / name) == tuple(stamp) for name, stamp in listed.items())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _stamp(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


@contextmanager
def _alone(lock: Path, stop: Stop, say: Say) -> Iterator[None]:
    """Wait until no other process of this node copies. Raises `Stopped`."""
    with lock.open("w") as handle:
        said = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            if stop():
                raise Stopped
            if not said:
                say("another process copies the data to this node; waiting for it")
            said = True
            time.sleep(LOOK)
        yield


def _fill(order: Order, here: Call, folder: Path, stop: Stop) -> None:
    """Copy what is not there yet, make sure that it is the study's data, and write the marker."""
    root, files = Path(order.data.args["root"]).expanduser(), folder / "files"
    names = list(dict.fromkeys(offers(data)[order.data.name].files(**order.data.args)))
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Elsewhere(f"{name} is not in {root}, so that no copy of {root} has it")

    def copy(name: str) -> None:
        if stop():
            raise Stopped
        copied(root / name, files / name)

    with ThreadPoolExecutor(COPIES) as pool:
        sizes = dict(zip(names, pool.map(lambda name: _stamp(root / name), names), strict=True))
        lacking = [name for name in names if not _like(files / name, sizes[name])]
        needed, free = sum(sizes[name][0] for name in lacking), shutil.disk_usage(folder).free
        if needed > free:
            message = f"{needed:,} bytes of {root} do not fit into {folder}, where {free:,} are free"
            raise Invalid(f"{message}; {ADVICE}")
        list(pool.map(copy, lacking))
    _checked(order, here)
    os.sync()  # a marker must not outlast what it speaks of
    marker = json.dumps({name: _stamp(files / name) for name in names})
    write(folder / "whole.json", lambda aside: aside.write_text(marker))


def _like(file: Path, stamp: tuple[int, int]) -> bool:
    """Whether a copy was made of a file as it is now: it has its time only since it is whole."""
    try:
        return _stamp(file) == stamp
    except FileNotFoundError:
        return False


def copied(source: Path, target: Path) -> None:
    """Copy a file, which is there whole or not at all. Raises `OSError`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")  # of one that was killed, it is written over
    shutil.copyfile(source, aside)
    state = source.stat()
    if aside.stat().st_size != state.st_size:
        raise OSError(errno.EIO, f"{source} changed while it was copied")
    os.utime(aside, ns=(state.st_atime_ns, state.st_mtime_ns))
    aside.rename(target)
