"""How the property tests run: by no clock, and the same for everybody; and a real S3 API for those who ask for it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.buckets import Server

FILES = 40  # of which it is said how long they took

# Many processes share few cores. Ray's workers give way to everybody else by default, so a stage would wait as long as
# other tests compute; and threads that wait for one another keep cores busy with that.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Processes that are started a hundred times shall not compile the sources each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A busy machine is no reason to fail, so nothing is timed; and a failure is the fault of what was changed, so the
# examples are the same every time. `--hypothesis-profile=default` looks for others.
settings.register_profile(
    "tapath", deadline=None, max_examples=30, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tapath")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every command that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start Ray come first, as they take longest, and then those that are slow: of several processes none is
    then left with a long one when the others are done."""
    marked = {mark: {item.path for item in items if item.get_closest_marker(mark)} for mark in ("ray", "slow")}
    items.sort(key=lambda item: (item.path not in marked["ray"], item.path not in marked["slow"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which files take longest."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for one in reports:
            if isinstance(one, pytest.TestReport):
                seconds[one.location[0]] += one.duration
    terminalreporter.section("slowest files")
    for file, took in seconds.most_common(FILES):
        terminalreporter.line(f"{took:7.0f} s  {file}")
    terminalreporter.line(f"{seconds.total():7.0f} s  all {len(seconds)} files")


@pytest.fixture(scope="module")
def serving() -> Iterator[Server]:
    """A server of S3, in whose environment the tests of a file run."""
    from tests import buckets  # loading it takes a second

    with pytest.MonkeyPatch.context() as patch, buckets.serving(patch) as server:
        yield server


@pytest.fixture
def server(serving: Server) -> Iterator[Server]:
    """The same, calm in the beginning and in the end."""
    from tests import buckets

    buckets.calm(serving)
    yield serving
    buckets.calm(serving)


@pytest.fixture(params=["folder", "bucket"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a store may lie: what it promises, it promises everywhere."""
    if request.param == "folder":
        return tmp_path / "store"
    request.getfixturevalue("server")
    from tests import buckets

    return buckets.new()
