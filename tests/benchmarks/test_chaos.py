"""What a round of chaos has broken is named, and nothing else."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def chaos():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import chaos

        yield chaos
        sys.modules.pop("chaos")


@pytest.fixture
def alone(chaos):
    return chaos.Round(results={"a": (0.5, "x"), "b": (0.25, "y")}, best=[["big", "wee"]], files={"a/result.json"})


def test_a_round_like_one_that_nobody_disturbed_breaks_nothing(chaos, alone):
    assert chaos.broken(replace(alone, seconds=9.0, left={"actors": 0}), alone) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": 3}, "it ended with 3"),
        ({"results": {"a": (0.5, "x")}}, "1 stages too many or too few"),
        ({"results": {"a": (0.5, "z"), "b": (0.25, "y")}}, "other scores or weights: a"),
        ({"results": {"a": (0.5, "x"), "b": (0.26, "y")}}, "other scores or weights: b"),
        ({"best": [["wee"]]}, "another best path: [['wee']]"),
        ({"again": {"b"}}, "trained again: b"),
        ({"left": {"processes": 2, "actors": 0}}, "2 processes left"),
        ({"files": {"a/result.json", "a/lease-7"}}, "1 files too many in the store: a/lease-7"),
    ],
)
def test_a_broken_promise_is_named(chaos, alone, change, said):
    assert chaos.broken(replace(alone, **change), alone) == [said]


def test_only_processes_below_this_one_are_found_and_they_still_are_when_their_parent_is_gone(chaos):
    import os
    import signal
    import subprocess

    program = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(60)"
    child = (sys.executable, "-c", "import time; print('there', flush=True); time.sleep(60)")
    others = {*chaos.processes(sys.executable)}  # of other tests
    with subprocess.Popen((sys.executable, "-c", program, *child), stdout=subprocess.PIPE) as mine:
        mine.stdout.readline()
        (orphan,) = {*chaos.processes(sys.executable)} - others - {mine.pid}
        mine.kill()
        mine.wait()
        found = chaos.processes(sys.executable)
        os.kill(orphan, signal.SIGKILL)
    assert orphan in found and mine.pid not in found and 1 not in chaos.processes("")
