"""Who can reach the workers of a stage that has several: where all are on one node, nobody who is on another."""

from __future__ import annotations

import json
import time
from pathlib import Path as File

import pytest

from tests.faults.clusters import WORKERS
from tests.faults.servers import exposed
from tests.orchestrator import studies
from tests.orchestrator.studies import TAPATH, command_line, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO = ("--set", "models.big.resources={workers: 2, cpus: 0.5}")


def test_several_workers_on_one_machine_listen_to_it_alone(tmp_path: File) -> None:
    write(tmp_path, without("mid", "low"))
    open_to_all, workers = set[str](), set[int]()
    with underway(tmp_path, "run", "tiny.yaml", *TWO, program=(TAPATH,)) as command:
        while command.popen.poll() is None:
            there = command.look()
            workers |= {one[0] for one in there if command_line(one).startswith(WORKERS)}
            open_to_all |= exposed(pid for pid, _ in there)
            time.sleep(0.1)
        assert command.end() == 0, command.text
    big = File(tmp_path / "store" / studies.stages(tmp_path)["big",]["key"] / "result.json")
    assert json.loads(big.read_text())["usage"]["workers"] == 2
    assert len(workers) >= 2 and open_to_all == set()
